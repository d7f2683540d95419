//! Text that arrives in pieces, read line by line: NOAA's files are up to 100 MB and need not be in memory.

use common::contract::outcome::shorten;
use std::fmt;

/// Bytes of a line at most: NOAA's longest has 85 columns. More of it is no text of NOAA's.
const LINE_BYTES_MAX: usize = 1024;
/// Characters of what was found that an error quotes.
const QUOTE_CHARS_MAX: usize = 40;
/// Bytes of an error's words at most.
const WHY_BYTES_MAX: usize = 400;

/// Text that is not what it should be: where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Malformed {
    /// From 1; 0 when it is about the text as a whole.
    pub line: u64,
    /// Column of the file, by its name; empty when it is about the line as a whole.
    pub column: &'static str,
    /// What was found and what was expected.
    pub why: String,
}

impl Malformed {
    /// A fault at `line` and `column`.
    pub fn new(line: u64, column: &'static str, why: impl fmt::Display) -> Self {
        // A parser's own words may quote all of the text.
        Self { line, column, why: shorten(&why.to_string(), WHY_BYTES_MAX).into_owned() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}", self.line)?;
            f.write_str(if self.column.is_empty() { ": " } else { ", " })?;
        }
        if !self.column.is_empty() {
            write!(f, "column {}: ", self.column)?;
        }
        f.write_str(&self.why)
    }
}

/// One line, without its end.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// From 1.
    pub number: u64,
    /// Its bytes.
    pub text: &'a [u8],
    /// Whether its end was seen. The last line of a text that was cut short has none.
    pub ended: bool,
}

impl Line<'_> {
    /// A fault in this line: `found` where `expected` should be.
    pub fn malformed(&self, column: &'static str, found: &[u8], expected: &str) -> Malformed {
        let found: String = String::from_utf8_lossy(found).chars().take(QUOTE_CHARS_MAX).collect();
        Malformed::new(self.number, column, format!("{found:?} where {expected} was expected"))
    }
}

/// Takes a text piece by piece.
pub trait Text: Send {
    /// What comes of it.
    type Output: Send;
    /// Bytes at most, several times what NOAA's has: more is no text of NOAA's.
    const BYTES_MAX: u64;

    /// The next piece, of any size.
    ///
    /// # Errors
    /// As soon as it is not what it should be.
    fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed>;

    /// The text is at its end.
    ///
    /// # Errors
    /// When that cannot be all of it.
    fn finish(self) -> Result<Self::Output, Malformed>;
}

/// Takes a text line by line.
pub trait Rows: Send {
    /// What comes of it.
    type Output: Send;
    /// As [`Text::BYTES_MAX`].
    const BYTES_MAX: u64;

    /// The next line; never an empty one.
    ///
    /// # Errors
    /// When it is not what it should be.
    fn row(&mut self, line: Line<'_>) -> Result<(), Malformed>;

    /// The text is at its end.
    ///
    /// # Errors
    /// When that cannot be all of it.
    fn finish(self) -> Result<Self::Output, Malformed>;
}

/// Cuts pieces of a text into lines and hands them on. Holds no more than one line.
#[derive(Debug)]
pub struct Lines<R> {
    rows: R,
    partial: Vec<u8>,
    number: u64,
}

impl<R: Rows> Lines<R> {
    /// Lines for `rows`.
    pub fn new(rows: R) -> Self {
        Self { rows, partial: Vec::new(), number: 0 }
    }

