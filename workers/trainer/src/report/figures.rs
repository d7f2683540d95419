//! Formats numbers and units for people. A non-finite number becomes a dash.

use super::odds;
use common::{
    features::{FEATURES, Feature},
    model::{Coefficient, Interval},
    text::excerpt,
};

/// Stands for a missing figure.
pub(super) const NONE: &str = "–";
const THIN: char = '\u{202f}';
const MINUS: char = '−';
/// Size from which on a number is written with a power of ten.
const PLAIN_MAX: f64 = 1e7;

/// `17 946`.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.len() > 4 {
            text.push(THIN);
        }
        text.push(digit);
    }
    text
}

/// `1 ride`, `2 rides`.
pub(super) fn counted(value: u64, one: &str) -> String {
    format!("{} {one}{}", count(value), if value == 1 { "" } else { "s" })
}

/// Formats with `digits` decimals, or with a power of ten if the number is large.
pub(super) fn decimals(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    if value.abs() >= PLAIN_MAX {
        return with_power(value, 2);
    }
    let text = format!("{:.digits$}", value.abs());
    let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let text = match text.split_once('.') {
        Some((whole, part)) => format!("{}.{part}", grouped(whole)),
        None => grouped(&text),
    };
    if value < 0.0 && !is_zero { format!("{MINUS}{text}") } else { text }
}

/// Formats with `digits` significant digits.
pub(super) fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-5..PLAIN_MAX).contains(&size) {
        return with_power(value, digits.saturating_sub(1));
    }
    decimals(value, (digits as i32 - 1 - magnitude(size)).max(0) as usize)
}

/// Formats a setting with all its digits.
pub(super) fn setting(value: f64) -> String {
    if value.is_finite() && (value == 0.0 || (1e-4..PLAIN_MAX).contains(&value.abs())) {
        let text = value.abs().to_string();
        let (whole, part) = text.split_once('.').map_or((text.as_str(), ""), |(whole, part)| (whole, part));
        let sign = if value < 0.0 { String::from(MINUS) } else { String::new() };
        return format!("{sign}{}{}{part}", grouped(whole), if part.is_empty() { "" } else { "." });
    }
    significant(value, 3)
}

/// Power of ten of the first digit of a number above 0.
fn magnitude(size: f64) -> i32 {
    size.log10().floor() as i32
}

/// `2.1 × 10⁻⁹`.
fn with_power(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$e}", value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sign = if value < 0.0 { String::from(MINUS) } else { String::new() };
    format!("{sign}{mantissa}{THIN}×{THIN}{}", ten_to(exponent.parse().unwrap_or(0)))
}

/// `10⁻⁹`.
pub(super) fn ten_to(exponent: i32) -> String {
    let raised = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit.to_digit(10).unwrap_or(0)).unwrap_or('⁰'),
    };
    format!("10{}", exponent.to_string().chars().map(raised).collect::<String>())
}

/// `38.6 %`; below one in a thousand, two significant digits.
pub(super) fn percent(share: f64) -> String {
    let hundredths = share * 100.0;
    let small = hundredths != 0.0 && hundredths.abs() < 0.1;
    let text = if small { significant(hundredths, 2) } else { decimals(hundredths, 1) };
    if text == NONE { text } else { format!("{text}{THIN}%") }
}

/// `part` of `whole` in percent.
pub(super) fn percent_of(part: u64, whole: u64) -> String {
    if whole == 0 { NONE.to_owned() } else { percent(part as f64 / whole as f64) }
}

/// `p = 0.034`, `p < 0.0001`.
pub(super) fn p_is(p: f64) -> String {
    if p.is_finite() && p < 1e-4 { "p < 0.0001".to_owned() } else { format!("p = {}", p_value(p)) }
}

/// For tables: `0.034`, `2.1 × 10⁻⁹`.
pub(super) fn p_value(p: f64) -> String {
    match p {
        p if !p.is_finite() => NONE.to_owned(),
        p if p < 1e-300 => format!("< {}", ten_to(-300)),
        p if p >= 0.1 => decimals(p, 2),
        p => significant(p, 2),
    }
}

/// Formats value and ends of an interval with a precision that gives half its width `digits` significant digits.
fn precise(interval: &Interval, digits: i32) -> [String; 3] {
    let Interval { value, lower, upper } = *interval;
    let size = value.abs().max(lower.abs()).max(upper.abs());
    if !(1e-4..PLAIN_MAX).contains(&size) && size != 0.0 {
        return [value, lower, upper].map(|value| significant(value, 2));
    }
    let half = (upper - lower).abs() / 2.0;
    let digits = if half.is_finite() && half > 0.0 { (digits - 1 - magnitude(half)).clamp(0, 7) } else { 3 };
    [value, lower, upper].map(|value| decimals(value, digits as usize))
}

/// Value and `1.97 to 2.24`.
pub(super) fn with_interval(interval: &Interval) -> (String, String) {
    let [value, lower, upper] = precise(interval, 2);
    (value, format!("{lower} to {upper}"))
}

/// `0.060 (0.044 to 0.075)`.
pub(super) fn interval(interval: &Interval) -> String {
    let (value, interval) = with_interval(interval);
    format!("{value} ({interval})")
}

