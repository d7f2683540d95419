//! Reads the rows of a Parquet file by row group, some rows at a time.

use super::{
    error::InvalidParquet,
    pages::{self, CheckedPages},
    spool::Spooled,
    thrift,
    value::{Kind, Value, write_json},
};
use crate::source::{
    error::ReadError,
    limits::{Limits, RATIO_GRACE_BYTES},
};
use bytes::Bytes;
use common::text::shorten;
use parquet::{
    basic::{Compression, Encoding},
    column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader},
    data_type::DataType,
    errors::ParquetError,
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader},
        reader::Length,
        serialized_reader::SerializedPageReader,
    },
};
use std::{collections::VecDeque, sync::Arc};

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED_MAGIC: &[u8; 4] = b"PARE";
/// Size of the footer's length and of the magic number after it, bytes.
const TAIL_BYTES: u64 = 8;
/// Maximum padding after the magic number, bytes.
const PADDING_BYTES_MAX: u64 = 1024;
/// Maximum size of the footer, bytes.
const FOOTER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Maximum number of elements in all lists of the footer: about ten for each column of each row group.
const FOOTER_ELEMENTS_MAX: usize = 1_000_000;
/// Maximum memory for the pages of all columns, bytes.
const PAGES_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Maximum number of rows read at a time.
const ROWS_MAX: usize = 1024;

/// A reader of the rows.
pub(super) struct Rows {
    file: Arc<Spooled>,
    metadata: ParquetMetaData,
    limits: Limits,
    /// Index of the next row group.
    group: usize,
    rows_left: u64,
    columns: Vec<Column>,
    /// Rows that were read but not returned.
    buffered: VecDeque<Vec<Value>>,
    bytes_returned: u64,
}

/// A flat column of the row group.
struct Column {
    name: String,
    /// `"name":`
    key: Vec<u8>,
    kind: Kind,
    reader: ColumnReader,
}

impl Rows {
    /// Reads the footer.
    pub fn open(file: Spooled, limits: Limits) -> Result<Self, InvalidParquet> {
        let metadata = footer(&file)?;
        let rows = Self {
            file: Arc::new(file),
            metadata,
            limits,
            group: 0,
            rows_left: 0,
            columns: Vec::new(),
            buffered: VecDeque::new(),
            bytes_returned: 0,
        };
        let schema = rows.metadata.file_metadata().schema_descr();
        if !schema.columns().iter().any(|column| column.path().parts().len() == 1) {
            let (what, advice) =
                ("no column that is not nested".to_owned(), "write one column for each field of a ride");
            return Err(InvalidParquet::Unsupported { what, advice });
        }
        Ok(rows)
    }

    /// Returns the next lines, of about `bytes` in total; empty after the last row.
    pub fn lines(&mut self, bytes: usize) -> Result<Bytes, ReadError> {
        let mut lines = Vec::new();
        while lines.len() < bytes {
            if self.buffered.is_empty() && !self.read_more()? {
                break;
            }
            if let Some(row) = self.buffered.pop_front() {
                write_row(&mut lines, &self.columns, &row);
            }
        }
        self.bytes_returned = self.bytes_returned.saturating_add(lines.len() as u64);
        let allowed = RATIO_GRACE_BYTES.max(self.file.len().saturating_mul(self.limits.expansion_max));
        if self.bytes_returned > allowed {
            return Err(ReadError::Expands(format!("{} times its size", self.limits.expansion_max)));
        }
        Ok(Bytes::from(lines))
    }

    /// Reads some rows. Returns whether there are any.
    fn read_more(&mut self) -> Result<bool, InvalidParquet> {
        while self.rows_left == 0 {
            if self.group >= self.metadata.num_row_groups() {
                return Ok(false);
            }
            self.open_group()?;
        }
        let count = usize::try_from(self.rows_left).unwrap_or(usize::MAX).min(ROWS_MAX);
        let mut rows = vec![Vec::with_capacity(self.columns.len()); count];
        for column in &mut self.columns {
            let values = column.read(count)?;
            if values.len() != count {
                let why = format!("column {:?} has fewer values than its row group has rows", column.name);
                return Err(InvalidParquet::Broken(why));
            }
            for (row, value) in rows.iter_mut().zip(values) {
                row.push(value);
            }
        }
        self.rows_left -= count as u64;
        self.buffered.extend(rows);
        Ok(true)
    }

