//! Untrusted text: parses the scalars in it (numbers, labels and keys, as people and other programs write them), and
//! makes it printable and short.
//!
//! The same rules apply to rides in a batch, to rides in a score request and to the cells of a CSV file.

use std::borrow::Cow;

/// A label parsed from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelText {
    /// Blank, `null`, `NaN` or `NA`: the ride has no label yet.
    Unlabelled,
    /// Whether service was requested.
    Label(bool),
    /// Any other text.
    Invalid,
}

/// Shortens a text to at most `bytes_max` bytes by cutting out its middle. A parser's error quotes the input, of any
/// length, at its start, and names the expected form at its end.
pub fn shorten(text: &str, bytes_max: usize) -> Cow<'_, str> {
    const GAP: &str = " … ";
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let kept = bytes_max.saturating_sub(GAP.len());
    let head = text.floor_char_boundary(kept - kept / 2);
    let tail = text.ceil_char_boundary(text.len() - kept / 2);
    Cow::Owned([text.get(..head).unwrap_or_default(), GAP, text.get(tail..).unwrap_or_default()].concat())
}

/// Makes a text printable, and shortens it as [`shorten`] does.
pub fn shorten_printable(text: &str, bytes_max: usize) -> String {
    shorten(&printable(text), bytes_max).into_owned()
}

/// Cuts a text after `chars_max` characters; the last of them is then `…`.
pub fn truncate(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => Cow::Borrowed(text),
        Some(_) => Cow::Owned(text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()),
    }
}

/// Makes a text printable, and cuts it as [`truncate`] does.
pub fn excerpt(text: &str, chars_max: usize) -> String {
    truncate(&printable(text), chars_max).into_owned()
}

/// Replaces every character that is not [printable](is_printable) by U+FFFD.
pub fn printable(text: &str) -> String {
    text.replace(|c| !is_printable(c), "\u{FFFD}")
}

/// Returns whether a terminal or a page shows a character in its place. It shows no control character, line separator or
/// noncharacter, none that is invisible, except for a joiner within a word or an emoji, and none that changes the direction
/// of writing.
pub fn is_printable(c: char) -> bool {
    let is_joiner = matches!(c, '\u{200C}' | '\u{200D}');
    let is_separator = matches!(c, '\u{2028}' | '\u{2029}');
    let is_isolate = matches!(c, '\u{2066}'..='\u{2069}');
    let is_noncharacter = matches!(c, '\u{FFFE}' | '\u{FFFF}');
    is_joiner || !(c.is_control() || is_invisible(c) || is_separator || is_isolate || is_noncharacter)
}

/// Returns the text without surrounding white space and invisible characters (byte order mark, zero-width characters).
pub fn trimmed(text: &str) -> &str {
    // Fast path: most texts begin and end with plain ASCII and need no trimming.
    let plain = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    if plain(text.as_bytes().first()) && plain(text.as_bytes().last()) {
        return text;
    }
    text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
}

/// Returns whether a character is invisible: byte order mark, zero-width space and joiners, word joiner, soft hyphen,
/// direction marks, and ASCII control characters.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{FEFF}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}' | '\u{00AD}')
        || c.is_ascii_control()
}

