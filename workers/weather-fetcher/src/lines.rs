//! Text that arrives in pieces, read line by line: NOAA's files are up to 100 MB and need not be in memory.
//!
//! A row that cannot be read is left out, and counted with its reason and its place. A text without a row that can be
//! read is not weather.

use crate::{
    foreign::{looks_like, way_out},
    gunzip::is_blank,
    left_out::{LeftOut, Reason},
};
use common::text::shorten;
use std::fmt;

/// Bytes of a line at most: NOAA's longest has 85 columns. A longer line is left out.
const LINE_BYTES_MAX: usize = 1024;
/// Bytes that are kept of a line: one more, because the line may end in a carriage return.
const PARTIAL_BYTES_MAX: usize = LINE_BYTES_MAX + 1;
/// Bytes at the beginning of a text by which another format is recognised.
const HEAD_BYTES: usize = 64;
/// A text is not weather if so many bytes at its beginning hold no row that can be read.
const UNUSABLE_BYTES_MAX: u64 = 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
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

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The reason it counts under.
    pub reason: Reason,
    /// Where the row is at fault.
    pub place: Malformed,
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

    /// The same fault as a reason to leave the row out.
    pub fn bad(&self, reason: Reason, column: &'static str, found: &[u8], expected: &str) -> BadRow {
        BadRow { reason, place: self.malformed(column, found, expected) }
    }
}

/// What was read from a text, and what was left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// The rows and days left out.
    pub left_out: LeftOut,
}

/// Takes a text piece by piece.
pub trait Text: Send {
    /// What is read from it.
    type Output: Send;
    /// Name of the kind of text, for messages: `station file`.
    const NAME: &'static str;
    /// Bytes at most, several times the size of NOAA's: a longer text is not weather.
    const BYTES_MAX: u64;

    /// The next piece, of any size.
    ///
    /// # Errors
    /// Fails as soon as the text is known not to be weather.
    fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed>;

    /// The text is at its end.
    ///
    /// # Errors
    /// Fails if the text is not weather: it is empty, or no row of it can be read.
    fn finish(self) -> Result<Parsed<Self::Output>, Malformed>;
}

/// Takes a text line by line.
pub trait Rows: Send {
    /// What is read from it.
    type Output: Send;
    /// As [`Text::NAME`].
    const NAME: &'static str;
    /// As [`Text::BYTES_MAX`].
    const BYTES_MAX: u64;

    /// Takes a line that names the columns; returns whether it is one. Such a line is no row.
    ///
    /// # Errors
    /// Fails if it does not name the columns that a row must have.
    fn heading(&mut self, _line: &Line<'_>) -> Result<bool, BadRow> {
        Ok(false)
    }

    /// Reads the next line, which is never blank.
    ///
    /// # Errors
    /// Fails if the row cannot be read. Such a row changes nothing.
    fn row(&mut self, line: Line<'_>) -> Result<(), BadRow>;

    /// Ends the text; adds the days to be left out to `left_out`.
    ///
    /// # Errors
    /// Fails if the rows are not all that the text must have.
    fn finish(self, left_out: &mut LeftOut) -> Result<Self::Output, Malformed>;
}

/// What ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    /// Not known yet: no line feed so far.
    Unknown,
    /// `\n`, or `\r\n`.
    LineFeed,
    /// `\r`, as old programs write it. Line feeds end lines, too.
    CarriageReturn,
}

impl LineEnd {
    /// What ends the lines of a text that begins with these bytes, which are the whole text or longer than a line.
    fn of(start: &[u8]) -> Self {
        let inner = start.get(..start.len().saturating_sub(1)).unwrap_or_default();
        if inner.contains(&b'\r') { Self::CarriageReturn } else { Self::LineFeed }
    }

    fn ends(self, byte: u8) -> bool {
        byte == b'\n' || (byte == b'\r' && self == Self::CarriageReturn)
    }
}

