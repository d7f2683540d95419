//! NaN and the infinities as Python, JavaScript and R write them, which JSON does not have.

use memchr::memchr2;

/// Replaces NaN, and what else stands for a missing value, in the text that is read: valid JSON that no ride holds by
/// chance.
pub(crate) const NAN: &str = "\"\\u0000NaN\"";
/// Replaces the infinities.
pub(crate) const INFINITE: &str = "\"\\u0000Inf\"";

/// A text in which [`NAN`] or [`INFINITE`] stands in place of each of them.
#[derive(Debug)]
pub(super) struct Relaxed {
    pub text: Vec<u8>,
    replacements: Vec<Replacement>,
}

#[derive(Debug, Clone, Copy)]
struct Replacement {
    /// Index in the text.
    at: usize,
    /// Indices in the original: of the first byte, and after the last.
    from: usize,
    to: usize,
}

/// Both replacements are equally long.
const _: () = assert!(NAN.len() == INFINITE.len());

impl Relaxed {
    /// The text to read instead of `json`; `None` where there is nothing to replace.
    pub fn of(json: &[u8]) -> Option<Self> {
        let mut relaxed = Self { text: Vec::new(), replacements: Vec::new() };
        let mut copied = 0;
        let mut at = 0;
        while let Some(byte) = json.get(at).copied() {
            if byte == b'"' {
                at = string_end(json, at);
                continue;
            }
            let length = word_length(json.get(at..).unwrap_or_default());
            let end = at + length;
            if let Some(token) = instead_of(json.get(at..end).unwrap_or_default()) {
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

    /// The index in the original of an index in the text; within a replacement, that of the first byte replaced.
    pub fn original(&self, index: usize) -> usize {
        let passed = self.replacements.partition_point(|replacement| replacement.at <= index);
        let last = passed.checked_sub(1).and_then(|last| self.replacements.get(last));
        last.map_or(index, |last| match index.checked_sub(last.at + NAN.len()) {
            Some(after) => last.to + after,
            None => last.from,
        })
    }
}

/// What is read instead of a word outside of strings that is NaN, an infinity, or what stands for a missing value in R,
/// Python and JavaScript.
pub(super) fn instead_of(word: &[u8]) -> Option<&'static str> {
    let unsigned = word.strip_prefix(b"-").or_else(|| word.strip_prefix(b"+")).unwrap_or(word);
    if unsigned.eq_ignore_ascii_case(b"nan") || matches!(word, b"NA" | b"None" | b"undefined") {
        Some(NAN)
    } else if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        Some(INFINITE)
    } else {
        None
    }
}

/// Whether [`instead_of`] replaces the word.
pub(super) fn is_not_finite(word: &[u8]) -> bool {
    instead_of(word).is_some()
}

/// Whether a byte belongs to a word: a letter, a digit, a sign, a point.
fn is_word_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

/// Bytes of the word that `text` starts with; 0 where there is none.
pub(super) fn word_length(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_word_byte(byte)).unwrap_or(text.len())
}

/// The word around `at`, from and to.
pub(super) fn word_around(text: &[u8], at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let from = before.iter().rposition(|byte| !is_word_byte(byte)).map_or(0, |gap| gap + 1);
    (from, from + word_length(text.get(from..).unwrap_or_default()))
}

/// The index after the string that starts at `at`; that of the end where it has none.
fn string_end(json: &[u8], at: usize) -> usize {
    let mut next = at + 1;
    while let Some(found) = memchr2(b'"', b'\\', json.get(next..).unwrap_or_default()) {
        let is_escape = json.get(next + found) == Some(&b'\\');
        next += found + 1 + usize::from(is_escape);
        if !is_escape {
            return next;
        }
    }
    json.len()
}
