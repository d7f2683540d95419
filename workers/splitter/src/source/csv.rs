//! Converts CSV with a header to one line of JSON per row. Depends on the limits of a ride and on [`common::text`]; pure.
//!
//! A row becomes an object of strings by column name, without its empty cells. Blank cells beyond the last column are ignored.
//! A row with any other number of cells than the header becomes a string with the reason, which is rejected as no ride. A
//! misplaced quote could hide rows in a cell, so such a document is refused as a whole.

mod error;
mod rows;
mod sniff;

pub(crate) use error::InvalidCsv;
pub(super) use sniff::{Layout, sniff};

use bytes::{Buf, Bytes};
use common::text::{self, shorten};
use rows::{ROW_BYTES_MAX, Rows};
use sniff::NAME_BYTES_MAX;
use std::collections::HashSet;

/// Maximum number of columns.
const COLUMNS_MAX: usize = 1_000;
/// A converter of CSV that arrives in pieces.
#[derive(Debug)]
pub(super) struct Csv {
    rows: Rows,
    delimiter: u8,
    /// Number of bytes before the header to skip.
    skip: usize,
    piece: Bytes,
    has_ended: bool,
    /// `"name":` by column; `None` for a column without a name. Empty before the header is read.
    keys: Vec<Option<Vec<u8>>>,
}

impl Csv {
    pub fn new(layout: Layout) -> Self {
        let rows = Rows::new(layout.delimiter, layout.line);
        let Layout { delimiter, skip, .. } = layout;
        Self { rows, delimiter, skip, piece: Bytes::new(), has_ended: false, keys: Vec::new() }
    }

    /// Takes the next piece, once [`Csv::lines`] returns no more.
    pub fn push(&mut self, mut piece: Bytes) {
        let skipped = self.skip.min(piece.len());
        self.skip -= skipped;
        piece.advance(skipped);
        self.piece = piece;
    }

    /// Marks the end of the document. Returns false if it was marked before.
    pub fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.has_ended, true)
    }

    /// Returns the next lines, each with a line feed, of about `bytes` in total; empty if more input is needed.
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
        if self.rows.is_truncated() {
            // Longer than a ride may be, so it is rejected.
            let text = String::from_utf8_lossy(self.rows.text());
            let has_many_cells = self.rows.text().len() < ROW_BYTES_MAX;
            write_array(lines, &text, self.rows.ranges().filter(|_| has_many_cells));
            return Ok(());
        }
        let text = utf8(&self.rows)?;
        let columns = self.keys.len() as u64;
        if self.rows.cells() < columns || self.rows.filled() > columns {
            self.misfit_row(lines, text);
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

    /// Appends a row with another number of cells than the header, as a string.
    fn misfit_row(&self, lines: &mut Vec<u8>, text: &str) {
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

/// Pairs of quotes that are not quotes in CSV.
const OTHER_QUOTES: [(char, char, &str); 5] = [
    ('\'', '\'', "single quotes"),
    ('`', '`', "backticks"),
    ('\u{201C}', '\u{201D}', "typographic quotes"),
    ('\u{2018}', '\u{2019}', "typographic quotes"),
    ('\u{AB}', '\u{BB}', "guillemets"),
];

/// Returns the name of such quotes if they surround every column name.
fn other_quotes(names: &[String]) -> Option<&'static str> {
    let is_quoted =
        |name: &String, open: char, close: char| name.strip_prefix(open).is_some_and(|rest| rest.ends_with(close));
    let all = |open, close| !names.is_empty() && names.iter().all(|name| is_quoted(name, open, close));
    OTHER_QUOTES.iter().find(|(open, close, _)| all(*open, *close)).map(|(_, _, quotes)| *quotes)
}

/// Returns the names of the header as JSON keys.
fn header(rows: &Rows) -> Result<Vec<Option<Vec<u8>>>, InvalidCsv> {
    let line = rows.row_line();
    let refuse = |why: String| InvalidCsv::Header { line, why };
    let whole = utf8(rows)?;
    let mut folded_names = HashSet::new();
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
            let excerpt = shorten(name, 60);
            return Err(refuse(format!("has a name of more than {NAME_BYTES_MAX} bytes: {excerpt:?}; shorten it")));
        }
        let folded = name.to_lowercase();
        if !name.is_empty() && !folded_names.insert(folded.clone()) {
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

/// Returns the text of the row as UTF-8.
fn utf8(rows: &Rows) -> Result<&str, InvalidCsv> {
    std::str::from_utf8(rows.text()).map_err(|error| {
        let byte = rows.text().get(error.valid_up_to()).copied().unwrap_or_default();
        InvalidCsv::NotUtf8 { line: rows.row_line(), byte }
    })
}

/// Appends a line with an array of these ranges of a text, or of the whole text if there are none.
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

/// Appends a text as JSON.
fn write_text(into: &mut Vec<u8>, text: &str) {
    let start = into.len();
    if serde_json::to_writer(&mut *into, text).is_err() {
        // Serialising a string into a vector never fails.
        into.truncate(start);
    }
}

#[cfg(test)]
mod tests;
