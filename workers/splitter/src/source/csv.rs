//! CSV with a header: each row becomes one line of JSON.
//!
//! A row becomes an object of texts by the names of the columns, without its empty cells. Blank cells beyond the last column are
//! ignored; any other number of cells than the header's makes the row a text that says so, which is no ride. Where a quote is out
//! of place, rows could be taken for the text of a cell: such a document is refused as a whole, so that no row is lost.

mod rows;
mod sniff;

pub(super) use sniff::{Layout, sniff};

use crate::ride::RIDE_BYTES_MAX;
use bytes::{Buf, Bytes};
use common::text::{self, shorten};
use rows::Rows;
use std::collections::HashSet;

/// Columns of a header at most.
const COLUMNS_MAX: usize = 1_000;
/// Bytes of a column's name at most: each row repeats it.
const NAME_BYTES_MAX: usize = 256;
/// Bytes kept of a row. A longer row becomes a line that is longer than a ride may be, and so is rejected.
const ROW_BYTES_MAX: usize = RIDE_BYTES_MAX + 1;

/// Why a document is no CSV that can be read without losing rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidCsv {
    /// The first line names no columns.
    #[error(
        "the document looks like CSV without a header, since its first line holds {0:?}: the first line must name the columns, as in \
         name,statustime,latitude,longitude,distance,healthpoints,magicpoints,fieldservice"
    )]
    NoHeader(String),
    /// Other text stands before the header.
    #[error(
        "the header of the CSV seems to be on line {0}, below other text: remove the lines before it, or start each of them with #"
    )]
    LateHeader(u64),
    /// Quotes that are none in CSV stand around every name.
    #[error(
        "the CSV header on line {line} has every name in {quotes}, which are part of the name and not quotes in CSV: write the file \
         with double quotes (\"), or with none"
    )]
    OtherQuotes { line: u64, quotes: &'static str },
    /// Two columns have one name.
    #[error(
        "the CSV header on line {line} names {name:?} twice (columns {first} and {second}); rename or remove one of them"
    )]
    Duplicate { line: u64, name: String, first: usize, second: usize },
    /// More columns, or longer names, than are read.
    #[error("the CSV header on line {line} {why}")]
    Header { line: u64, why: String },
    /// A quote is open where the document ends.
    #[error(
        "the quote that opens a cell on line {line} of the CSV is never closed; close it, or double the quotes within a cell"
    )]
    OpenQuote { line: u64 },
    /// A quote after a blank is open where its line ends.
    #[error(
        "the quote that opens a cell on line {line} of the CSV, after a blank, is not closed on that line; close it, or remove the \
         blank before it"
    )]
    BrokenPadded { line: u64 },
    /// A quoted cell holds what looks like a row.
    #[error(
        "the quote that opens a cell on line {line} of the CSV is not closed before line {row}, which looks like another row; close \
         it, or double the quotes within a cell"
    )]
    RowInCell { line: u64, row: u64 },
    /// Text stands between a closing quote and the next delimiter.
    #[error(
        "line {line} of the CSV has text after the closing quote of a cell; double the quotes within a quoted cell, as in \
         \"the \"\"red\"\" one\""
    )]
    AfterQuote { line: u64 },
    /// A line break between two rows is lost.
    #[error(
        "line {line} of the CSV has {cells} cells where the header names {columns}: it looks like two rows on one line"
    )]
    TwoRows { line: u64, cells: u64, columns: usize },
    /// Another character set.
    #[error(
        "line {line} of the CSV is not UTF-8 (byte {byte:#04x}); convert the file, as in: iconv -f WINDOWS-1252 -t UTF-8, or save it \
         as \"CSV UTF-8\""
    )]
    NotUtf8 { line: u64, byte: u8 },
}

impl InvalidCsv {
    /// The stable code of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoHeader(_) | Self::LateHeader(_) => "not_a_batch",
            _ => "invalid_csv",
        }
    }
}

/// A transcoder, fed with pieces of CSV.
#[derive(Debug)]
pub(super) struct Csv {
    rows: Rows,
    delimiter: u8,
    /// Bytes before the header that are no row.
    skip: usize,
    piece: Bytes,
    has_ended: bool,
    /// `"name":` by column, `None` for a column without a name; empty before the header.
    keys: Vec<Option<Vec<u8>>>,
}

impl Csv {
    pub fn new(layout: Layout) -> Self {
        let rows = Rows::new(layout.delimiter, layout.line);
        let Layout { delimiter, skip, .. } = layout;
        Self { rows, delimiter, skip, piece: Bytes::new(), has_ended: false, keys: Vec::new() }
    }

    /// Takes the next piece, once [`Csv::lines`] has no more.
    pub fn push(&mut self, mut piece: Bytes) {
        let skipped = self.skip.min(piece.len());
        self.skip -= skipped;
        piece.advance(skipped);
        self.piece = piece;
    }

