//! Single values: where they end, what they are read as, and what is wrong with them.

use super::{Content, Document, FromObject, Refusal};
use memchr::memchr_iter;
use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// What was found at a place in the window.
pub(super) enum Scan<T> {
    /// Ends before this index of the window.
    Done(usize, T),
    More,
    Broken(Refusal),
}

impl Document {
    /// Reads the value at `start`: in one go when it is an object and nothing is odd about it, else more carefully.
    #[inline(always)] // moving what was read from frame to frame costs a tenth of the time
    pub(super) fn object<T: FromObject>(&self, start: usize) -> Scan<Option<T>> {
        let rest = self.window.get(start..).unwrap_or_default();
        let is_object = rest.first() == Some(&b'{');
        if is_object {
            let mut values = Deserializer::from_slice(rest).into_iter::<T>();
            match values.next() {
                Some(Ok(read)) => {
                    let end = start + values.byte_offset();
                    return match self.utf8(start, end) {
                        Ok(()) => Scan::Done(end, Some(read)),
                        Err(refusal) => Scan::Broken(refusal),
                    };
                }
                Some(Err(error)) if error.is_eof() && !self.ended => return Scan::More,
                _ => {}
            }
        }
        match self.value(start) {
            Scan::Done(end, ()) => {
                let raw = self.window.get(start..end).unwrap_or_default();
                Scan::Done(end, is_object.then(|| T::carefully(raw)))
            }
            Scan::More => Scan::More,
            Scan::Broken(refusal) => Scan::Broken(refusal),
        }
    }

    /// Finds the end of the value at `start`.
    pub(super) fn value(&self, start: usize) -> Scan<()> {
        let rest = self.window.get(start..).unwrap_or_default();
        let (length, delimited, outcome) = if matches!(rest.first(), Some(b'{' | b'[' | b'"')) {
            let mut values = Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
            let outcome = values.next().unwrap_or(Ok(IgnoredAny));
            (values.byte_offset(), false, outcome)
        } else {
            let belongs = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
            let delimiter = rest.iter().position(|byte| !belongs(byte));
            if delimiter.is_none() && !self.ended {
                return Scan::More;
            }
            let length = delimiter.unwrap_or(rest.len());
            (length, delimiter.is_some(), serde_json::from_slice(rest.get(..length).unwrap_or_default()))
        };
        match outcome {
            Ok(IgnoredAny) => match self.utf8(start, start + length) {
                Ok(()) => Scan::Done(start + length, ()),
                Err(refusal) => Scan::Broken(refusal),
            },
            Err(error) if delimited || !is_cut_short(rest, &error) => {
                let at = if delimited && error.is_eof() { length } else { place(rest, &error) };
                Scan::Broken(self.refuse("invalid_json", start + at, &expected(&error)))
            }
            Err(_) if !self.ended => Scan::More,
            Err(error) => Scan::Broken(self.refuse("cut_short", self.window.len(), &expected(&error))),
        }
    }

    fn utf8(&self, from: usize, to: usize) -> Result<(), Refusal> {
        let raw = self.window.get(from..to).unwrap_or_default();
        if raw.is_ascii() {
            return Ok(());
        }
        match std::str::from_utf8(raw) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refuse("invalid_json", from + error.valid_up_to(), "expected UTF-8")),
        }
    }
}

/// Reads a line that is one value.
pub(super) fn read_line<T: FromObject>(line: &[u8]) -> Result<Content<T>, serde_json::Error> {
    let is_object = line.trim_ascii_start().first() == Some(&b'{');
    if is_object && let Ok(read) = serde_json::from_slice::<T>(line) {
        return Ok(if std::str::from_utf8(line).is_ok() { Content::Object(read) } else { Content::Broken });
    }
    serde_json::from_slice::<IgnoredAny>(line)?;
    Ok(match std::str::from_utf8(line) {
        Ok(_) if is_object => Content::Object(T::carefully(line)),
        Ok(_) => Content::NotAnObject,
        Err(_) => Content::Broken,
    })
}

pub(super) fn is_object(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<IgnoredAny>(line).is_ok()
        && std::str::from_utf8(line).is_ok()
}

/// Whether the error is that `json` ends too early. serde_json does not say so of a number that ends in its sign, its
/// point or its `e`.
pub(super) fn is_cut_short(json: &[u8], error: &serde_json::Error) -> bool {
    let in_number = matches!(json.last(), Some(b'-' | b'+' | b'.' | b'e' | b'E'));
    error.is_eof() || (in_number && place(json, error) + 1 >= json.len())
}

/// Where in `json` the error is.
pub(super) fn place(json: &[u8], error: &serde_json::Error) -> usize {
    let lines_before = error.line().saturating_sub(1);
    let line_start = match lines_before.checked_sub(1) {
        None => 0,
        Some(nth) => memchr_iter(b'\n', json).nth(nth).map_or(0, |newline| newline + 1),
    };
    (line_start + error.column().saturating_sub(1)).min(json.len())
}

/// What the error says, without the position within the element.
pub(super) fn expected(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    what.replace("EOF while parsing", "expected the rest of")
}