/// Cuts pieces of a text into lines and hands them on. Holds no more than one line.
#[derive(Debug)]
pub struct Lines<R> {
    rows: R,
    line_end: LineEnd,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    /// Whether the line is too long already; the rest of it is dropped.
    overlong: bool,
    /// Whether there are carriage returns in the line that is too long.
    has_returns: bool,
    /// Lines passed on so far.
    number: u64,
    /// Bytes of these lines, and of an overlong one that has not ended.
    bytes: u64,
    head: Vec<u8>,
    headings: u64,
    usable: u64,
    first_bad: Option<Malformed>,
    left_out: LeftOut,
}

impl<R: Rows> Lines<R> {
    /// Lines for `rows`.
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

    fn hand_on(&mut self, line: &[u8], ended: bool) -> Result<(), Malformed> {
        self.number += 1;
        self.bytes += line.len() as u64 + 1;
        let overlong = std::mem::take(&mut self.overlong);
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if overlong || text.len() > LINE_BYTES_MAX {
            let has_returns = std::mem::take(&mut self.has_returns) || has_returns(line);
            let hint = if has_returns { ", with carriage returns in it: end every line with a line feed" } else { "" };
            let place = Malformed::new(self.number, "", format!("longer than {LINE_BYTES_MAX} bytes{hint}"));
            self.leave_out(BadRow { reason: Reason::WrongFields, place });
        } else {
            let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
            let line = Line { number: self.number, text, ended };
            // Zeros pad a text, as they pad a block of an archive.
            if text.iter().all(|byte| is_blank(*byte)) {
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
        self.left_out.note(bad.reason, &bad.place);
        self.first_bad.get_or_insert(bad.place);
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
                let way_out = way_out(format);
                Malformed::new(*line, column, format!("{why}; the text looks like {format}{way_out}"))
            }
            None => first.clone(),
        }
    }

