//! Rows of CSV (RFC 4180) out of bytes that come in pieces.
//!
//! Like the `csv` crate in what it reads, and unlike it strict about quotes: behind a quoted cell only a delimiter or the end of the
//! row may stand, and a cell that goes on over several lines must not hold what looks like a row. Both show that a quote is missing
//! or out of place, and then rows would disappear in the text of a cell. Blanks may stand around a quoted cell; one after a blank
//! must end on its line, since other readers take its quote for text.

use super::{InvalidCsv, ROW_BYTES_MAX};
use memchr::{memchr_iter, memchr3};
use std::ops::Range;

const MARK: [u8; 3] = *b"\xEF\xBB\xBF";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first cell of a row, after so many bytes of a byte order mark.
    Row {
        mark: usize,
    },
    /// Before any other cell.
    Cell,
    /// After blanks at the start of a cell, which belong to it unless a quote follows.
    Padding,
    Unquoted,
    Quoted,
    /// After a quote within a quoted cell: its end, or the first of two.
    Quote,
    /// Behind a quoted cell.
    Closed,
}

/// The scanner; holds one row at a time.
#[derive(Debug)]
pub(super) struct Rows {
    delimiter: u8,
    columns: Option<usize>,
    state: State,
    /// The cells of the row, one after the other.
    text: Vec<u8>,
    /// Where each complete cell ends in `text`.
    ends: Vec<usize>,
    /// Complete cells, kept or not.
    cells: u64,
    /// Cells up to the last that is not blank.
    filled: u64,
    is_cell_empty: bool,
    /// Text was left out since the row is longer than [`ROW_BYTES_MAX`].
    is_cut: bool,
    has_quotes: bool,
    line: u64,
    row_line: u64,
    after_cr: bool,
    /// Line on which the first cell that spans several lines opens its quote.
    broken_cell: Option<u64>,
    quote_line: u64,
    /// Whether the quoted cell comes after a blank.
    is_padded: bool,
    /// Whether the quoted cell spans several lines.
    is_cell_broken: bool,
    /// Delimiters within the quotes of the cell, of its current line, and of all cells of the row that span several
    /// lines.
    cell_delimiters: u64,
    line_delimiters: u64,
    broken_delimiters: u64,
}

impl Rows {
    /// A scanner that starts on `line`, from 1.
    pub fn new(delimiter: u8, line: u64) -> Self {
        Self {
            delimiter,
            columns: None,
            state: State::Row { mark: 0 },
            text: Vec::new(),
            ends: Vec::new(),
            cells: 0,
            filled: 0,
            is_cell_empty: true,
            is_cut: false,
            has_quotes: false,
            line,
            row_line: line,
            after_cr: false,
            broken_cell: None,
            quote_line: line,
            is_padded: false,
            is_cell_broken: false,
            cell_delimiters: 0,
            line_delimiters: 0,
            broken_delimiters: 0,
        }
    }

    /// From now on every row should have so many cells.
    pub fn expect_columns(&mut self, columns: usize) {
        self.columns = Some(columns);
    }

