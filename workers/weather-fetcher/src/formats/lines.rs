//! Reads a text that arrives in pieces line by line, because NOAA's files have up to 100 MB.
//!
//! An unreadable row is left out, and counted by reason with its line and column. A text without a readable row is not
//! weather.

use crate::formats::{
    foreign::{advice, looks_like},
    gzip::is_padding,
    left_out::{LeftOut, Reason},
    malformed::Malformed,
};

/// Maximum length of a line, bytes: NOAA's longest has 85. A longer line is left out.
const LINE_BYTES_MAX: usize = 1024;
/// Maximum number of bytes buffered of a line: one more, for a carriage return at its end.
const PARTIAL_BYTES_MAX: usize = LINE_BYTES_MAX + 1;
/// Number of bytes at the beginning of a text by which another format is recognised.
const HEAD_BYTES: usize = 64;
/// A text is not weather if more bytes than this at its beginning have no readable row.
const UNUSABLE_BYTES_MAX: u64 = 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Maximum number of characters that an error quotes from a text.
const QUOTE_CHARS_MAX: usize = 40;

/// An unreadable row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The reason by which it is counted.
    pub reason: Reason,
    /// The fault in the row.
    pub fault: Malformed,
}

/// One line, without its line end.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Line number from 1.
    pub number: u64,
    /// The bytes of the line.
    pub text: &'a [u8],
    /// Whether the line has a line end. The last line of a truncated text has none.
    pub ended: bool,
}

impl Line<'_> {
    /// Returns a fault in this line: `actual` where `expected` should be.
    pub fn malformed(&self, column: &'static str, actual: &[u8], expected: &str) -> Malformed {
        let actual: String = String::from_utf8_lossy(actual).chars().take(QUOTE_CHARS_MAX).collect();
        Malformed::new(self.number, column, format!("{actual:?} where {expected} was expected"))
    }

    /// Returns the same fault, as a reason to leave the row out.
    pub fn bad(&self, reason: Reason, column: &'static str, actual: &[u8], expected: &str) -> BadRow {
        BadRow { reason, fault: self.malformed(column, actual, expected) }
    }
}

/// The content of a text, and what was left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The content.
    pub value: T,
    /// The rows and days left out.
    pub left_out: LeftOut,
}

/// A parser of a text that arrives in pieces.
pub trait Text: Send {
    /// The content of the text.
    type Output: Send;
    /// Name of the kind of text, for messages: `station file`.
    const NAME: &'static str;
    /// Maximum length of the text, bytes: several times the size of NOAA's. A longer text is not weather.
    const BYTES_MAX: u64;

    /// Takes the next piece, of any size.
    ///
    /// # Errors
    /// Fails as soon as the text turns out not to be weather.
    fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed>;

    /// Ends the text.
    ///
    /// # Errors
    /// Fails if the text is not weather: it is empty or has no readable row.
    fn finish(self) -> Result<Parsed<Self::Output>, Malformed>;
}

/// A parser of the lines of a text.
pub trait Rows: Send {
    /// The content of the text.
    type Output: Send;
    /// As [`Text::NAME`].
    const NAME: &'static str;
    /// As [`Text::BYTES_MAX`].
    const BYTES_MAX: u64;

    /// Reads a line as a heading; returns whether it is one. A heading is not passed to [`Rows::row`].
    ///
    /// # Errors
    /// Fails if the heading does not name the columns that a row must have.
    fn heading(&mut self, _line: &Line<'_>) -> Result<bool, BadRow> {
        Ok(false)
    }

    /// Reads the next line, which is never blank.
    ///
    /// # Errors
    /// Fails if the row is unreadable. Such a row has no effect.
    fn row(&mut self, line: Line<'_>) -> Result<(), BadRow>;

    /// Ends the text. Adds the days that are left out to `left_out`.
    ///
    /// # Errors
    /// Fails if required rows are missing.
    fn finish(self, left_out: &mut LeftOut) -> Result<Self::Output, Malformed>;
}

/// The line end of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    /// Not known yet: no line feed has arrived.
    Unknown,
    /// `\n`, or `\r\n`.
    LineFeed,
    /// `\r`, as old programs write it. A line feed ends a line as well.
    CarriageReturn,
}

