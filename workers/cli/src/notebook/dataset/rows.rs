//! Parses a dataset file into rows, column by column, and checks values by the dictionary.

use crate::notebook::dictionary::{Column, FIELDS, Kind, NUMBERS, field, fields, number};
use bytes::Bytes;
use common::{dataset::COLUMNS, features::FEATURES, ride::StatusTime};
use csv::ByteRecord;
use jiff::{SignedDuration, civil::DateTime};
use std::io::Read;

/// Maximum number of rows of one piece.
const ROWS_AT_ONCE: usize = 8_192;
/// Number of bytes of the fields after which a piece ends.
const BYTES_AT_ONCE: usize = 4 * 1024 * 1024;

/// The origin of [`Rows::times`].
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Why a dataset file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    /// The header line is wrong.
    #[error("its header line is {found:?}, expected {:?}", COLUMNS.join(","))]
    Header {
        /// The header line of the file.
        found: String,
    },
    /// The file is not CSV, or a record has too few or too many fields.
    #[error("{0}")]
    Csv(String),
    /// A field has an invalid value for its column.
    #[error("ride {ride_id:?}: {column} is {value:?}, expected {expected}")]
    Field {
        /// The ride, as far as it can be read.
        ride_id: String,
        /// The column.
        column: &'static str,
        /// The value in the file.
        value: String,
        /// The expected form.
        expected: &'static str,
    },
}

/// Consecutive rows of a dataset file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    /// The fields, unquoted, one after the other.
    text: Bytes,
    /// End of each field in `text`.
    ends: Vec<usize>,
    /// The values of each numeric column of the dictionary; NaN if missing.
    pub(crate) numbers: [Vec<f64>; NUMBERS],
    /// Milliseconds since 1970, UTC.
    pub(crate) times: Vec<i64>,
}

