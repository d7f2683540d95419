//! Parses the records of a dataset file, field by field.

use super::columns::{COLUMNS, Column, Kind, RIDE_ID};
use common::ride::StatusTime;
use csv::ByteRecord;
use std::io::{Chain, Read};

/// Why a dataset file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The header line has no such column.
    #[error("the header line has no column {0}")]
    MissingColumn(&'static str),
    /// The file has no header line.
    #[error("the file has no header line")]
    MissingHeader,
    /// The file is not CSV, or a record has too few or too many fields.
    #[error("{0}")]
    Csv(String),
    /// A field has a value that its column does not allow.
    #[error("ride {ride_id:?}: {column} is {value:?}, expected {expected}")]
    Field {
        /// Invalid UTF-8 is replaced.
        ride_id: String,
        /// Name in the header line.
        column: &'static str,
        /// Value in the file.
        value: String,
        /// Allowed values.
        expected: &'static str,
    },
}

impl From<csv::Error> for RowError {
    fn from(error: csv::Error) -> Self {
        Self::Csv(error.to_string())
    }
}

/// Positions of the columns in the records of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Number of fields of a record.
    fields: usize,
    positions: [usize; COLUMNS.len()],
}

/// The header line that [`encode::header`](super::encode::header) returns.
impl Default for Header {
    fn default() -> Self {
        Self { fields: COLUMNS.len(), positions: std::array::from_fn(|column| column) }
    }
}

impl Header {
    /// Finds the columns in a header line, in any order and maybe among others.
    ///
    /// # Errors
    /// Fails if the line is empty or a column is missing.
    pub fn parse(line: &[u8]) -> Result<Self, RowError> {
        let mut names = ByteRecord::new();
        if !reader(line).read_byte_record(&mut names)? {
            return Err(RowError::MissingHeader);
        }
        let mut positions = [0; COLUMNS.len()];
        for (position, column) in positions.iter_mut().zip(&COLUMNS) {
            let found = names.iter().position(|name| name == column.name.as_bytes());
            *position = found.ok_or(RowError::MissingColumn(column.name))?;
        }
        Ok(Self { fields: names.len(), positions })
    }
}

/// The records of a block, one after the other.
pub struct Records<'a> {
    header: &'a Header,
    reader: csv::Reader<Chain<&'static [u8], &'a [u8]>>,
    record: ByteRecord,
    count: u64,
}

/// One ride of a dataset.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    header: &'a Header,
    fields: &'a ByteRecord,
}

impl<'a> Records<'a> {
    /// Reads the records of a block, which has no header line.
    pub fn new(header: &'a Header, block: &'a [u8]) -> Self {
        // A byte order mark at the start of a block is part of a ride's id: the empty line before it keeps the reader from skipping it.
        Self { header, reader: reader((&b"\n"[..]).chain(block)), record: ByteRecord::new(), count: 0 }
    }

    /// Returns the next record; `None` at the end of the block.
    ///
    /// # Errors
    /// Fails if the record has too few or too many fields. The next call reads the record after it.
    pub fn read(&mut self) -> Result<Option<Record<'_>>, RowError> {
        if !self.reader.read_byte_record(&mut self.record)? {
            return Ok(None);
        }
        self.count += 1;
        let (fields, expected) = (self.record.len(), self.header.fields);
        if fields != expected {
            return Err(RowError::Csv(format!("a record has {fields} fields, its header {expected}")));
        }
        Ok(Some(Record { header: self.header, fields: &self.record }))
    }

    /// Returns the number of records read.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// The methods take the index of a column in [`COLUMNS`].
impl<'a> Record<'a> {
    /// Returns an unquoted field, unchecked; empty if there is no value.
    pub fn field(self, column: usize) -> &'a [u8] {
        self.fields.get(self.header.positions[column]).unwrap_or_default()
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Fails if it is not UTF-8, or is empty although its column always has a value.
    pub fn text(self, column: usize) -> Result<&'a str, RowError> {
        self.present(column)?;
        std::str::from_utf8(self.field(column)).map_err(|_| self.invalid(column, "UTF-8"))
    }

    /// Reads a time.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn time(self, column: usize) -> Result<StatusTime, RowError> {
        self.present(column)?;
        let time = std::str::from_utf8(self.field(column)).ok().and_then(|text| text.parse().ok());
        time.ok_or_else(|| self.invalid(column, "YYYY-MM-DD HH:MM:SS.fff"))
    }

    /// Reads a number, whole number or flag (0 or 1), in the unit of its column; finite. Returns `None` if it is missing.
    ///
    /// # Errors
    /// Fails on another value, or if the value is missing although its column always has one.
    pub fn number(self, column: usize) -> Result<Option<f64>, RowError> {
        if !self.present(column)? {
            return Ok(None);
        }
        let kind = COLUMNS[column].kind;
        let text = std::str::from_utf8(self.field(column)).unwrap_or_default();
        let number = match kind {
            Kind::Flag => ["0", "1"].iter().position(|flag| *flag == text).map(|flag| flag as f64),
            Kind::Whole => text.parse::<i32>().ok().map(f64::from),
            _ => text.parse::<f64>().ok().filter(|number| number.is_finite()),
        };
        number.map(Some).ok_or_else(|| self.invalid(column, kind.name()))
    }

    /// Returns the error of a field that does not have the value that its column or its record requires.
    pub fn invalid(self, column: usize, expected: &'static str) -> RowError {
        let text = |column| String::from_utf8_lossy(self.field(column)).into_owned();
        RowError::Field { ride_id: text(RIDE_ID), column: COLUMNS[column].name, value: text(column), expected }
    }

    /// Returns whether a field has a value; fails if its column always has one.
    fn present(self, column: usize) -> Result<bool, RowError> {
        let Column { kind, missing, .. } = COLUMNS[column];
        match self.field(column) {
            b"" if missing.is_none() => Err(self.invalid(column, kind.name())),
            value => Ok(!value.is_empty()),
        }
    }
}

fn reader<R: Read>(input: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(1 << 16).from_reader(input)
}

/// Returns the offset after the line end of each record. A quoted field may contain line ends.
pub(super) fn record_ends(csv: &[u8]) -> impl Iterator<Item = usize> {
    let mut is_quoted = false;
    csv.iter().enumerate().filter_map(move |(at, byte)| {
        is_quoted ^= *byte == b'"';
        (*byte == b'\n' && !is_quoted).then_some(at + 1)
    })
}
