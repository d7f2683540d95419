//! The refusals of a CSV document.

/// Why a document is no CSV that can be read without losing rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidCsv {
    /// The first line has values instead of column names.
    #[error(
        "the document looks like CSV without a header, since its first line holds {0:?}: the first line must name the columns, as in \
         name,statustime,latitude,longitude,distance,healthpoints,magicpoints,fieldservice"
    )]
    NoHeader(String),
    /// Lines that are not comments precede the header.
    #[error(
        "the header of the CSV seems to be on line {0}, below other text: remove the lines before it, or start each of them with #"
    )]
    LateHeader(u64),
    /// Every column name is in quotes that are not quotes in CSV.
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
    /// Too many columns, or a name that is too long.
    #[error("the CSV header on line {line} {why}")]
    Header { line: u64, why: String },
    /// A quoted cell is not closed at the end of the document.
    #[error(
        "the quote that opens a cell on line {line} of the CSV is never closed; close it, or double the quotes within a cell"
    )]
    OpenQuote { line: u64 },
    /// A quoted cell after a blank is not closed at the end of its line.
    #[error(
        "the quote that opens a cell on line {line} of the CSV, after a blank, is not closed on that line; close it, or remove the \
         blank before it"
    )]
    BrokenPadded { line: u64 },
    /// A quoted cell contains what looks like a row.
    #[error(
        "the quote that opens a cell on line {line} of the CSV is not closed before line {row}, which looks like another row; close \
         it, or double the quotes within a cell"
    )]
    RowInCell { line: u64, row: u64 },
    /// Text follows a closing quote.
    #[error(
        "line {line} of the CSV has text after the closing quote of a cell; double the quotes within a quoted cell, as in \
         \"the \"\"red\"\" one\""
    )]
    AfterQuote { line: u64 },
    /// A line has the cells of two rows.
    #[error(
        "line {line} of the CSV has {cells} cells where the header names {columns}: it looks like two rows on one line"
    )]
    TwoRows { line: u64, cells: u64, columns: usize },
    /// The text is not UTF-8.
    #[error(
        "line {line} of the CSV is not UTF-8 (byte {byte:#04x}); convert the file, as in: iconv -f WINDOWS-1252 -t UTF-8, or save it \
         as \"CSV UTF-8\""
    )]
    NotUtf8 { line: u64, byte: u8 },
}

impl InvalidCsv {
    /// Returns the stable code of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoHeader(_) | Self::LateHeader(_) => "not_a_batch",
            _ => "invalid_csv",
        }
    }
}