impl LineEnd {
    /// Returns the line end of a text that begins with these bytes: the whole text, or more than the longest line.
    fn of(start: &[u8]) -> Self {
        let inner = start.get(..start.len().saturating_sub(1)).unwrap_or_default();
        if inner.contains(&b'\r') { Self::CarriageReturn } else { Self::LineFeed }
    }

    fn ends(self, byte: u8) -> bool {
        byte == b'\n' || (byte == b'\r' && self == Self::CarriageReturn)
    }
}

/// Cuts pieces of a text into lines and passes them to `rows`. Buffers at most one line.
#[derive(Debug)]
pub struct Lines<R> {
    rows: R,
    line_end: LineEnd,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    /// Whether the line is already too long; the rest of it is dropped.
    overlong: bool,
    /// Whether the overlong line has carriage returns.
    has_returns: bool,
    /// Number of lines passed on.
    number: u64,
    /// Number of bytes of these lines, and of an overlong one that has not ended.
    bytes: u64,
    head: Vec<u8>,
    headings: u64,
    usable: u64,
    first_bad: Option<Malformed>,
    left_out: LeftOut,
}

impl<R: Rows> Lines<R> {
    /// Passes lines to `rows`.
    pub fn new(rows: R) -> Self {
        Self {
            rows,
            line_end: LineEnd::Unknown,
            partial: Vec::new(),
            overlong: false,
            has_returns: false,
            number: 0,
            bytes: 0,
            head: Vec::new(),
            headings: 0,
            usable: 0,
            first_bad: None,
            left_out: LeftOut::default(),
        }
    }

    fn pass_on(&mut self, line: &[u8], ended: bool) -> Result<(), Malformed> {
        self.number += 1;
        self.bytes += line.len() as u64 + 1;
        let overlong = std::mem::take(&mut self.overlong);
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if overlong || text.len() > LINE_BYTES_MAX {
            let has_returns = std::mem::take(&mut self.has_returns) || has_returns(line);
            let hint = if has_returns { ", with carriage returns in it: end every line with a line feed" } else { "" };
            let fault = Malformed::new(self.number, "", format!("longer than {LINE_BYTES_MAX} bytes{hint}"));
            self.leave_out(BadRow { reason: Reason::WrongFields, fault });
        } else {
            let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
            let line = Line { number: self.number, text, ended };
            // Zeros pad the blocks of an archive.
            if text.iter().all(|byte| is_padding(*byte)) {
                return Ok(());
            }
            match self.rows.heading(&line) {
                Ok(true) => self.headings += 1,
                Ok(false) => match self.rows.row(line) {
                    Ok(()) => self.usable += 1,
                    Err(bad) => self.leave_out(bad),
                },
                Err(bad) => self.leave_out(bad),
            }
        }
        self.check_usable()
    }

    fn leave_out(&mut self, bad: BadRow) {
        self.left_out.note(bad.reason, &bad.fault);
        self.first_bad.get_or_insert(bad.fault);
    }

    fn check_usable(&self) -> Result<(), Malformed> {
        match &self.first_bad {
            Some(first) if self.usable == 0 && self.bytes > UNUSABLE_BYTES_MAX => Err(self.not_weather(first)),
            _ => Ok(()),
        }
    }

    fn not_weather(&self, first: &Malformed) -> Malformed {
        let Malformed { line, column, why } = first;
        match looks_like(&self.head) {
            Some(format) => {
                let advice = advice(format);
                Malformed::new(*line, column, format!("{why}; the text looks like {format}{advice}"))
            }
            None => first.clone(),
        }
    }

