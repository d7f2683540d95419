//! Splits CSV (RFC 4180) that arrives in pieces into rows.
//!
//! It reads what the `csv` crate reads, but is strict about quotes. Only a delimiter or the end of the row may follow a quoted
//! cell, and a cell that spans several lines must not contain what looks like a row. Otherwise a missing or misplaced quote
//! would hide rows in a cell. Blanks may surround a quoted cell; a quoted cell after a blank must end on its line, since
//! other parsers read its quote as text.

use super::error::InvalidCsv;
use crate::ride::RIDE_BYTES_MAX;
use memchr::{memchr_iter, memchr3};
use std::ops::Range;

/// Maximum number of bytes kept of a row. A longer row becomes a line that is longer than a ride may be, and is rejected.
pub(super) const ROW_BYTES_MAX: usize = RIDE_BYTES_MAX + 1;
const MARK: [u8; 3] = *b"\xEF\xBB\xBF";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first cell of a row, after `mark` bytes of a byte order mark.
    Row {
        mark: usize,
    },
    /// Before any other cell.
    Cell,
    /// After blanks at the start of a cell. They belong to the cell unless a quote follows.
    Padding,
    Unquoted,
    Quoted,
    /// After a quote within a quoted cell, which ends the cell or is the first of two.
    Quote,
    /// After a quoted cell.
    Closed,
}

/// A scanner that holds one row at a time.
#[derive(Debug)]
pub(super) struct Rows {
    delimiter: u8,
    columns: Option<usize>,
    state: State,
    /// The concatenated cells of the row.
    text: Vec<u8>,
    /// End of each complete cell in `text`.
    ends: Vec<usize>,
    /// Number of complete cells, kept or not.
    cells: u64,
    /// Number of cells up to the last one that is not blank.
    filled: u64,
    is_cell_empty: bool,
    /// Whether the row is longer than [`ROW_BYTES_MAX`] and truncated.
    is_truncated: bool,
    has_quotes: bool,
    line: u64,
    row_line: u64,
    after_cr: bool,
    /// Line of the opening quote of the first cell that spans several lines.
    multiline_cell: Option<u64>,
    quote_line: u64,
    /// Whether the quoted cell follows a blank.
    is_padded: bool,
    /// Whether the quoted cell spans several lines.
    is_cell_multiline: bool,
    /// Number of delimiters within the quotes of the cell, of its current line, and of all cells of the row that span several
    /// lines.
    cell_delimiters: u64,
    line_delimiters: u64,
    multiline_delimiters: u64,
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
            is_truncated: false,
            has_quotes: false,
            line,
            row_line: line,
            after_cr: false,
            multiline_cell: None,
            quote_line: line,
            is_padded: false,
            is_cell_multiline: false,
            cell_delimiters: 0,
            line_delimiters: 0,
            multiline_delimiters: 0,
        }
    }

    /// Sets the number of cells that every following row should have.
    pub fn expect_columns(&mut self, columns: usize) {
        self.columns = Some(columns);
    }

    /// Reads up to the end of a row. Returns the number of bytes read, and whether a row is complete.
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

    /// Ends the document. Returns whether a row is complete.
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

    /// Drops the row.
    pub fn clear(&mut self) {
        self.state = State::Row { mark: 0 };
        self.text.clear();
        self.ends.clear();
        (self.cells, self.filled) = (0, 0);
        (self.is_truncated, self.has_quotes) = (false, false);
        self.multiline_cell = None;
        self.multiline_delimiters = 0;
    }

    /// Returns whether the row is a blank line. The end-of-file mark of DOS counts as blank.
    pub fn is_blank(&self) -> bool {
        const END_OF_FILE: u8 = 0x1A;
        let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == END_OF_FILE;
        self.cells == 1 && !self.has_quotes && self.text.iter().all(is_blank)
    }

    /// Returns whether the row is too long and truncated.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Returns the concatenated text of the cells.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the number of cells.
    pub fn cells(&self) -> u64 {
        self.cells
    }

    /// Returns the number of cells up to the last one that is not blank.
    pub fn filled(&self) -> u64 {
        self.filled
    }

    /// Returns the range of each cell in the text.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| start..*end)
    }

    /// Returns the line on which the row starts, from 1.
    pub fn row_line(&self) -> u64 {
        self.row_line
    }

    /// Fails if the row may be several rows.
    pub fn check(&self) -> Result<(), InvalidCsv> {
        let Some(columns) = self.columns else { return Ok(()) };
        let of_two_rows = 2 * (columns as u64 - 1);
        let delimiters = self.cells - 1 + self.multiline_delimiters;
        if let Some(line) = self.multiline_cell
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
            Some(byte) => (length + 1, self.after_cell(*byte)),
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
            && self.is_cell_multiline
            && self.line_delimiters + 1 >= columns as u64
        {
            return Err(InvalidCsv::RowInCell { line: self.quote_line, row: self.line });
        }
        match after.first() {
            None => return Ok((length, false)),
            Some(b'"') => self.state = State::Quote,
            Some(_) if self.is_padded => return Err(InvalidCsv::BrokenPadded { line: self.quote_line }),
            Some(byte) => {
                self.is_cell_multiline = true;
                self.multiline_cell.get_or_insert(self.quote_line);
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
            Some(byte) if *byte == self.delimiter || matches!(byte, b'\n' | b'\r') => Ok((1, self.after_cell(*byte))),
            Some(b' ' | b'\t') => Ok((1, false)),
            _ => Err(InvalidCsv::AfterQuote { line: self.line }),
        }
    }

    /// Ends a cell; returns whether the row is complete.
    fn after_cell(&mut self, byte: u8) -> bool {
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
        if std::mem::take(&mut self.is_cell_multiline) {
            self.multiline_delimiters += self.cell_delimiters;
        }
        if !self.is_truncated {
            self.ends.push(self.text.len());
            self.is_truncated = self.ends.len() > ROW_BYTES_MAX;
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
        self.is_truncated |= text.len() > room;
    }
}
