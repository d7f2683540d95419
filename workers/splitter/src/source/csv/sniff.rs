//! Whether a text is CSV, by its first lines, and what separates its cells.

use super::{InvalidCsv, NAME_BYTES_MAX, rows::Rows};
use crate::source::{HEAD_BYTES, format::without_mark};
use common::{
    reading::{FIELDS, near_miss},
    ride::StatusTime,
    text::{self, shorten},
};

const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// A row with this many cells that are exactly fields of a ride is a header, whatever its other cells hold.
const FIELDS_OF_HEADER: usize = 3;

/// Lines before a header at most, for it to be found.
const LINES_BEFORE_HEADER_MAX: usize = 20;

/// How the rows of a document are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) struct Layout {
    pub delimiter: u8,
    /// Bytes before the header that are no row.
    pub skip: usize,
    /// The line of the header, from 1.
    pub line: u64,
}

/// The layout, if the document is CSV with a header; `head` holds its first [`HEAD_BYTES`], or all of it.
///
/// # Errors
/// If it is CSV without a header, or with other text than comments before it.
pub(in crate::source) fn sniff(head: &[u8]) -> Result<Option<Layout>, InvalidCsv> {
    let is_whole = head.len() < HEAD_BYTES;
    let first = without_mark(head).trim_ascii_start().first();
    if matches!(first, None | Some(b'[' | b'{' | b'<' | 0x1E)) {
        return Ok(None);
    }
    if let Some(layout) = excel(head) {
        return Ok(Some(layout));
    }
    let looks = DELIMITERS.into_iter().filter_map(|delimiter| Look::at(head, is_whole, delimiter));
    let best = looks.max_by_key(|look| (look.known, look.first.len()));
    if let Some(best) = best.as_ref().filter(|best| best.has_header()) {
        return Ok(Some(Layout { delimiter: best.delimiter, skip: 0, line: 1 }));
    }
    if let Some((layout, is_commented)) = below(head, is_whole) {
        return if is_commented { Ok(Some(layout)) } else { Err(InvalidCsv::LateHeader(layout.line)) };
    }
    let Some(best) = best else { return Ok(None) };
    match best.first.iter().find(|cell| is_value(cell)) {
        Some(value) if best.is_table() => Err(InvalidCsv::NoHeader(shorten(value, 60).into_owned())),
        _ => Ok(None),
    }
}

/// The layout of a header that stands below other lines, and whether all of these are comments that start with `#`. Such a
/// header has several cells that are exactly fields of a ride.
fn below(head: &[u8], is_whole: bool) -> Option<(Layout, bool)> {
    let (mut skip, mut is_commented) = (0, true);
    for (nth, line) in (1..).zip(head.split_inclusive(|byte| *byte == b'\n')).take(LINES_BEFORE_HEADER_MAX) {
        let rest = head.get(skip..)?;
        let looks = DELIMITERS.into_iter().filter_map(|delimiter| Look::at(rest, is_whole, delimiter));
        let fields = |look: &Look| look.first.iter().filter(|cell| names_field(cell)).count();
        let header = looks.filter(|look| !look.precedes_json && fields(look) >= FIELDS_OF_HEADER).max_by_key(fields);
        let text = without_mark(line).trim_ascii();
        if let Some(look) = header.filter(|_| !text.is_empty()) {
            return (nth > 1).then_some((Layout { delimiter: look.delimiter, skip, line: nth }, is_commented));
        }
        is_commented &= text.is_empty() || text.starts_with(b"#");
        skip += line.len();
    }
    None
}

/// Excel's own first line: `sep=;`.
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

/// The first two rows, with one delimiter.
struct Look {
    delimiter: u8,
    first: Vec<String>,
    second: Option<Vec<String>>,
    /// Cells of the first row that name a field of a ride, exactly or nearly.
    known: usize,
    /// JSON follows the first row, which then is a broken line of JSON.
    precedes_json: bool,
}

impl Look {
    /// `None` if the delimiter separates nothing, or the first row is not a row of CSV.
    fn at(head: &[u8], is_whole: bool, delimiter: u8) -> Option<Self> {
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
        let known = first.iter().filter(|cell| is_field(cell)).count();
        Some(Self { delimiter, first, second, known, precedes_json })
    }

    fn has_header(&self) -> bool {
        let values = self.first.iter().filter(|cell| is_value(cell)).count();
        if self.precedes_json {
            return false;
        }
        if self.known > values {
            return true;
        }
        // None of the names is known, yet all are names, and a row of values follows.
        let is_name = |cell: &String| cell.chars().any(char::is_alphabetic);
        let has_values = |row: &Vec<String>| row.len() == self.first.len() && row.iter().any(|cell| is_value(cell));
        values == 0 && self.first.iter().skip(1).all(is_name) && self.second.as_ref().is_some_and(has_values)
    }

    /// Whether the second row, where there is one, has as many cells as the first.
    fn is_table(&self) -> bool {
        let is_row = |row: &Vec<String>| row.len() == self.first.len();
        !self.precedes_json && self.second.as_ref().is_none_or(is_row)
    }
}

/// Whether an object with a member, or an array of objects, begins here. A cell that holds such a text is in quotes.
fn starts_json(text: &[u8]) -> bool {
    let mut tokens = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    matches!((tokens.next(), tokens.next()), (Some(b'{'), Some(b'"')) | (Some(b'['), Some(b'{')))
}

/// The next row that is no blank line, its cells trimmed.
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

/// Whether a cell is a number or a time, as no column is named.
fn is_value(cell: &str) -> bool {
    text::number(cell).is_some() || StatusTime::read(cell).is_ok()
}