    /// Cuts a piece into lines, once the line end of the text is known.
    fn cut(&mut self, mut piece: &[u8]) -> Result<(), Malformed> {
        while let Some(end) = piece.iter().position(|&byte| self.line_end.ends(byte)) {
            let (line, rest) = piece.split_at(end);
            piece = rest.get(1..).unwrap_or_default();
            if self.partial.is_empty() {
                self.pass_on(line, true)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.pass_on(&whole, true)?;
            }
        }
        if !self.overlong {
            self.partial.extend_from_slice(piece);
            self.overlong = self.partial.len() > PARTIAL_BYTES_MAX;
            self.has_returns = self.overlong && has_returns(&self.partial);
        }
        if self.overlong {
            self.bytes += if self.partial.is_empty() { piece.len() } else { self.partial.len() } as u64;
            self.partial.clear();
            if self.usable == 0 && self.bytes > UNUSABLE_BYTES_MAX {
                return self.pass_on(&[], false);
            }
        }
        Ok(())
    }
}

/// Returns whether an overlong line has carriage returns within its first bytes.
fn has_returns(line: &[u8]) -> bool {
    line.get(..PARTIAL_BYTES_MAX).unwrap_or(line).contains(&b'\r')
}

impl<R: Rows> Text for Lines<R> {
    type Output = R::Output;
    const NAME: &'static str = R::NAME;
    const BYTES_MAX: u64 = R::BYTES_MAX;

    fn feed(&mut self, mut piece: &[u8]) -> Result<(), Malformed> {
        let room = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(piece.get(..room).unwrap_or(piece));
        if self.line_end == LineEnd::Unknown {
            let room = (PARTIAL_BYTES_MAX + 1).saturating_sub(self.partial.len()).min(piece.len());
            let (start, rest) = piece.split_at(room);
            self.partial.extend_from_slice(start);
            self.line_end = match start.contains(&b'\n') {
                true => LineEnd::LineFeed,
                false if self.partial.len() <= PARTIAL_BYTES_MAX => return Ok(()),
                false => LineEnd::of(&self.partial),
            };
            let start = std::mem::take(&mut self.partial);
            self.cut(&start)?;
            piece = rest;
        }
        self.cut(piece)
    }

    fn finish(mut self) -> Result<Parsed<R::Output>, Malformed> {
        if self.line_end == LineEnd::Unknown {
            self.line_end = LineEnd::of(&self.partial);
            let start = std::mem::take(&mut self.partial);
            self.cut(&start)?;
        }
        let last = std::mem::take(&mut self.partial);
        if !last.is_empty() || self.overlong {
            self.pass_on(&last, false)?;
        }
        match &self.first_bad {
            Some(first) if self.usable == 0 => return Err(self.not_weather(first)),
            None if self.usable == 0 && self.headings == 0 => {
                return Err(Malformed::new(0, "", "empty: it has neither a row nor a heading"));
            }
            _ => {}
        }
        let mut left_out = self.left_out;
        Ok(Parsed { value: self.rows.finish(&mut left_out)?, left_out })
    }
}

/// Reads the fields of a line.
pub mod field {
    use super::{BadRow, Line, Reason};
    use compact_str::CompactString;