    /// Reads up to the end of a row: returns how many bytes were read, and whether a row is complete.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<(usize, bool), InvalidCsv> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (length, is_complete) = match self.state {
                State::Row { mark } => self.before_row(mark, rest),
                State::Cell => self.before_cell(rest),
                State::Padding => self.padding(rest),
                State::Unquoted => self.unquoted(rest),
                State::Quoted => self.quoted(rest)?,
                State::Quote => self.after_quote(rest)?,
                State::Closed => self.closed(rest)?,
            };
            at += length;
            if is_complete {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// The document ends here; returns whether a row is complete.
    pub fn end(&mut self) -> Result<bool, InvalidCsv> {
        match self.state {
            State::Row { mark: 0 } => return Ok(false),
            State::Row { mark } => self.keep(MARK.get(..mark).unwrap_or_default()),
            State::Quoted => return Err(InvalidCsv::OpenQuote { line: self.quote_line }),
            State::Cell | State::Padding | State::Unquoted | State::Quote | State::Closed => {}
        }
        self.end_cell();
        Ok(true)
    }

    /// Forgets the row.
    pub fn clear(&mut self) {
        self.state = State::Row { mark: 0 };
        self.text.clear();
        self.ends.clear();
        (self.cells, self.filled) = (0, 0);
        (self.is_cut, self.has_quotes) = (false, false);
        self.broken_cell = None;
        self.broken_delimiters = 0;
    }

    /// Whether the row is a blank line. What DOS writes at the end of a file is blank, too.
    pub fn is_blank(&self) -> bool {
        const END_OF_FILE: u8 = 0x1A;
        let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == END_OF_FILE;
        self.cells == 1 && !self.has_quotes && self.text.iter().all(is_blank)
    }

    /// Whether text was left out since the row is too long.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The text of the cells, one after the other.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Cells of the row.
    pub fn cells(&self) -> u64 {
        self.cells
    }

    /// Cells of the row up to the last that is not blank.
    pub fn filled(&self) -> u64 {
        self.filled
    }

    /// Where each cell is in the text.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| start..*end)
    }

    /// The line the row starts on, from 1.
    pub fn row_line(&self) -> u64 {
        self.row_line
    }

    /// Checks that the row cannot be several rows.
    pub fn check(&self) -> Result<(), InvalidCsv> {
        let Some(columns) = self.columns else { return Ok(()) };
        let of_two_rows = 2 * (columns as u64 - 1);
        let delimiters = self.cells - 1 + self.broken_delimiters;
        if let Some(line) = self.broken_cell
            && delimiters >= of_two_rows
        {
            return Err(InvalidCsv::RowInCell { line, row: line + 1 });
        }
        if self.cells > of_two_rows && self.filled > columns as u64 {
            return Err(InvalidCsv::TwoRows { line: self.row_line, cells: self.cells, columns });
        }
        Ok(())
    }

    fn before_row(&mut self, mark: usize, rest: &[u8]) -> (usize, bool) {
        let first = rest.first().copied();
        if mark == 0 {
            self.row_line = self.line;
        }
        if first == MARK.get(mark).copied() {
            self.state = State::Row { mark: (mark + 1) % MARK.len() };
            self.after_cr = false;
            return (1, false);
        }
        if mark > 0 {
            self.keep(MARK.get(..mark).unwrap_or_default());
            self.state = State::Unquoted;
            return (0, false);
        }
        if first == Some(b'\n') && self.after_cr {
            self.after_cr = false;
            return (1, false);
        }
        self.before_cell(rest)
    }

    fn before_cell(&mut self, rest: &[u8]) -> (usize, bool) {
        self.after_cr = false;
        match rest.first() {
            Some(b'"') => self.open_quote(false),
            Some(byte) if self.is_padding(*byte) => {
                self.state = State::Padding;
                (0, false)
            }
            _ => {
                self.state = State::Unquoted;
                (0, false)
            }
        }
    }

    fn open_quote(&mut self, is_padded: bool) -> (usize, bool) {
        self.state = State::Quoted;
        self.has_quotes = true;
        self.is_padded = is_padded;
        self.quote_line = self.line;
        (self.cell_delimiters, self.line_delimiters) = (0, 0);
        (1, false)
    }

    fn is_padding(&self, byte: u8) -> bool {
        matches!(byte, b' ' | b'\t') && byte != self.delimiter
    }

    fn padding(&mut self, rest: &[u8]) -> (usize, bool) {
        let length = rest.iter().take_while(|byte| self.is_padding(**byte)).count();
        match rest.get(length) {
            Some(b'"') => {
                self.text.truncate(self.ends.last().copied().unwrap_or(0));
                self.is_cell_empty = true;
                let (quote, _) = self.open_quote(true);
                return (length + quote, false);
            }
            Some(_) => self.state = State::Unquoted,
            None => {}
        }
        self.keep(rest.get(..length).unwrap_or_default());
        (length, false)
    }

    fn unquoted(&mut self, rest: &[u8]) -> (usize, bool) {
        let length = memchr3(self.delimiter, b'\n', b'\r', rest).unwrap_or(rest.len());
        let (text, after) = rest.split_at(length);
        self.keep(text);
        match after.first() {
            None => (length, false),
            Some(byte) => (length + 1, self.behind_cell(*byte)),
        }
    }

    fn quoted(&mut self, rest: &[u8]) -> Result<(usize, bool), InvalidCsv> {
        let length = memchr3(b'"', b'\n', b'\r', rest).unwrap_or(rest.len());
        let (text, after) = rest.split_at(length);
        if !text.is_empty() {
            self.after_cr = false;
            self.keep(text);
            let delimiters = memchr_iter(self.delimiter, text).count() as u64;
            self.cell_delimiters += delimiters;
            self.line_delimiters += delimiters;
        }
        if let Some(columns) = self.columns
            && self.is_cell_broken
            && self.line_delimiters + 1 >= columns as u64
        {
            return Err(InvalidCsv::RowInCell { line: self.quote_line, row: self.line });
        }
        match after.first() {
            None => return Ok((length, false)),
            Some(b'"') => self.state = State::Quote,
            Some(_) if self.is_padded => return Err(InvalidCsv::BrokenPadded { line: self.quote_line }),
            Some(byte) => {
                self.is_cell_broken = true;
                self.broken_cell.get_or_insert(self.quote_line);
                self.line_delimiters = 0;
                self.keep(&[*byte]);
                self.break_line(*byte);
            }
        }
        Ok((length + 1, false))
    }

    fn after_quote(&mut self, rest: &[u8]) -> Result<(usize, bool), InvalidCsv> {
        if rest.first() == Some(&b'"') {
            self.keep(b"\"");
            self.state = State::Quoted;
            return Ok((1, false));
        }
        self.state = State::Closed;
        Ok((0, false))
    }

    fn closed(&mut self, rest: &[u8]) -> Result<(usize, bool), InvalidCsv> {
        match rest.first() {
            Some(byte) if *byte == self.delimiter || matches!(byte, b'\n' | b'\r') => Ok((1, self.behind_cell(*byte))),
            Some(b' ' | b'\t') => Ok((1, false)),
            _ => Err(InvalidCsv::AfterQuote { line: self.line }),
        }
    }

    /// Ends a cell; returns whether the row is complete.
    fn behind_cell(&mut self, byte: u8) -> bool {
        self.end_cell();
        if byte == self.delimiter {
            self.state = State::Cell;
            return false;
        }
        self.break_line(byte);
        true
    }

    fn end_cell(&mut self) {
        self.cells += 1;
        if !std::mem::replace(&mut self.is_cell_empty, true) {
            self.filled = self.cells;
        }
        if std::mem::take(&mut self.is_cell_broken) {
            self.broken_delimiters += self.cell_delimiters;
        }
        if !self.is_cut {
            self.ends.push(self.text.len());
            self.is_cut = self.ends.len() > ROW_BYTES_MAX;
        }
    }

    fn break_line(&mut self, byte: u8) {
        self.line += u64::from(byte == b'\r' || !self.after_cr);
        self.after_cr = byte == b'\r';
    }

    fn keep(&mut self, text: &[u8]) {
        self.is_cell_empty &= text.iter().all(u8::is_ascii_whitespace);
        let room = ROW_BYTES_MAX.saturating_sub(self.text.len());
        self.text.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
        self.is_cut |= text.len() > room;
    }
}