    /// Opens the columns of the next row group.
    fn open_group(&mut self) -> Result<(), InvalidParquet> {
        let group = self.metadata.row_group(self.group);
        self.group += 1;
        let rows = u64::try_from(group.num_rows())
            .map_err(|_| InvalidParquet::Broken("a row group has a negative number of rows".to_owned()))?;
        let mut columns = Vec::new();
        let mut bytes = 0;
        for chunk in group.columns() {
            let description = chunk.column_descr_ptr();
            let (nested, repeated) = (description.path().parts().len() > 1, description.max_rep_level() > 0);
            let Some(kind) = Kind::of(&description).filter(|_| !nested && !repeated) else { continue };
            check_readable(chunk)?;
            bytes += pages::bytes_in_memory(&self.file, chunk)?;
            if bytes > PAGES_BYTES_MAX {
                let what = format!("pages of more than {PAGES_BYTES_MAX} bytes in all in one row group");
                return Err(InvalidParquet::Unsupported { what, advice: "write it with smaller pages or row groups" });
            }
            let total_rows = usize::try_from(rows).unwrap_or(usize::MAX);
            let pages = SerializedPageReader::new(Arc::clone(&self.file), chunk, total_rows, None).map_err(broken)?;
            let name = description.name().to_owned();
            let mut key = Vec::new();
            write_json(&mut key, &name);
            key.push(b':');
            let reader = get_column_reader(description, Box::new(CheckedPages(Box::new(pages))));
            columns.push(Column { name, key, kind, reader });
        }
        self.rows_left = rows;
        self.columns = columns;
        Ok(())
    }
}

/// Reads the metadata at the end of the file and checks its sizes.
fn footer(file: &Spooled) -> Result<ParquetMetaData, InvalidParquet> {
    let cut_short = || InvalidParquet::CutShort(file.len());
    let read = |start, length| file.read(start, length).map_err(|error| InvalidParquet::Broken(error.to_string()));
    let tail_at = file
        .len()
        .checked_sub(padding(file)? + TAIL_BYTES)
        .filter(|at| *at >= MAGIC.len() as u64)
        .ok_or_else(cut_short)?;
    let tail = read(tail_at, TAIL_BYTES as usize)?;
    let [a, b, c, d, magic @ ..] = tail.as_ref() else { return Err(cut_short()) };
    if magic == ENCRYPTED_MAGIC {
        let what = "an encrypted footer".to_owned();
        return Err(InvalidParquet::Unsupported { what, advice: "write it without encryption" });
    }
    if magic != MAGIC {
        return Err(cut_short());
    }
    let length = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
    let start = tail_at.checked_sub(length).filter(|start| *start >= MAGIC.len() as u64);
    let start = start.ok_or_else(|| InvalidParquet::Broken("its footer is longer than the file".to_owned()))?;
    if length > FOOTER_BYTES_MAX {
        let what = format!("a footer of more than {FOOTER_BYTES_MAX} bytes");
        return Err(InvalidParquet::Unsupported { what, advice: "write fewer columns, or fewer row groups" });
    }
    let bytes = read(start, length as usize)?;
    if thrift::structure(&bytes, FOOTER_ELEMENTS_MAX).is_none() {
        return Err(InvalidParquet::Broken("its footer cannot be read".to_owned()));
    }
    ParquetMetaDataReader::decode_metadata(&bytes).map_err(broken)
}

