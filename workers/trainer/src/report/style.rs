//! The style sheet, which is part of the page.

use super::plot::{Colour, Ink};

const SHEET: &str = include_str!("style.css");

/// Returns the style sheet with the colours of charts and legends.
pub(super) fn sheet() -> String {
    let mut sheet = SHEET.to_owned();
    for ink in Ink::ALL {
        let Colour { rgb: [red, green, blue], variable } = ink.colour();
        let name = variable.trim_start_matches("--");
        sheet.push_str(&format!(
            ".plot [fill=\"#{red:02X}{green:02X}{blue:02X}\"] {{ fill: var({variable}); }}\n\
             .plot [stroke=\"#{red:02X}{green:02X}{blue:02X}\"] {{ stroke: var({variable}); }}\n\
             .key.{name}::before {{ border-color: var({variable}); }}\n"
        ));
    }
    let [red, green, blue] = Ink::Guide.colour().rgb;
    sheet.push_str(&format!(".plot [stroke=\"#{red:02X}{green:02X}{blue:02X}\"] {{ stroke-dasharray: 50 40; }}\n"));
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every ink has a colour of its own, defined for light and for dark.
    #[test]
    fn every_ink_has_a_colour_in_both_schemes() {
        let (light, dark) = SHEET.split_once("prefers-color-scheme: dark").unwrap();
        for (at, ink) in Ink::ALL.into_iter().enumerate() {
            assert!(Ink::ALL[..at].iter().all(|other| other.colour().rgb != ink.colour().rgb), "{ink:?}");
            let Colour { rgb: [red, green, blue], variable } = ink.colour();
            let definition = format!("{variable}: #");
            assert!(light.contains(&definition) && dark.contains(&definition), "{ink:?}");
            assert!(
                light.contains(&format!("{definition}{red:02x}{green:02x}{blue:02x}")),
                "{ink:?} is not as in light"
            );
        }
    }
}