/// An odds ratio: `2.10 (1.97 to 2.24)`, or `> 1000 (1.310 to > 1000)` if it is implausible.
pub(super) fn ratio(interval: &Interval) -> String {
    let ends = [interval.value, interval.lower, interval.upper];
    if ends.iter().all(|end| end.is_finite()) && !ends.into_iter().all(odds::is_plausible) {
        let [value, lower, upper] = ends.map(odds::factor);
        return format!("{value} ({lower} to {upper})");
    }
    let half = (interval.upper - interval.lower).abs() / 2.0;
    let [value, lower, upper] = precise(interval, if half < 0.1 { 1 } else { 2 });
    format!("{value} ({lower} to {upper})")
}

/// A reason code in words.
pub(super) fn reason(code: &str) -> String {
    excerpt(&code.replace('_', " "), 80)
}

/// Name, unit and step of a feature, for people.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FeatureWords {
    /// Capitalised.
    pub(super) name: String,
    /// In the plural.
    pub(super) unit: String,
    /// Number of dataset units per `unit`.
    pub(super) scale: f64,
    /// A step of the feature, such as "each mile farther".
    pub(super) step: String,
}

impl FeatureWords {
    /// Describes a feature of a model.
    pub(super) fn of(coefficient: &Coefficient) -> Self {
        let of_unit = FEATURES.iter().find(|feature| feature.unit == coefficient.unit);
        let (unit, scale) = of_unit.map_or((excerpt(&coefficient.unit, 30), 1.0), |feature| {
            let (unit, scale) = feature.display_unit;
            (unit.to_owned(), scale)
        });
        let Some(feature) = Feature::named(&coefficient.feature) else {
            let name = excerpt(&coefficient.feature, 40);
            let step = coefficient.inference.as_ref().map_or("unit", |inference| &inference.step_name);
            return Self { step: format!("each {} more of {name}", excerpt(step, 30)), name, unit, scale };
        };
        Self { name: feature.title.to_owned(), unit, scale, step: feature.step_meaning.to_owned() }
    }

    /// Converts a value to `unit`.
    pub(super) fn value(&self, original: f64) -> f64 {
        original / self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of any size are short; a non-finite number is a dash.
    #[test]
    fn figures_are_legible_at_any_size() {
        assert_eq!([count(0), count(9999), count(17_946)], ["0", "9999", "17\u{202f}946"]);
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        for (value, expected) in [(0.0, "0"), (0.034_56, "0.0346"), (-2.5, "−2.50"), (1234.6, "1235"), (0.1, "0.100")]
        {
            assert_eq!(significant(value, 3), expected);
        }
        assert_eq!(significant(-2.1e-9, 2), "−2.1\u{202f}×\u{202f}10⁻⁹");
        assert_eq!(decimals(f64::MAX, 3), "1.80\u{202f}×\u{202f}10³⁰⁸");
        assert_eq!([decimals(-0.0, 2), decimals(-0.001, 2)], ["0.00", "0.00"]);
        assert_eq!([decimals(-0.25, 2), decimals(1_234_567.25, 1)], ["−0.25", "1\u{202f}234\u{202f}567.2"]);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!([decimals(value, 2), significant(value, 2), percent(value), p_value(value)], [NONE; 4]);
        }
        assert_eq!(
            [percent(0.3859), percent(0.000_123), percent(0.0)],
            ["38.6\u{202f}%", "0.012\u{202f}%", "0.0\u{202f}%"]
        );
        assert_eq!(
            [setting(10.0), setting(0.1), setting(100_000.0), setting(0.0)],
            ["10", "0.1", "100\u{202f}000", "0"]
        );
        assert_eq!([setting(-2.5), setting(f64::NAN), setting(1e9)], ["−2.5", NONE, "1.00\u{202f}×\u{202f}10⁹"]);
        assert_eq!([p_is(0.034), p_is(0.0), p_is(0.62)], ["p = 0.034", "p < 0.0001", "p = 0.62"]);
        assert_eq!([p_value(0.0), p_value(2.1e-9)], ["< 10⁻³⁰⁰", "2.1\u{202f}×\u{202f}10⁻⁹"]);
    }

    /// The precision of an interval follows its width.
    #[test]
    fn the_precision_of_an_interval_follows_its_width() {
        let text = |value, lower, upper| interval(&Interval { value, lower, upper });
        assert_eq!(text(2.104_3, 1.968_1, 2.242_2), "2.10 (1.97 to 2.24)");
        assert_eq!(text(1.0016, 0.9716, 1.0316), "1.002 (0.972 to 1.032)");
        assert_eq!(text(152.0, 90.2, 260.0), "152 (90 to 260)");
        assert_eq!(
            text(5.2e-7, -4.5e-7, 1.6e-6),
            "5.2\u{202f}×\u{202f}10⁻⁷ (−4.5\u{202f}×\u{202f}10⁻⁷ to 1.6\u{202f}×\u{202f}10⁻⁶)"
        );
        let ratio = |value, lower, upper| ratio(&Interval { value, lower, upper });
        assert_eq!(ratio(0.896_93, 0.891_6, 0.902_4), "0.897 (0.892 to 0.902)");
        assert_eq!(ratio(1.996_7, 1.913_5, 2.083_5), "2.00 (1.91 to 2.08)");
        assert_eq!(ratio(2.104_3, 1.968_1, 2.242_2), "2.10 (1.97 to 2.24)");
        assert_eq!(ratio(6.1e16, 1.31, f64::MAX), "> 1000 (1.310 to > 1000)");
        assert_eq!(ratio(1e-9, f64::MIN_POSITIVE, 0.2), "< 0.001 (< 0.001 to 0.200)");
        assert!(!text(f64::NAN, f64::INFINITY, 0.0).contains("NaN"));
    }
}