    /// Parses a value: an integer of 16 bits, in tenths. A decimal is refused, because `15.0` may be 15 tenths or 15 degrees.
    ///
    /// # Errors
    /// Fails if the text is no such integer.
    pub fn tenths(line: &Line<'_>, column: &'static str, text: &[u8]) -> Result<i16, BadRow> {
        let number = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok());
        // The range is symmetric: one value stays free to mark contradictory values.
        number.filter(|number| *number > i16::MIN).ok_or_else(|| {
            let expected = "an integer from -32767 to 32767 (tenths of °C or mm)";
            line.bad(Reason::InvalidValue, column, text, expected)
        })
    }

    /// Parses a year.
    ///
    /// # Errors
    /// Fails if the text is not a year of four digits.
    pub fn year(line: &Line<'_>, column: &'static str, text: &[u8]) -> Result<i16, BadRow> {
        let digits = std::str::from_utf8(text).ok().filter(|text| text.len() == 4);
        let number = digits.and_then(|text| text.parse().ok()).filter(|year| *year >= 0);
        number.ok_or_else(|| line.bad(Reason::InvalidDate, column, text, "a year of four digits"))
    }

    /// Parses degrees within ±`limit`.
    ///
    /// # Errors
    /// Fails if the text is not such a number.
    pub fn degrees(line: &Line<'_>, column: &'static str, text: &[u8], limit: f64) -> Result<f64, BadRow> {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
        number
            .filter(|degrees| degrees.abs() <= limit)
            .ok_or_else(|| line.bad(Reason::InvalidValue, column, text, &format!("degrees from -{limit} to {limit}")))
    }

    /// Parses a GHCN station id: 11 letters, digits, `_` and `-`. It becomes part of paths and URLs. Returns it in upper case.
    ///
    /// # Errors
    /// Fails if the text is not a station id.
    pub fn station(line: &Line<'_>, text: &[u8]) -> Result<CompactString, BadRow> {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        std::str::from_utf8(text)
            .ok()
            .filter(|id| id.len() == 11 && id.as_bytes().iter().all(fits))
            .map(|id| {
                let mut id = CompactString::from(id);
                id.make_ascii_uppercase();
                id
            })
            .ok_or_else(|| line.bad(Reason::WrongFields, "ID", text, "a station id of 11 letters and digits"))
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
        const NAME: &'static str = "test";
        const BYTES_MAX: u64 = u64::MAX;
        fn heading(&mut self, line: &Line<'_>) -> Result<bool, BadRow> {
            Ok(line.text == b"head")
        }
        fn row(&mut self, line: Line<'_>) -> Result<(), BadRow> {
            if line.text.starts_with(b"?") {
                return Err(line.bad(Reason::WrongFields, "X", line.text, "no question"));
            }
            self.0.push((line.number, line.text.to_vec(), line.ended));
            Ok(())
        }
        fn finish(self, _: &mut LeftOut) -> Result<Self::Output, Malformed> {
            Ok(self.0)
        }
    }

    fn read(pieces: &[&[u8]]) -> Result<Parsed<<Collect as Rows>::Output>, Malformed> {
        let mut lines = Lines::new(Collect::default());
        pieces.iter().try_for_each(|piece| lines.feed(piece))?;
        lines.finish()
    }

    #[test]
    fn an_overlong_line_is_left_out_in_any_pieces() {
        for length in [LINE_BYTES_MAX, LINE_BYTES_MAX + 1, LINE_BYTES_MAX + 2, 5000] {
            for end in ["\n", "\r\n"] {
                let text = format!("a{end}{}{end}b", "x".repeat(length)).into_bytes();
                let whole = read(&[&text]).unwrap();
                let left_out = u64::from(length > LINE_BYTES_MAX);
                assert_eq!(whole.left_out.count(Reason::WrongFields), left_out, "{length} bytes");
                assert_eq!(whole.value.len() as u64, 3 - left_out);
                assert_eq!(whole.value.last().unwrap(), &(3, b"b".to_vec(), false));
                let bytes: Vec<&[u8]> = text.chunks(1).collect();
                assert_eq!(read(&bytes).as_ref(), Ok(&whole), "{length} bytes, byte by byte");
            }
        }
        assert!(read(&[b"a\n", &[b'x'; 5000]]).unwrap().left_out.samples()[0].why.contains("longer than"));
    }

    #[test]
    fn carriage_returns_end_lines_if_there_are_no_line_feeds() {
        let long = "x".repeat(LINE_BYTES_MAX);
        for (text, expected) in [
            ("head\ra\r\rb\r".to_owned(), vec![(2, "a"), (4, "b")]),
            ("a\rb".to_owned(), vec![(1, "a"), (2, "b")]),
            ("a\r".to_owned(), vec![(1, "a")]),
            (format!("{long}\ra\r"), vec![(1, long.as_str()), (2, "a")]),
            ("a\rb\nc".to_owned(), vec![(1, "a\rb"), (2, "c")]),
        ] {
            let whole = read(&[text.as_bytes()]).unwrap();
            let lines: Vec<(u64, &[u8])> =
                whole.value.iter().map(|(number, line, _)| (*number, line.as_slice())).collect();
            let expected: Vec<(u64, &[u8])> =
                expected.iter().map(|(number, line)| (*number, line.as_bytes())).collect();
            assert_eq!(lines, expected, "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes).as_ref(), Ok(&whole), "{text:?}, byte by byte");
        }
        let mixed = format!("a\n{}", "b\r".repeat(LINE_BYTES_MAX));
        let whole = read(&[mixed.as_bytes()]).unwrap();
        assert!(whole.left_out.samples()[0].why.contains("end every line with a line feed"), "{:?}", whole.left_out);
        assert_eq!(read(&mixed.as_bytes().chunks(1).collect::<Vec<_>>()), Ok(whole));
    }

    #[test]
    fn zeros_and_blanks_at_the_end_are_ignored() {
        for end in ["\r\n", " \r\n", "\r\n \r\n", "\r\n \t", "\r\n\0\0\0"] {
            let read = read(&[format!("a\r\nb{end}").as_bytes()]).unwrap();
            assert_eq!((read.value.len(), read.left_out.is_empty()), (2, true), "{end:?}");
        }
    }

    #[test]
    fn byte_order_marks_blank_lines_and_headings_are_not_rows() {
        let read = read(&[b"\xef\xbb\xbfhead\r\n\r\n  \t\na\n\xef\xbb\xbfhead\n?\nb"]).unwrap();
        assert_eq!(read.value, [(4, b"a".to_vec(), true), (7, b"b".to_vec(), false)]);
        assert_eq!((read.left_out.samples().len(), read.left_out.samples()[0].line), (1, 6));
    }

    #[test]
    fn a_text_without_a_readable_row_is_refused() {
        for (text, line, part) in [
            ("", 0, "empty"),
            ("\n \n\u{feff}", 0, "empty"),
            ("head\n?1\n?2\n", 2, "\"?1\" where no question was expected"),
            ("?<p>", 1, "no question"),
        ] {
            let error = read(&[text.as_bytes()]).unwrap_err();
            assert_eq!(error.line, line, "{text:?}");
            assert!(error.why.contains(part), "{error}");
        }
        assert!(read(&[b"head\n"]).unwrap().value.is_empty(), "a heading without rows");
        assert!(read(&[b"\xff\xfe?\0\n\0"]).is_ok(), "a row that the parser accepts decides");
    }

    #[test]
    fn a_long_text_without_a_readable_row_is_refused_before_its_end() {
        let limit = usize::try_from(UNUSABLE_BYTES_MAX).unwrap();
        let mut lines = Lines::new(Collect::default());
        assert!(lines.feed(&vec![b'x'; limit]).is_ok());
        assert!(lines.feed(b"x").unwrap_err().why.contains("longer than"));
        let mut lines = Lines::new(Collect::default());
        let rows = b"?\n".repeat(limit / 2);
        assert!(lines.feed(&rows).is_ok());
        assert_eq!(lines.feed(b"?\n").unwrap_err().line, 1);
        let mut lines = Lines::new(Collect::default());
        assert!(lines.feed(b"a\n").is_ok());
        assert!(lines.feed(&rows).is_ok() && lines.feed(&rows).is_ok(), "one good row is enough");
    }

    proptest! {
        #[test]
        fn lines_are_independent_of_the_pieces(
            text in "[ab\r\n]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..6)
        ) {
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let mut pieces = Lines::new(Collect::default());
            for pair in at.windows(2) {
                pieces.feed(&text.as_bytes()[pair[0]..pair[1]]).unwrap();
            }
            let is_end = |c: char| c == '\n' || (c == '\r' && !text.contains('\n'));
            let expected: Vec<_> = (1u64..)
                .zip(text.split(is_end))
                .map(|(number, line)| (number, line.strip_suffix('\r').unwrap_or(line).as_bytes().to_vec()))
                .filter(|(_, line)| !line.trim_ascii().is_empty())
                .collect();
            let lines = match pieces.finish() {
                Ok(read) => read.value,
                Err(error) => {
                    prop_assert!(error.why.starts_with("empty"));
                    Vec::new()
                }
            };
            prop_assert_eq!(lines.iter().map(|(n, l, _)| (*n, l.clone())).collect::<Vec<_>>(), expected);
            let open_end = lines.last().is_some_and(|(_, _, ended)| !ended);
            prop_assert!(!open_end || !text.ends_with('\n'));
        }
    }
}