/// Returns the number of blanks, line ends and zeros after the magic number, which editors and transports append.
fn padding(file: &Spooled) -> Result<u64, InvalidParquet> {
    let start = file.len().saturating_sub(PADDING_BYTES_MAX);
    let end =
        file.read(start, PADDING_BYTES_MAX as usize).map_err(|error| InvalidParquet::Broken(error.to_string()))?;
    let is_padding = |byte: &u8| matches!(byte, 0 | b' ' | b'\t' | b'\r' | b'\n');
    Ok(end.iter().rev().take_while(|byte| is_padding(byte)).count() as u64)
}

/// Checks that the compression and encoding of a column are supported.
fn check_readable(chunk: &ColumnChunkMetaData) -> Result<(), InvalidParquet> {
    let column = chunk.column_path().string();
    match chunk.compression() {
        Compression::UNCOMPRESSED
        | Compression::SNAPPY
        | Compression::GZIP(_)
        | Compression::BROTLI(_)
        | Compression::ZSTD(_) => {}
        other => {
            let name = format!("{other}");
            let what = format!("column {column:?} compressed with {}", name.split('(').next().unwrap_or(&name));
            return Err(InvalidParquet::Unsupported { what, advice: "write it with snappy, zstd or gzip" });
        }
    }
    let is_unsupported =
        |encoding: &Encoding| matches!(encoding, Encoding::DELTA_BYTE_ARRAY | Encoding::DELTA_LENGTH_BYTE_ARRAY);
    match chunk.encodings().find(is_unsupported) {
        None => Ok(()),
        Some(encoding) => {
            let what = format!("column {column:?} encoded as {encoding}");
            Err(InvalidParquet::Unsupported {
                what,
                advice: "write it with plain or dictionary encoding (format version 1)",
            })
        }
    }
}

impl Column {
    /// Reads the next `count` values; fewer at the end of the row group.
    fn read(&mut self, count: usize) -> Result<Vec<Value>, InvalidParquet> {
        let (kind, name) = (self.kind, self.name.as_str());
        match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => read(reader, count, |value| Ok(Value::Bool(*value))),
            ColumnReader::Int32ColumnReader(reader) => read(reader, count, |value| Ok(Value::of_i32(kind, *value))),
            ColumnReader::Int64ColumnReader(reader) => read(reader, count, |value| Ok(Value::of_i64(kind, *value))),
            ColumnReader::Int96ColumnReader(reader) => read(reader, count, |value| Ok(Value::of_int96(value))),
            ColumnReader::FloatColumnReader(reader) => read(reader, count, |value| Ok(Value::Single(*value))),
            ColumnReader::DoubleColumnReader(reader) => read(reader, count, |value| Ok(Value::Double(*value))),
            ColumnReader::ByteArrayColumnReader(reader) => {
                read(reader, count, |value| Value::of_bytes(kind, value, name))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                read(reader, count, |value| Value::of_fixed(kind, value, name))
            }
        }
    }
}

/// Reads values, with a null for each missing one.
fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    value: impl Fn(&T::T) -> Result<Value, InvalidParquet>,
) -> Result<Vec<Value>, InvalidParquet> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (rows, present, _) = reader.read_records(count, Some(&mut levels), None, &mut values).map_err(broken)?;
    let mut present = values.iter().take(present).map(value);
    if levels.is_empty() {
        return present.collect();
    }
    let row = |level: &i16| if *level == 0 { Ok(Value::Null) } else { present.next().unwrap_or(Ok(Value::Null)) };
    levels.iter().take(rows).map(row).collect()
}

fn write_row(lines: &mut Vec<u8>, columns: &[Column], row: &[Value]) {
    lines.push(b'{');
    let start = lines.len();
    for (column, value) in columns.iter().zip(row).filter(|(_, value)| !value.is_null()) {
        if lines.len() > start {
            lines.push(b',');
        }
        lines.extend_from_slice(&column.key);
        value.write(lines);
    }
    lines.extend_from_slice(b"}\n");
}

fn broken(error: ParquetError) -> InvalidParquet {
    let text = error.to_string();
    let text = text.strip_prefix("Parquet error: ").unwrap_or(&text);
    InvalidParquet::Broken(shorten(text, 200).into_owned())
}
