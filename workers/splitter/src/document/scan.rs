//! Reads single values: their end, their content and their syntax errors.

use super::{
    element::FromObject,
    parser::Document,
    refusal::Refusal,
    relaxed::{Relaxed, is_not_finite, replacement_of, word_around, word_length},
    skim::{Skim, Stop, Until},
    state::Scan,
};
use memchr::{memchr, memchr_iter};
use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// The text to read instead of a value with a non-finite number.
pub(super) type Instead = Option<Vec<u8>>;

impl Document {
    /// Returns the bytes from `start` that may contain a value, and whether no more bytes will be considered. Bytes beyond the
    /// maximum window are ignored, so that the result does not depend on the pieces. After too many vain searches only the rest
    /// of the line is considered.
    fn extent(&self, start: usize) -> (&[u8], bool) {
        let limit = self.limit(start);
        let end = self.window.len().min(limit);
        let rest = self.window.get(start.min(end)..end).unwrap_or_default();
        let is_all = self.ended && self.window.len() <= limit;
        if self.is_exhausted(start)
            && let Some(end) = memchr(b'\n', rest)
        {
            return (rest.get(..end).unwrap_or_default(), true);
        }
        (rest, is_all)
    }

    /// Returns the maximum end of the window in search of the end of the value at `start`, or of the first object while it is
    /// held.
    fn limit(&self, start: usize) -> usize {
        self.hold.unwrap_or(start) + self.large()
    }

    /// Returns whether the window exceeds its maximum, so that a value without an end in it is too large.
    pub(super) fn is_full(&self, start: usize) -> bool {
        self.window.len() > self.limit(start)
    }

    /// Returns whether a value from `start` to `end` is too large.
    pub(super) fn is_beyond(&self, start: usize, end: usize) -> bool {
        end > self.limit(start)
    }

    /// Reads the value at `start`: in one pass if it is a plain object, or else member by member.
    #[inline(always)] // Moving the result between stack frames costs a tenth of the time.
    pub(super) fn object<T: FromObject>(&self, start: usize) -> Scan<Option<T>> {
        let (rest, is_all) = self.extent(start);
        let is_object = rest.first() == Some(&b'{');
        if is_object && self.reads_plainly {
            let mut values = Deserializer::from_slice(rest).into_iter::<T>();
            match values.next() {
                Some(Ok(read)) => {
                    let end = start + values.byte_offset();
                    return match self.utf8(start, end) {
                        Ok(()) => Scan::Done(end, Some(read)),
                        Err(refusal) => Scan::Broken(refusal),
                    };
                }
                Some(Err(error)) if error.is_eof() && !is_all => return Scan::More,
                _ => {}
            }
        }
        match self.value(start) {
            Scan::Done(end, instead) => {
                let raw = self.window.get(start..end).unwrap_or_default();
                let text = instead.as_deref().unwrap_or(raw);
                Scan::Done(end, is_object.then(|| T::from_members(text, &self.reading.map)))
            }
            Scan::More => Scan::More,
            Scan::Broken(refusal) => Scan::Broken(refusal),
        }
    }

    /// Finds the end of the value at `start`.
    pub(super) fn value(&self, start: usize) -> Scan<Instead> {
        let (rest, is_all) = self.extent(start);
        if !matches!(rest.first(), Some(b'{' | b'[' | b'"')) {
            return self.word(start, rest, is_all);
        }
        let error = match parsed(rest) {
            Ok(length) => return self.done(start, length, None),
            Err(error) if is_cut_short(rest, &error) && !is_all => return Scan::More,
            Err(error) => error,
        };
        let at = error_index(rest, &error);
        let (from, to) = word_around(rest, at);
        if to == rest.len() && !is_all {
            // The word may be incomplete.
            return Scan::More;
        }
        if !is_not_finite(rest.get(from..to).unwrap_or_default()) {
            return Scan::Broken(self.broken(start, at, rest, &error));
        }
        let end = match Skim::default().feed(rest, Until::Balanced) {
            Stop::Balanced(end) => Some(end),
            Stop::Open | Stop::LineEnd(_) | Stop::Misaligned(_) => None,
        };
        let last_word = word_around(rest, rest.len()).0;
        let whole = end.unwrap_or(if is_all { rest.len() } else { last_word });
        let Some(relaxed) = Relaxed::of(rest.get(..whole).unwrap_or_default()) else {
            return Scan::Broken(self.broken(start, at, rest, &error));
        };
        match parsed(&relaxed.text) {
            Ok(length) => {
                let text = relaxed.text.get(..length).unwrap_or_default().to_vec();
                self.done(start, relaxed.original(length), Some(text))
            }
            Err(error) if is_cut_short(&relaxed.text, &error) && end.is_none() && !is_all => Scan::More,
            Err(error) => {
                let at = relaxed.original(error_index(&relaxed.text, &error));
                Scan::Broken(self.broken(start, at, &relaxed.text, &error))
            }
        }
    }

