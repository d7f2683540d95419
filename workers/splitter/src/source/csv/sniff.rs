//! Recognises CSV and its delimiter by the first lines of a text.

use super::{error::InvalidCsv, rows::Rows};
use crate::source::{format::without_mark, limits::HEAD_BYTES};
use common::{
    reading::{FIELDS, near_miss},
    ride::StatusTime,
    text::{self, shorten},
};

/// Maximum length of a column name, bytes: each row repeats it.
pub(super) const NAME_BYTES_MAX: usize = 256;
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Number of cells that are exactly fields of a ride which make a row a header.
const FIELDS_OF_HEADER: usize = 3;

/// Maximum number of lines before a header.
const LINES_BEFORE_HEADER_MAX: usize = 20;

/// How a document separates rows and cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) struct Layout {
    pub delimiter: u8,
    /// Number of bytes before the header to skip.
    pub skip: usize,
    /// The line of the header, from 1.
    pub line: u64,
}

/// Returns the layout if the document is CSV with a header; `head` has its first [`HEAD_BYTES`], or all of it.
///
/// # Errors
/// Fails if the document is CSV without a header, or with lines other than comments before the header.
pub(in crate::source) fn sniff(head: &[u8]) -> Result<Option<Layout>, InvalidCsv> {
    let is_whole = head.len() < HEAD_BYTES;
    let first = without_mark(head).trim_ascii_start().first();
    if matches!(first, None | Some(b'[' | b'{' | b'<' | 0x1E)) {
        return Ok(None);
    }
    if let Some(layout) = excel(head) {
        return Ok(Some(layout));
    }
    let candidates = DELIMITERS.into_iter().filter_map(|delimiter| Candidate::new(head, is_whole, delimiter));
    let best = candidates.max_by_key(|candidate| (candidate.fields, candidate.first.len()));
    if let Some(best) = best.as_ref().filter(|best| best.has_header()) {
        return Ok(Some(Layout { delimiter: best.delimiter, skip: 0, line: 1 }));
    }
    if let Some((layout, is_commented)) = header_below(head, is_whole) {
        return if is_commented { Ok(Some(layout)) } else { Err(InvalidCsv::LateHeader(layout.line)) };
    }
    let Some(best) = best else { return Ok(None) };
    match best.first.iter().find(|cell| is_value(cell)) {
        Some(value) if best.is_table() => Err(InvalidCsv::NoHeader(shorten(value, 60).into_owned())),
        _ => Ok(None),
    }
}

/// Returns the layout of a header below other lines, and whether all of these are comments that start with `#`. Such a header
/// has several cells that are exactly fields of a ride.
fn header_below(head: &[u8], is_whole: bool) -> Option<(Layout, bool)> {
    let (mut skip, mut is_commented) = (0, true);
    for (nth, line) in (1..).zip(head.split_inclusive(|byte| *byte == b'\n')).take(LINES_BEFORE_HEADER_MAX) {
        let rest = head.get(skip..)?;
        let candidates = DELIMITERS.into_iter().filter_map(|delimiter| Candidate::new(rest, is_whole, delimiter));
        let field_count = |candidate: &Candidate| candidate.first.iter().filter(|cell| names_field(cell)).count();
        let header = candidates
            .filter(|candidate| !candidate.precedes_json && field_count(candidate) >= FIELDS_OF_HEADER)
            .max_by_key(field_count);
        let text = without_mark(line).trim_ascii();
        if let Some(candidate) = header.filter(|_| !text.is_empty()) {
            return (nth > 1).then_some((Layout { delimiter: candidate.delimiter, skip, line: nth }, is_commented));
        }
        is_commented &= text.is_empty() || text.starts_with(b"#");
        skip += line.len();
    }
    None
}