    fn hand_on(&mut self, line: &[u8], ended: bool) -> Result<(), Malformed> {
        self.number += 1;
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if text.len() > LINE_BYTES_MAX {
            return Err(Malformed::new(self.number, "", format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if text.is_empty() { Ok(()) } else { self.rows.row(Line { number: self.number, text, ended }) }
    }
}

impl<R: Rows> Text for Lines<R> {
    type Output = R::Output;
    const BYTES_MAX: u64 = R::BYTES_MAX;

    fn feed(&mut self, mut piece: &[u8]) -> Result<(), Malformed> {
        while let Some(end) = piece.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = piece.split_at(end);
            piece = rest.get(1..).unwrap_or_default();
            if self.partial.is_empty() {
                self.hand_on(line, true)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.hand_on(&whole, true)?;
            }
        }
        self.partial.extend_from_slice(piece);
        if self.partial.len() > LINE_BYTES_MAX {
            return Err(Malformed::new(self.number + 1, "", format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<R::Output, Malformed> {
        let last = std::mem::take(&mut self.partial);
        if !last.is_empty() {
            self.hand_on(&last, false)?;
        }
        self.rows.finish()
    }
}

/// Reads the fields of a line.
pub mod field {
    use super::{Line, Malformed};

    /// The bytes of columns `from` to `to`, counted from 1 as NOAA does, without surrounding blanks.
    pub fn columns<'a>(line: &Line<'a>, from: usize, to: usize) -> &'a [u8] {
        line.text.get(from - 1..to.min(line.text.len())).unwrap_or_default().trim_ascii()
    }

    /// An integer.
    ///
    /// # Errors
    /// When it is none.
    pub fn integer(line: &Line<'_>, column: &'static str, text: &[u8]) -> Result<i32, Malformed> {
        let number = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| line.malformed(column, text, "an integer"))
    }

    /// Degrees within ±`limit`.
    ///
    /// # Errors
    /// When it is no such number.
    pub fn degrees(line: &Line<'_>, column: &'static str, text: &[u8], limit: f64) -> Result<f64, Malformed> {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
        number
            .filter(|degrees| degrees.abs() <= limit)
            .ok_or_else(|| line.malformed(column, text, &format!("degrees from -{limit} to {limit}")))
    }

    /// A GHCN station id: 11 letters, digits, `_` and `-`. It becomes part of paths and URLs.
    ///
    /// # Errors
    /// When it is none.
    pub fn station<'a>(line: &Line<'_>, text: &'a [u8]) -> Result<&'a str, Malformed> {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        std::str::from_utf8(text)
            .ok()
            .filter(|id| id.len() == 11 && id.as_bytes().iter().all(fits))
            .ok_or_else(|| line.malformed("ID", text, "a station id of 11 letters and digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Collect(Vec<(u64, Vec<u8>, bool)>);

    impl Rows for Collect {
        type Output = Vec<(u64, Vec<u8>, bool)>;
        const BYTES_MAX: u64 = u64::MAX;
        fn row(&mut self, line: Line<'_>) -> Result<(), Malformed> {
            self.0.push((line.number, line.text.to_vec(), line.ended));
            Ok(())
        }
        fn finish(self) -> Result<Self::Output, Malformed> {
            Ok(self.0)
        }
    }

    #[test]
    fn an_endless_line_is_refused_while_it_comes() {
        let mut lines = Lines::new(Collect::default());
        lines.feed(b"ok\n").unwrap();
        assert_eq!(lines.feed(&[b'x'; 5000]).unwrap_err().line, 2);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_text_is_cut(
            text in "[ab\r\n]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..6)
        ) {
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let mut pieces = Lines::new(Collect::default());
            for pair in at.windows(2) {
                pieces.feed(&text.as_bytes()[pair[0]..pair[1]]).unwrap();
            }
            let expected: Vec<_> = (1u64..)
                .zip(text.split('\n'))
                .map(|(number, line)| (number, line.strip_suffix('\r').unwrap_or(line).as_bytes().to_vec()))
                .filter(|(_, line)| !line.is_empty())
                .collect();
            let found = pieces.finish().unwrap();
            prop_assert_eq!(found.iter().map(|(n, l, _)| (*n, l.clone())).collect::<Vec<_>>(), expected);
            let open_end = found.last().is_some_and(|(_, _, ended)| !ended);
            prop_assert!(!open_end || !text.ends_with('\n'));
        }
    }
}