    /// Reads a value that is a word: a number, true, false, null.
    fn word(&self, start: usize, rest: &[u8], is_all: bool) -> Scan<Instead> {
        let length = word_length(rest);
        if length == rest.len() && !is_all {
            return Scan::More;
        }
        let word = rest.get(..length).unwrap_or_default();
        if let Some(token) = replacement_of(word) {
            return Scan::Done(start + length, Some(token.into()));
        }
        match serde_json::from_slice::<IgnoredAny>(word) {
            Ok(IgnoredAny) => Scan::Done(start + length, None),
            Err(error) if length == rest.len() && is_cut_short(word, &error) => {
                Scan::Broken(self.refuse("cut_short", start + length, &expected(&error)))
            }
            Err(_) if rest.first() == Some(&b'\'') => Scan::Broken(self.refuse("invalid_json", start, SINGLE_QUOTES)),
            Err(_) if word.is_empty() => Scan::Broken(self.refuse("invalid_json", start, "expected a value")),
            Err(error) => {
                let at = if error.is_eof() { length } else { error_index(word, &error) };
                Scan::Broken(self.refuse("invalid_json", start + at, &expected(&error)))
            }
        }
    }

    fn done(&self, start: usize, length: usize, instead: Instead) -> Scan<Instead> {
        match self.utf8(start, start + length) {
            Ok(()) => Scan::Done(start + length, instead),
            Err(refusal) => Scan::Broken(refusal),
        }
    }

    fn broken(&self, start: usize, at: usize, json: &[u8], error: &serde_json::Error) -> Refusal {
        let (rest, _) = self.extent(start);
        if is_cut_short(json, error) {
            self.refuse("cut_short", start + rest.len(), &expected(error))
        } else if rest.get(at) == Some(&b'\'') {
            self.refuse("invalid_json", start + at, SINGLE_QUOTES)
        } else {
            self.refuse("invalid_json", start + at, &expected(error))
        }
    }

    fn utf8(&self, from: usize, to: usize) -> Result<(), Refusal> {
        let raw = self.window.get(from..to).unwrap_or_default();
        if raw.is_ascii() {
            return Ok(());
        }
        match std::str::from_utf8(raw) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refuse("invalid_json", from + error.valid_up_to(), NOT_UTF8)),
        }
    }
}

/// The refusal of single quotes.
pub(super) const SINGLE_QUOTES: &str =
    "expected double quotes, not single ones as Python prints them: write the document with json.dump";
const NOT_UTF8: &str = "expected UTF-8: convert the file, as in `iconv -f WINDOWS-1252 -t UTF-8`";

/// Returns the length of the value at the beginning of `json`.
fn parsed(json: &[u8]) -> serde_json::Result<usize> {
    let mut values = Deserializer::from_slice(json).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Err(error)) => Err(error),
        Some(Ok(IgnoredAny)) | None => Ok(values.byte_offset()),
    }
}

/// Returns whether a word is a value.
pub(super) fn is_scalar(word: &[u8]) -> bool {
    is_not_finite(word) || serde_json::from_slice::<IgnoredAny>(word).is_ok()
}

/// Returns the length of the object at the beginning of `text`; `None` if there is no complete object.
pub(super) fn object_length(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'{') {
        return None;
    }
    let length = match parsed(text) {
        Ok(length) => length,
        Err(_) => {
            let Stop::Balanced(end) = Skim::default().feed(text, Until::Balanced) else { return None };
            let relaxed = Relaxed::of(text.get(..end)?)?;
            parsed(&relaxed.text).ok()?;
            end
        }
    };
    std::str::from_utf8(text.get(..length)?).is_ok().then_some(length)
}

/// Returns whether the error is that `json` is truncated. serde_json does not report this for a number that ends in its sign,
/// its point or its `e`.
fn is_cut_short(json: &[u8], error: &serde_json::Error) -> bool {
    let in_number = matches!(json.last(), Some(b'-' | b'+' | b'.' | b'e' | b'E'));
    error.is_eof() || (in_number && error_index(json, error) + 1 >= json.len())
}

/// Returns the index of the error in `json`.
fn error_index(json: &[u8], error: &serde_json::Error) -> usize {
    let lines_before = error.line().saturating_sub(1);
    let line_start = match lines_before.checked_sub(1) {
        None => 0,
        Some(nth) => memchr_iter(b'\n', json).nth(nth).map_or(0, |newline| newline + 1),
    };
    (line_start + error.column().saturating_sub(1)).min(json.len())
}

/// Returns the text of the error without its position in the element.
fn expected(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    what.replace("EOF while parsing", "expected the rest of")
}