/// Recognises the first line `sep=;` that Excel writes.
fn excel(head: &[u8]) -> Option<Layout> {
    let text = without_mark(head);
    let [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', delimiter, rest @ ..] = text else { return None };
    let line_end = match rest {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => return None,
    };
    let is_usable = (delimiter.is_ascii_punctuation() && *delimiter != b'"') || *delimiter == b'\t';
    let skip = head.len() - rest.len() + line_end;
    is_usable.then_some(Layout { delimiter: *delimiter, skip, line: 2 })
}

/// The first two rows, split by one delimiter.
struct Candidate {
    delimiter: u8,
    first: Vec<String>,
    second: Option<Vec<String>>,
    /// Number of cells in the first row that name a field of a ride, exactly or nearly.
    fields: usize,
    /// Whether JSON follows the first row, which is then a broken line of JSON.
    precedes_json: bool,
}

impl Candidate {
    /// Splits the first rows; `None` if the delimiter does not occur or the first row is not CSV.
    fn new(head: &[u8], is_whole: bool, delimiter: u8) -> Option<Self> {
        let mut rest = head;
        let mut rows = Rows::new(delimiter, 1);
        let first = next(&mut rows, &mut rest, is_whole)?;
        // A broken line of JSON, or of markup, has no cell that is exactly a field.
        let is_header = first.iter().filter(|cell| names_field(cell)).count() >= FIELDS_OF_HEADER;
        let is_markup = |cell: &String| !is_header && cell.contains(['{', '}', '<']);
        if first.len() < 2 || first.iter().any(|cell| is_markup(cell) || cell.len() > NAME_BYTES_MAX) {
            return None;
        }
        let precedes_json = starts_json(rest);
        let second = next(&mut rows, &mut rest, is_whole);
        let fields = first.iter().filter(|cell| is_field(cell)).count();
        Some(Self { delimiter, first, second, fields, precedes_json })
    }

    fn has_header(&self) -> bool {
        let values = self.first.iter().filter(|cell| is_value(cell)).count();
        if self.precedes_json {
            return false;
        }
        if self.fields > values {
            return true;
        }
        // Unknown names also make a header if a row of values follows.
        let is_name = |cell: &String| cell.chars().any(char::is_alphabetic);
        let has_values = |row: &Vec<String>| row.len() == self.first.len() && row.iter().any(|cell| is_value(cell));
        values == 0 && self.first.iter().skip(1).all(is_name) && self.second.as_ref().is_some_and(has_values)
    }

    /// Returns whether the second row, if any, has as many cells as the first.
    fn is_table(&self) -> bool {
        let is_row = |row: &Vec<String>| row.len() == self.first.len();
        !self.precedes_json && self.second.as_ref().is_none_or(is_row)
    }
}

/// Returns whether the text starts an object with a member, or an array of objects. A cell with such a text is in quotes.
fn starts_json(text: &[u8]) -> bool {
    let mut tokens = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    matches!((tokens.next(), tokens.next()), (Some(b'{'), Some(b'"')) | (Some(b'['), Some(b'{')))
}

/// Returns the trimmed cells of the next row that is not blank.
fn next(rows: &mut Rows, rest: &mut &[u8], is_whole: bool) -> Option<Vec<String>> {
    loop {
        let (length, is_complete) = rows.scan(rest).ok()?;
        *rest = rest.get(length..).unwrap_or_default();
        let ends_whole = !is_complete && is_whole && rows.end().ok()?;
        if !is_complete && !ends_whole {
            return None;
        }
        if !rows.is_blank() {
            let cell = |range| {
                text::trimmed(&String::from_utf8_lossy(rows.text().get::<std::ops::Range<usize>>(range)?))
                    .to_owned()
                    .into()
            };
            let cells = rows.ranges().filter_map(cell).collect();
            rows.clear();
            return Some(cells);
        }
        rows.clear();
    }
}

fn names_field(cell: &str) -> bool {
    FIELDS.iter().any(|field| cell.eq_ignore_ascii_case(field))
}

fn is_field(cell: &str) -> bool {
    names_field(cell) || near_miss(cell).is_some()
}

/// Returns whether a cell is a number or a time, which no column name is.
fn is_value(cell: &str) -> bool {
    text::number(cell).is_some() || StatusTime::read(cell).is_ok()
}