    /// Cuts a piece at the ends of lines, once these are known.
    fn cut(&mut self, mut piece: &[u8]) -> Result<(), Malformed> {
        while let Some(end) = piece.iter().position(|&byte| self.line_end.ends(byte)) {
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
        if !self.overlong {
            self.partial.extend_from_slice(piece);
            self.overlong = self.partial.len() > PARTIAL_BYTES_MAX;
            self.has_returns = self.overlong && has_returns(&self.partial);
        }
        if self.overlong {
            self.bytes += if self.partial.is_empty() { piece.len() } else { self.partial.len() } as u64;
            self.partial.clear();
            if self.usable == 0 && self.bytes > UNUSABLE_BYTES_MAX {
                return self.hand_on(&[], false);
            }
        }
        Ok(())
    }
}

/// Whether there are carriage returns in a line that is too long, not only at its end.
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
            self.hand_on(&last, false)?;
        }
        match &self.first_bad {
            Some(first) if self.usable == 0 => return Err(self.not_weather(first)),
            None if self.usable == 0 && self.headings == 0 => {
                return Err(Malformed::new(0, "", "empty: not one row, not even a heading"));
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

    /// A value of NOAA's: an integer of 16 bits. A decimal is refused, because `15.0` may be 15 tenths or 15 degrees.
    ///
    /// # Errors
    /// Fails if the text is another value.
    pub fn tenths(line: &Line<'_>, column: &'static str, text: &[u8]) -> Result<i16, BadRow> {
        let number = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok());
        // The range is symmetric, so that one value is free to mark contradictions.
        number.filter(|number| *number > i16::MIN).ok_or_else(|| {
            let expected = "an integer from -32767 to 32767 (tenths of °C or mm)";
            line.bad(Reason::InvalidValue, column, text, expected)
        })
    }

    /// A year.
    ///
    /// # Errors
    /// Fails if the text is not a year of four digits.
    pub fn year(line: &Line<'_>, column: &'static str, text: &[u8]) -> Result<i16, BadRow> {
        let digits = std::str::from_utf8(text).ok().filter(|text| text.len() == 4);
        let number = digits.and_then(|text| text.parse().ok()).filter(|year| *year >= 0);
        number.ok_or_else(|| line.bad(Reason::InvalidDate, column, text, "a year of four digits"))
    }

    /// Degrees within ±`limit`.
    ///
    /// # Errors
    /// Fails if the text is not such a number.
    pub fn degrees(line: &Line<'_>, column: &'static str, text: &[u8], limit: f64) -> Result<f64, BadRow> {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
        number
            .filter(|degrees| degrees.abs() <= limit)
            .ok_or_else(|| line.bad(Reason::InvalidValue, column, text, &format!("degrees from -{limit} to {limit}")))
    }

    /// A GHCN station id, in upper case: 11 letters, digits, `_` and `-`. It becomes part of paths and URLs.
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
    fn an_overlong_line_costs_itself_however_it_comes() {
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
    fn carriage_returns_end_lines_where_there_are_no_line_feeds() {
        let long = "x".repeat(LINE_BYTES_MAX);
        for (text, expected) in [
            ("head\ra\r\rb\r".to_owned(), vec![(2, "a"), (4, "b")]),
            ("a\rb".to_owned(), vec![(1, "a"), (2, "b")]),
            ("a\r".to_owned(), vec![(1, "a")]),
            (format!("{long}\ra\r"), vec![(1, long.as_str()), (2, "a")]),
            ("a\rb\nc".to_owned(), vec![(1, "a\rb"), (2, "c")]),
        ] {
            let whole = read(&[text.as_bytes()]).unwrap();
            let found: Vec<(u64, &[u8])> =
                whole.value.iter().map(|(number, line, _)| (*number, line.as_slice())).collect();
            let expected: Vec<(u64, &[u8])> =
                expected.iter().map(|(number, line)| (*number, line.as_bytes())).collect();
            assert_eq!(found, expected, "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes).as_ref(), Ok(&whole), "{text:?}, byte by byte");
        }
        let mixed = format!("a\n{}", "b\r".repeat(LINE_BYTES_MAX));
        let whole = read(&[mixed.as_bytes()]).unwrap();
        assert!(whole.left_out.samples()[0].why.contains("end every line with a line feed"), "{:?}", whole.left_out);
        assert_eq!(read(&mixed.as_bytes().chunks(1).collect::<Vec<_>>()), Ok(whole));
    }

    #[test]
    fn zeros_and_blanks_at_the_end_are_no_rows() {
        for end in ["\r\n", " \r\n", "\r\n \r\n", "\r\n \t", "\r\n\0\0\0"] {
            let read = read(&[format!("a\r\nb{end}").as_bytes()]).unwrap();
            assert_eq!((read.value.len(), read.left_out.is_empty()), (2, true), "{end:?}");
        }
    }

    #[test]
    fn marks_blank_lines_and_headings_are_no_rows() {
        let read = read(&[b"\xef\xbb\xbfhead\r\n\r\n  \t\na\n\xef\xbb\xbfhead\n?\nb"]).unwrap();
        assert_eq!(read.value, [(4, b"a".to_vec(), true), (7, b"b".to_vec(), false)]);
        assert_eq!((read.left_out.samples().len(), read.left_out.samples()[0].line), (1, 6));
    }

    #[test]
    fn a_text_without_a_row_that_can_be_read_is_refused() {
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
        assert!(read(&[b"\xff\xfe?\0\n\0"]).is_ok(), "a row that the format accepts decides");
    }

    #[test]
    fn a_long_text_without_a_row_that_can_be_read_is_refused_while_it_comes() {
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
            let is_end = |c: char| c == '\n' || (c == '\r' && !text.contains('\n'));
            let expected: Vec<_> = (1u64..)
                .zip(text.split(is_end))
                .map(|(number, line)| (number, line.strip_suffix('\r').unwrap_or(line).as_bytes().to_vec()))
                .filter(|(_, line)| !line.trim_ascii().is_empty())
                .collect();
            let found = match pieces.finish() {
                Ok(read) => read.value,
                Err(error) => {
                    prop_assert!(error.why.starts_with("empty"));
                    Vec::new()
                }
            };
            prop_assert_eq!(found.iter().map(|(n, l, _)| (*n, l.clone())).collect::<Vec<_>>(), expected);
            let open_end = found.last().is_some_and(|(_, _, ended)| !ended);
            prop_assert!(!open_end || !text.ends_with('\n'));
        }
    }
}
