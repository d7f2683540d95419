//! Encodes rides as Parquet: typed columns, null for missing values, row groups of a bounded size.

use crate::notebook::{
    dataset::{FIELDS, Rows},
    dictionary::{self, columns, parquet_type},
};
use bytes::Bytes;
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    errors::Result,
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};
use records::datasets::{COLUMNS, Column, Kind};
use std::{io::Write, sync::Arc};

/// Number of rides per row group; only the last one is smaller.
const ROW_GROUP_ROWS: usize = 100_000;

/// Writer of a Parquet file.
pub(super) struct ParquetFile<W: Write + Send> {
    file: SerializedFileWriter<W>,
    group_rows: usize,
    pending: PendingRows,
}

/// Rides of the next row group, column by column.
#[derive(Default)]
struct PendingRows {
    batch_ids: Vec<ByteArray>,
    /// By column of a dataset file; empty for columns that are not text.
    texts: [Vec<Bytes>; FIELDS],
    /// By column of a dataset file; empty for columns that are not numeric.
    numbers: [Vec<f64>; FIELDS],
    times: Vec<i64>,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Starts a file. Its metadata contain the batch ids and the data dictionary.
    pub(super) fn start(writer: W, batches: &[&str]) -> Result<Self> {
        Self::start_with(writer, batches, ROW_GROUP_ROWS)
    }

    fn start_with(writer: W, batches: &[&str], group_rows: usize) -> Result<Self> {
        let schema = parse_message_type(&schema())?;
        let pair = |key: &str, value: String| KeyValue::new(format!("wildrydes.{key}"), value);
        // Values of these columns hardly ever repeat: a dictionary would be built and discarded.
        let distinct_columns = ["ride_id", "statustime"].map(ColumnPath::from);
        let properties = distinct_columns
            .into_iter()
            .fold(WriterProperties::builder(), |builder, path| builder.set_column_dictionary_enabled(path, false))
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![
                pair("dictionary", dictionary::as_json().to_string()),
                pair("batches", serde_json::json!(batches).to_string()),
            ]))
            .build();
        let file = SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { file, group_rows, pending: PendingRows::default() })
    }

    /// Adds some rows.
    pub(super) fn add(&mut self, batch_id: &str, rows: &Rows, kept: &[usize]) -> Result<()> {
        let batch_id = ByteArray::from(Bytes::copy_from_slice(batch_id.as_bytes()));
        let mut left = kept;
        while !left.is_empty() {
            let room = self.group_rows - self.pending.times.len();
            let (fitting, rest) = left.split_at(room.min(left.len()));
            self.pending.add(&batch_id, rows, fitting);
            left = rest;
            if self.pending.times.len() == self.group_rows {
                self.write_group()?;
            }
        }
        Ok(())
    }

    /// Writes the last row group and the end of the file.
    pub(super) fn end(mut self) -> Result<()> {
        if !self.pending.times.is_empty() {
            self.write_group()?;
        }
        let mut writer = self.file.into_inner()?;
        Ok(writer.flush()?)
    }

    fn write_group(&mut self) -> Result<()> {
        let PendingRows { batch_ids, texts, numbers, times } = std::mem::take(&mut self.pending);
        let mut group = self.file.next_row_group()?;
        write::<ByteArrayType>(&mut group, &batch_ids, None)?;
        for (column, (texts, mut values)) in COLUMNS.iter().zip(texts.into_iter().zip(numbers)) {
            match column.kind {
                Kind::Text => {
                    let levels = column.missing.map(|_| definition_levels(&texts, |text| !text.is_empty()));
                    let texts = texts.into_iter().filter(|text| levels.is_none() || !text.is_empty());
                    write::<ByteArrayType>(&mut group, &texts.map(ByteArray::from).collect::<Vec<_>>(), levels)?;
                }
                Kind::Time => write::<Int64Type>(&mut group, &times, None)?,
                Kind::Number | Kind::Whole | Kind::Flag => {
                    let levels = column.missing.map(|_| definition_levels(&values, |value| !value.is_nan()));
                    values.retain(|value| !value.is_nan());
                    match column.kind {
                        Kind::Number => write::<DoubleType>(&mut group, &values, levels)?,
                        // These values were parsed as 32-bit integers.
                        _ => {
                            let values: Vec<_> = values.into_iter().map(|value| value as i32).collect();
                            write::<Int32Type>(&mut group, &values, levels)?;
                        }
                    }
                }
            }
        }
        group.close().map(drop)
    }
}

/// Returns Parquet's definition levels: 1 for a value, 0 for null.
fn definition_levels<T>(values: &[T], is_present: impl Fn(&T) -> bool) -> Vec<i16> {
    values.iter().map(|value| i16::from(is_present(value))).collect()
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
    levels: Option<Vec<i16>>,
) -> Result<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, levels.as_deref(), None)?;
        column.close()?;
    }
    Ok(())
}