impl Rows {
    fn new() -> Self {
        Self { text: Bytes::new(), ends: Vec::new(), numbers: Default::default(), times: Vec::new() }
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// Returns an unquoted field; UTF-8, empty if there is no value.
    pub(crate) fn field(&self, row: usize, field: usize) -> &[u8] {
        let (start, end) = self.range(row, field);
        self.text.get(start..end).unwrap_or_default()
    }

    /// Returns an unquoted field without a copy.
    pub(crate) fn field_bytes(&self, row: usize, field: usize) -> Bytes {
        let (start, end) = self.range(row, field);
        self.text.slice(start..end)
    }

    fn range(&self, row: usize, field: usize) -> (usize, usize) {
        let at = row * FIELDS + field;
        (if at == 0 { 0 } else { self.ends[at - 1] }, self.ends[at])
    }

    /// Returns the value of a numeric column; `None` if it is missing.
    pub(crate) fn number(&self, row: usize, number: usize) -> Option<f64> {
        Some(self.numbers[number][row]).filter(|value| !value.is_nan())
    }

    /// Returns whether the ride ended in a service request; `None` if that is unknown.
    pub(crate) fn label(&self, row: usize) -> Option<bool> {
        self.number(row, number::FIELDSERVICE).map(|label| label != 0.0)
    }

    /// Returns whether the ride has weather.
    pub(crate) fn has_weather(&self, row: usize) -> bool {
        [number::TMIN, number::TMAX, number::PRCP].iter().all(|&element| self.number(row, element).is_some())
    }

    /// Returns whether the ride can be trained on: it has label and weather, and every value is within the limits.
    pub(crate) fn is_trainable(&self, row: usize) -> bool {
        self.label(row).is_some()
            && self.has_weather(row)
            && (FEATURES.iter().zip(number::FEATURES))
                .all(|(feature, column)| self.numbers[column][row].abs() <= feature.trained_max)
    }
}

/// Parses a dataset file and passes its rows to `each`, piece by piece, until that returns `false`. Returns the number of
/// rides read.
///
/// # Errors
/// Fails if it is not a dataset file or if a value is invalid for its column; then the error names the ride.
pub(crate) fn parse(input: impl Read, mut each: impl FnMut(Rows) -> bool) -> Result<u64, RowError> {
    let csv = |error: csv::Error| RowError::Csv(error.to_string());
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(1 << 18).from_reader(input);
    let mut record = ByteRecord::new();
    reader.read_byte_record(&mut record).map_err(csv)?;
    if record.iter().ne(COLUMNS.iter().map(|name| name.as_bytes())) {
        let found: Vec<_> = record.iter().map(String::from_utf8_lossy).collect();
        return Err(RowError::Header { found: found.join(",") });
    }
    let columns: Vec<(usize, &Column)> =
        fields().iter().enumerate().filter(|(_, column)| column.kind.is_number()).collect();
    let mut rides = 0;
    let (mut rows, mut text) = (Rows::new(), Vec::new());
    while reader.read_byte_record(&mut record).map_err(csv)? {
        if record.len() != FIELDS {
            let found = record.len();
            return Err(RowError::Csv(format!("a record has {found} fields, its header {FIELDS}")));
        }
        for (index, column) in fields().iter().enumerate() {
            let value = &record[index];
            let time = check(&record, column, value)?;
            rows.times.extend(time);
            text.extend_from_slice(value);
            rows.ends.push(text.len());
        }
        for (values, (index, column)) in rows.numbers.iter_mut().zip(&columns) {
            values.push(read_number(&record, column, &record[*index])?);
        }
        rides += 1;
        if rows.len() >= ROWS_AT_ONCE || text.len() >= BYTES_AT_ONCE {
            rows.text = std::mem::take(&mut text).into();
            if !each(std::mem::replace(&mut rows, Rows::new())) {
                return Ok(rides);
            }
        }
    }
    rows.text = text.into();
    if rows.len() > 0 {
        each(rows);
    }
    Ok(rides)
}

/// Checks that a text is UTF-8 and that a mandatory value exists. Returns the milliseconds of a time.
fn check(record: &ByteRecord, column: &Column, value: &[u8]) -> Result<Option<i64>, RowError> {
    if value.is_empty() && column.missing.is_none() {
        return Err(invalid(record, column, value, column.kind.name()));
    }
    match column.kind {
        Kind::Text if std::str::from_utf8(value).is_err() => Err(invalid(record, column, value, "UTF-8")),
        Kind::Time => {
            let time = std::str::from_utf8(value).ok().and_then(|text| text.parse::<StatusTime>().ok());
            let time = time.ok_or_else(|| invalid(record, column, value, "YYYY-MM-DD HH:MM:SS.fff"))?;
            // Years of four digits fit into 64 bits of milliseconds.
            Ok(Some(i64::try_from(time.datetime().duration_since(EPOCH).as_millis()).unwrap_or(i64::MAX)))
        }
        _ => Ok(None),
    }
}

fn read_number(record: &ByteRecord, column: &Column, value: &[u8]) -> Result<f64, RowError> {
    if value.is_empty() {
        return Ok(f64::NAN);
    }
    let text = std::str::from_utf8(value).unwrap_or_default();
    let read = match column.kind {
        Kind::Flag => ["0", "1"].iter().position(|&flag| flag == text).map(|flag| flag as f64),
        Kind::Whole => text.parse::<i32>().ok().map(f64::from),
        _ => text.parse::<f64>().ok().filter(|number| number.is_finite()),
    };
    read.ok_or_else(|| invalid(record, column, value, column.kind.name()))
}

fn invalid(record: &ByteRecord, column: &Column, value: &[u8], expected: &'static str) -> RowError {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ride_id = text(record.get(field::RIDE_ID).unwrap_or_default());
    RowError::Field { ride_id, column: column.name, value: text(value), expected }
}

/// Converts milliseconds since 1970, UTC; `None` outside the range of dates.
pub(crate) fn moment_of(millis: i64) -> Option<StatusTime> {
    EPOCH.checked_add(SignedDuration::from_millis(millis)).ok().map(StatusTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::dictionary::numbers;
    use proptest::prelude::*;

    const RIDE: &str =
        "a-0,Twilight,Qilin,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,1,USW00094728,20.700000,111,156,241\n";

    fn read(records: &str) -> Result<Vec<Rows>, RowError> {
        let file = format!("{}\n{records}", COLUMNS.join(","));
        let mut all = Vec::new();
        let rides = parse(file.as_bytes(), |rows| {
            all.push(rows);
            true
        })?;
        assert_eq!(rides, all.iter().map(|rows| rows.len() as u64).sum::<u64>());
        Ok(all)
    }

    #[test]
    fn every_value_is_read_and_missing_ones_are_none() {
        let bare = "a-1,\"Line\nend, \"\"quoted\"\"\",,1969-12-31 23:59:59.999,40.6,-74.1,29.5,291,292.25,,,,,,\n";
        let rows = read(&format!("{RIDE}{bare}")).unwrap().pop().unwrap();
        assert_eq!(rows.len(), 2);
        let of = |row| numbers().enumerate().map(move |(place, _)| (row, place));
        let first: Vec<_> = of(0).map(|(row, place)| rows.number(row, place)).collect();
        let expected = [40.6, -74.1, 29.5, 291.0, 292.0, 1.0, 20.7, 111.0, 156.0, 241.0];
        assert_eq!(first, expected.map(Some));
        let second: Vec<_> = of(1).map(|(row, place)| rows.number(row, place)).collect();
        let none = [None; 5];
        assert_eq!(second, [&[40.6, -74.1, 29.5, 291.0, 292.25].map(Some)[..], &none].concat());
        assert_eq!(rows.times, [1_524_675_785_722, -1]);
        assert_eq!(rows.field(1, field::NAME), b"Line\nend, \"quoted\"");
        assert_eq!(rows.field_bytes(0, field::BREED), "Qilin");
        assert_eq!((rows.label(0), rows.label(1)), (Some(true), None));
        assert_eq!((rows.is_trainable(0), rows.is_trainable(1)), (true, false));
        assert_eq!(moment_of(rows.times[0]).unwrap().to_string(), "2018-04-25 17:03:05.722");
    }

    #[test]
    fn invalid_field_is_reported_with_ride_and_column() {
        for (from, to, expected) in [
            (",1,USW", ",2,USW", r#"ride "a-0": fieldservice is "2", expected 0 or 1"#),
            (",111,", ",11.5,", r#"ride "a-0": tmin is "11.5", expected whole number"#),
            (",29.5,", ",inf,", r#"ride "a-0": distance is "inf", expected number"#),
            (",29.5,", ",,", r#"ride "a-0": distance is "", expected number"#),
            ("2018-04", "2018-13", "statustime is \"2018-13-25 17:03:05.722\", expected YYYY-MM-DD HH:MM:SS.fff"),
            (",29.5,", ",", "a record has 14 fields, its header 15"),
        ] {
            let error = read(&RIDE.replace(from, to)).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        let other = parse(&b"ride_id,name\n"[..], |_| true).unwrap_err();
        assert!(other.to_string().starts_with(r#"its header line is "ride_id,name", expected "ride_id,name,breed,"#));
        assert!(parse(&b""[..], |_| true).is_err());
    }

    #[test]
    fn pieces_have_a_bounded_size() {
        let pieces = read(&RIDE.repeat(2 * ROWS_AT_ONCE + 1)).unwrap();
        assert_eq!(pieces.iter().map(Rows::len).collect::<Vec<_>>(), [ROWS_AT_ONCE, ROWS_AT_ONCE, 1]);
        let long = RIDE.replace("Twilight", &"x".repeat(BYTES_AT_ONCE));
        assert_eq!(read(&long.repeat(2)).unwrap().len(), 2);
        let mut passed = 0;
        let file = format!("{}\n{}", COLUMNS.join(","), RIDE.repeat(2 * ROWS_AT_ONCE));
        let stopped = parse(file.as_bytes(), |rows| {
            passed += rows.len();
            false
        });
        assert_eq!((stopped, passed), (Ok(ROWS_AT_ONCE as u64), ROWS_AT_ONCE));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes[..], |_| true);
            let _ = parse(&[COLUMNS.join(",").as_bytes(), b"\n", &bytes].concat()[..], |_| true);
        }
    }
}