/// Parses a decimal number: optional sign, digits with an optional point, optional exponent, surrounded by any white
/// space: `29.5`, ` 29.5 `, `.5`, `29.`, `+1`, `2.95e+01`. `None` for every other text, `nan`, `inf` and hexadecimal
/// included, and for a number beyond the range of `f64`.
pub fn number(text: &str) -> Option<f64> {
    let text = trimmed(text);
    if !text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E')) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Parses a label: `0`, `1`, any spelling of these numbers (`1.0`), `true` or `false` in any case. Blank, `null`, `NaN`
/// and `NA` (R's missing value) mean that there is none.
pub fn label(text: &str) -> LabelText {
    let text = trimmed(text);
    if text.is_empty() || is_missing(text) {
        LabelText::Unlabelled
    } else if text.eq_ignore_ascii_case("true") {
        LabelText::Label(true)
    } else if text.eq_ignore_ascii_case("false") {
        LabelText::Label(false)
    } else {
        match number(text) {
            Some(0.0) => LabelText::Label(false),
            Some(1.0) => LabelText::Label(true),
            _ => LabelText::Invalid,
        }
    }
}

/// Returns whether a trimmed text denotes a missing value: `null`, `NaN` (also signed) or `NA`, in any case.
pub fn is_missing(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    text.eq_ignore_ascii_case("null") || unsigned.eq_ignore_ascii_case("nan") || text.eq_ignore_ascii_case("na")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_notation_of_a_number_is_parsed() {
        for (text, value) in [
            ("29.5", 29.5),
            (" 29.5", 29.5),
            ("29.5 ", 29.5),
            ("\u{FEFF}29.5\u{200B}", 29.5),
            ("\u{A0}29.5", 29.5),
            ("\t29.5\r\n", 29.5),
            (".5", 0.5),
            ("-.5", -0.5),
            ("29.", 29.0),
            ("+1", 1.0),
            ("007", 7.0),
            ("2.95e+01", 29.5),
            ("2.95E1", 29.5),
            ("1e-2", 0.01),
        ] {
            assert_eq!(number(text), Some(value), "{text:?}");
        }
    }

    #[test]
    fn other_texts_are_not_numbers() {
        for text in [
            "", " ", ".", "+", "-", "e5", "1e", "--1", "+-1", "1 2", "1,5", "1_000", "0x1F", "nan", "NaN", "inf",
            "Infinity", "1e999", "29.5 km", "½", "٣", "1.2.3",
        ] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_label_is_true_false_or_missing() {
        use LabelText::{Invalid, Label, Unlabelled};
        for (text, expected) in [
            ("1", Label(true)),
            ("0", Label(false)),
            ("1.0", Label(true)),
            ("0.0", Label(false)),
            ("-0", Label(false)),
            (" 1 ", Label(true)),
            ("true", Label(true)),
            ("True", Label(true)),
            ("FALSE", Label(false)),
            ("", Unlabelled),
            ("  ", Unlabelled),
            ("null", Unlabelled),
            ("NULL", Unlabelled),
            ("NaN", Unlabelled),
            ("-nan", Unlabelled),
            ("NA", Unlabelled),
            ("2", Invalid),
            ("0.5", Invalid),
            ("yes", Invalid),
            ("t", Invalid),
        ] {
            assert_eq!(label(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (number(&text), label(&text), trimmed(&text));
        }

        #[test]
        fn every_number_reads_back(value in proptest::num::f64::NORMAL) {
            prop_assert_eq!(number(&format!(" {value:e} ")), Some(value));
            prop_assert_eq!(number(&value.to_string()), Some(value));
        }
    }

    #[test]
    fn a_long_text_keeps_both_ends() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(
            shorten("invalid type: string \"xxxxxxxxxxxxxxxx\", expected u32", 30),
            "invalid type: … expected u32"
        );
    }

    #[test]
    fn an_excerpt_is_one_printable_line() {
        assert_eq!(excerpt("a\nb\u{202e}c\0", 10), "a\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(excerpt("\u{FEFF}\u{2028}\u{2066}\u{FFFE}", 10), "\u{fffd}".repeat(4));
        assert_eq!(excerpt("<b> Ümläut 雨 👩\u{200d}🚀", 30), "<b> Ümläut 雨 👩\u{200d}🚀");
        assert_eq!([excerpt("abc", 3), excerpt("abcd", 3), excerpt("a", 0)], ["abc", "ab…", "…"]);
    }

    proptest! {
        #[test]
        fn a_printable_text_is_within_its_bound(text in "[aé€\u{0}\u{9b}\u{202E}]{0,60}", bytes_max in 5usize..100) {
            let short = shorten_printable(&text, bytes_max);
            prop_assert!(short.len() <= bytes_max && short.chars().all(is_printable));
        }

        #[test]
        fn a_shortened_text_is_within_its_bound(text in "[aé€😀]{0,60}", bytes_max in 5usize..100) {
            let short = shorten(&text, bytes_max);
            prop_assert!(short.len() <= bytes_max && (text.len() > bytes_max || short == text));
        }
    }
}