    /// Marks the end of the document; returns whether it was not marked before.
    pub fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.has_ended, true)
    }

    /// The next lines, each with a line feed, of about `bytes` in all; empty where there are none before the next piece.
    pub fn lines(&mut self, bytes: usize) -> Result<Bytes, InvalidCsv> {
        let mut lines = Vec::new();
        while lines.len() < bytes {
            let is_complete = if self.piece.is_empty() {
                self.has_ended && self.rows.end()?
            } else {
                let (length, is_complete) = self.rows.scan(&self.piece)?;
                self.piece.advance(length);
                is_complete
            };
            if is_complete {
                self.row(&mut lines)?;
                self.rows.clear();
            } else if self.piece.is_empty() {
                break;
            }
        }
        Ok(Bytes::from(lines))
    }

    /// Appends the complete row to `lines`.
    fn row(&mut self, lines: &mut Vec<u8>) -> Result<(), InvalidCsv> {
        if self.rows.is_blank() {
            return Ok(());
        }
        if self.keys.is_empty() {
            self.keys = header(&self.rows)?;
            self.rows.expect_columns(self.keys.len());
            return Ok(());
        }
        self.rows.check()?;
        if self.rows.is_cut() {
            // Longer than a ride may be, whatever is in it.
            let text = String::from_utf8_lossy(self.rows.text());
            let has_many_cells = self.rows.text().len() < ROW_BYTES_MAX;
            write_array(lines, &text, self.rows.ranges().filter(|_| has_many_cells));
            return Ok(());
        }
        let text = utf8(&self.rows)?;
        let columns = self.keys.len() as u64;
        if self.rows.cells() < columns || self.rows.filled() > columns {
            self.odd_row(lines, text);
            return Ok(());
        }
        lines.push(b'{');
        let start = lines.len();
        for (range, key) in self.rows.ranges().zip(&self.keys) {
            let cell = text.get(range).unwrap_or_default();
            if let Some(key) = key
                && !cell.is_empty()
            {
                if lines.len() > start {
                    lines.push(b',');
                }
                lines.extend_from_slice(key);
                write_text(lines, cell);
            }
        }
        lines.extend_from_slice(b"}\n");
        Ok(())
    }

    /// Appends a row with another number of cells than the header, as a text.
    fn odd_row(&self, lines: &mut Vec<u8>, text: &str) {
        let (line, cells, columns) = (self.rows.row_line(), self.rows.cells(), self.keys.len());
        let noun = if cells == 1 { "cell" } else { "cells" };
        let mut words = format!("line {line} has {cells} {noun}, the header {columns}:");
        for (nth, range) in self.rows.ranges().enumerate() {
            words.push(if nth == 0 { ' ' } else { char::from(self.delimiter) });
            words.push_str(text.get(range).unwrap_or_default());
        }
        write_text(lines, &words);
        lines.push(b'\n');
    }
}

/// Pairs of quotes that people and programs write, and that CSV does not have.
const OTHER_QUOTES: [(char, char, &str); 5] = [
    ('\'', '\'', "single quotes"),
    ('`', '`', "backticks"),
    ('\u{201C}', '\u{201D}', "typographic quotes"),
    ('\u{2018}', '\u{2019}', "typographic quotes"),
    ('\u{AB}', '\u{BB}', "guillemets"),
];

/// The quotes around every one of these names.
fn other_quotes(names: &[String]) -> Option<&'static str> {
    let is_quoted =
        |name: &String, open: char, close: char| name.strip_prefix(open).is_some_and(|rest| rest.ends_with(close));
    let all = |open, close| !names.is_empty() && names.iter().all(|name| is_quoted(name, open, close));
    OTHER_QUOTES.iter().find(|(open, close, _)| all(*open, *close)).map(|(_, _, quotes)| *quotes)
}

/// The header's names, as keys of JSON.
fn header(rows: &Rows) -> Result<Vec<Option<Vec<u8>>>, InvalidCsv> {
    let line = rows.row_line();
    let refuse = |why: String| InvalidCsv::Header { line, why };
    let whole = utf8(rows)?;
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    let mut keys = Vec::new();
    for (nth, range) in rows.ranges().enumerate() {
        let name = text::trimmed(whole.get(range).unwrap_or_default());
        if nth >= COLUMNS_MAX {
            return Err(refuse(format!(
                "names more than {COLUMNS_MAX} columns; leave out those that are no field of a ride"
            )));
        }
        if name.len() > NAME_BYTES_MAX {
            let shown = shorten(name, 60);
            return Err(refuse(format!("has a name of more than {NAME_BYTES_MAX} bytes: {shown:?}; shorten it")));
        }
        let folded = name.to_lowercase();
        if !name.is_empty() && !seen.insert(folded.clone()) {
            let first = names.iter().position(|earlier| *earlier == folded).unwrap_or_default() + 1;
            return Err(InvalidCsv::Duplicate { line, name: shorten(name, 60).into_owned(), first, second: nth + 1 });
        }
        names.push(folded);
        keys.push((!name.is_empty()).then(|| {
            let mut key = Vec::new();
            write_text(&mut key, name);
            key.push(b':');
            key
        }));
    }
    names.retain(|name: &String| !name.is_empty());
    match other_quotes(&names) {
        Some(quotes) => Err(InvalidCsv::OtherQuotes { line, quotes }),
        None => Ok(keys),
    }
}

/// The row's text, checked.
fn utf8(rows: &Rows) -> Result<&str, InvalidCsv> {
    std::str::from_utf8(rows.text()).map_err(|error| {
        let byte = rows.text().get(error.valid_up_to()).copied().unwrap_or_default();
        InvalidCsv::NotUtf8 { line: rows.row_line(), byte }
    })
}

/// A line with an array of these ranges of a text; of the text itself where there are none.
fn write_array(lines: &mut Vec<u8>, text: &str, ranges: impl Iterator<Item = std::ops::Range<usize>>) {
    lines.push(b'[');
    let start = lines.len();
    for range in ranges {
        if lines.len() > start {
            lines.push(b',');
        }
        write_text(lines, text.get(range).unwrap_or_default());
    }
    if lines.len() == start {
        write_text(lines, text);
    }
    lines.extend_from_slice(b"]\n");
}

/// A text as JSON.
fn write_text(into: &mut Vec<u8>, text: &str) {
    let start = into.len();
    if serde_json::to_writer(&mut *into, text).is_err() {
        // A text and a vector never fail.
        into.truncate(start);
    }
}

#[cfg(test)]
mod tests;
