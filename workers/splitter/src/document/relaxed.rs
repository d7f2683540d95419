//! Non-finite numbers as Python, JavaScript and R write them, which are not JSON.

use memchr::memchr2;

/// Replaces NaN and other words for a missing value in the text that is read. It is valid JSON that does not occur in rides.
pub(crate) const NAN: &str = "\"\\u0000NaN\"";
/// Replaces the infinities.
pub(crate) const INFINITE: &str = "\"\\u0000Inf\"";

/// A text with [`NAN`] or [`INFINITE`] in place of each non-finite number.
#[derive(Debug)]
pub(super) struct Relaxed {
    pub text: Vec<u8>,
    replacements: Vec<Replacement>,
}

#[derive(Debug, Clone, Copy)]
struct Replacement {
    /// Index in the new text.
    at: usize,
    /// Range in the original text: first byte, and after the last byte.
    from: usize,
    to: usize,
}

/// Both replacements have the same length.
const _: () = assert!(NAN.len() == INFINITE.len());

impl Relaxed {
    /// Returns the text to read instead of `json`; `None` if there is nothing to replace.
    pub fn of(json: &[u8]) -> Option<Self> {
        let mut relaxed = Self { text: Vec::new(), replacements: Vec::new() };
        let mut copied = 0;
        let mut at = 0;
        while let Some(byte) = json.get(at).copied() {
            if byte == b'"' {
                at += string_length(json.get(at..).unwrap_or_default());
                continue;
            }
            let length = word_length(json.get(at..).unwrap_or_default());
            let end = at + length;
            if let Some(token) = replacement_of(json.get(at..end).unwrap_or_default()) {
                relaxed.text.extend_from_slice(json.get(copied..at).unwrap_or_default());
                relaxed.replacements.push(Replacement { at: relaxed.text.len(), from: at, to: end });
                relaxed.text.extend_from_slice(token.as_bytes());
                copied = end;
            }
            at = end.max(at + 1);
        }
        if relaxed.replacements.is_empty() {
            return None;
        }
        relaxed.text.extend_from_slice(json.get(copied..).unwrap_or_default());
        Some(relaxed)
    }

    /// Maps an index in the new text to the original text. An index within a replacement maps to the first byte replaced.
    pub fn original(&self, index: usize) -> usize {
        let passed = self.replacements.partition_point(|replacement| replacement.at <= index);
        let last = passed.checked_sub(1).and_then(|last| self.replacements.get(last));
        last.map_or(index, |last| match index.checked_sub(last.at + NAN.len()) {
            Some(after) => last.to + after,
            None => last.from,
        })
    }
}

/// Returns the replacement of a word outside strings that is NaN, an infinity, or a missing value of R, Python or JavaScript.
pub(super) fn replacement_of(word: &[u8]) -> Option<&'static str> {
    let unsigned = word.strip_prefix(b"-").or_else(|| word.strip_prefix(b"+")).unwrap_or(word);
    if unsigned.eq_ignore_ascii_case(b"nan") || matches!(word, b"NA" | b"None" | b"undefined") {
        Some(NAN)
    } else if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        Some(INFINITE)
    } else {
        None
    }
}

/// Returns whether [`replacement_of`] replaces the word.
pub(super) fn is_not_finite(word: &[u8]) -> bool {
    replacement_of(word).is_some()
}

/// Returns whether a byte belongs to a word: a letter, a digit, a sign, a point or an underscore.
fn is_word_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

/// Returns the length of the word at the beginning of `text`; 0 if there is none.
pub(super) fn word_length(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_word_byte(byte)).unwrap_or(text.len())
}

/// Returns the start and the end of the word around `at`.
pub(super) fn word_around(text: &[u8], at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let from = before.iter().rposition(|byte| !is_word_byte(byte)).map_or(0, |gap| gap + 1);
    (from, from + word_length(text.get(from..).unwrap_or_default()))
}

/// Returns the length of the string at the beginning of `text`, with quotes; the whole length if the string has no end.
pub(super) fn string_length(text: &[u8]) -> usize {
    let mut next = 1;
    while let Some(offset) = memchr2(b'"', b'\\', text.get(next..).unwrap_or_default()) {
        let is_escape = text.get(next + offset) == Some(&b'\\');
        next += offset + 1 + usize::from(is_escape);
        if !is_escape {
            return next;
        }
    }
    text.len()
}