impl PendingRows {
    fn add(&mut self, batch_id: &ByteArray, rows: &Rows, kept: &[usize]) {
        // A slice of the piece keeps all of it in memory: if only few rows are kept, copy them instead.
        let few = kept.len() < rows.len() / 4;
        let text = |row, field| {
            if few { Bytes::copy_from_slice(rows.field(row, field)) } else { rows.field_bytes(row, field) }
        };
        self.batch_ids.extend(kept.iter().map(|_| batch_id.clone()));
        for (index, column) in COLUMNS.iter().enumerate() {
            match column.kind {
                Kind::Text => self.texts[index].extend(kept.iter().map(|&row| text(row, index))),
                Kind::Time => self.times.extend(kept.iter().map(|&row| rows.times[row])),
                _ => self.numbers[index].extend(kept.iter().map(|&row| rows.numbers[index][row])),
            }
        }
    }
}

/// Returns the columns in Parquet's notation.
fn schema() -> String {
    let column = |Column { name, kind, missing, .. }: &Column| {
        let (physical, logical) = parquet_type(*kind);
        let repetition = if missing.is_some() { "OPTIONAL" } else { "REQUIRED" };
        format!("{repetition} {physical} {name} {logical};\n")
    };
    format!("message rides {{\n{}}}", columns().map(column).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::dataset::rows_of;
    use parquet::{
        basic::{ConvertedType, Repetition},
        file::reader::{FileReader, SerializedFileReader},
        record::RowAccessor,
    };

    fn exported(rides: usize, group_rows: usize, kept: impl Fn(usize) -> bool) -> SerializedFileReader<Bytes> {
        let row = |ride| {
            let weather = if ride % 2 == 0 { "USW00094728,1.500000,-5,111,0" } else { ",,,," };
            format!("r-{ride},,Qilin,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292.25,,{weather}\n")
        };
        let rows = rows_of(&(0..rides).map(row).collect::<String>());
        let kept: Vec<_> = (0..rides).filter(|&row| kept(row)).collect();
        let mut bytes = Vec::new();
        let mut parquet = ParquetFile::start_with(&mut bytes, &["a batch"], group_rows).unwrap();
        parquet.add("a batch", &rows, &kept).unwrap();
        parquet.end().unwrap();
        SerializedFileReader::new(Bytes::from(bytes)).unwrap()
    }

    #[test]
    fn row_groups_have_the_stated_number_of_rides() {
        for (rides, groups) in [(0, &[][..]), (10, &[10]), (25, &[10, 10, 5])] {
            let reader = exported(rides, 10, |_| true);
            let found: Vec<_> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
            assert_eq!(found, groups);
        }
    }

    #[test]
    fn only_kept_rows_are_written() {
        for every in [1, 3, 50] {
            let reader = exported(100, 7, |row| row % every == 0);
            let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
            let ids: Vec<_> = rows.map(|row| row.get_string(1).unwrap().clone()).collect();
            assert_eq!(ids, (0..100).step_by(every).map(|ride| format!("r-{ride}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn types_follow_the_dictionary_and_missing_values_are_null() {
        let reader = exported(2, 10, |_| true);
        for (found, column) in reader.metadata().file_metadata().schema_descr().columns().iter().zip(columns()) {
            assert_eq!(found.name(), column.name);
            let of_text = |kind| if kind == Kind::Text { ConvertedType::UTF8 } else { ConvertedType::NONE };
            let converted =
                if column.kind == Kind::Time { ConvertedType::TIMESTAMP_MILLIS } else { of_text(column.kind) };
            assert_eq!(found.converted_type(), converted, "{}", column.name);
            let optional = found.self_type().get_basic_info().repetition() == Repetition::OPTIONAL;
            assert_eq!(optional, column.missing.is_some(), "{}", column.name);
        }
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        let nulls = |row: &parquet::record::Row| {
            columns()
                .enumerate()
                .filter(|(index, _)| row.is_null(*index).unwrap())
                .map(|(_, column)| column.name)
                .collect()
        };
        let found: [Vec<_>; 2] = [nulls(&rows[0]), nulls(&rows[1])];
        let weather = ["groundstation", "station_km", "tmin", "tmax", "prcp"];
        assert_eq!(found[0], ["name", "fieldservice"]);
        assert_eq!(found[1], [&["name", "fieldservice"][..], &weather].concat());
        assert_eq!((rows[0].get_int(13).unwrap(), rows[0].get_double(12).unwrap()), (-5, 1.5));
    }
}
