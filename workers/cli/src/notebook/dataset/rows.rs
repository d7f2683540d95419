//! The rides of a block, column by column.

use bytes::Bytes;
use common::{features::FEATURES, ride::StatusTime};
use jiff::{SignedDuration, civil::DateTime};
use records::datasets::{
    COLUMNS, Kind, Records, RowError,
    columns::{FEATURE_COLUMNS, FIELDSERVICE, WEATHER},
};

/// Number of columns of a dataset file.
pub(crate) const FIELDS: usize = COLUMNS.len();

/// The origin of [`Rows::times`].
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Consecutive rows of a dataset file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rows {
    /// The fields, unquoted, one after the other.
    text: Bytes,
    /// End of each field in `text`.
    ends: Vec<usize>,
    /// The values of each numeric column; NaN if missing. Empty for other columns.
    pub(crate) numbers: [Vec<f64>; FIELDS],
    /// Milliseconds since 1970, UTC.
    pub(crate) times: Vec<i64>,
}

impl Rows {
    /// Parses all records of a block and checks every field.
    ///
    /// # Errors
    /// Fails at a field that has an invalid value for its column; the error names the ride.
    pub(crate) fn parse(records: &mut Records<'_>) -> Result<Self, RowError> {
        let (mut rows, mut text) = (Self::default(), Vec::new());
        while let Some(record) = records.read()? {
            for (index, column) in COLUMNS.iter().enumerate() {
                text.extend_from_slice(record.field(index));
                rows.ends.push(text.len());
                match column.kind {
                    Kind::Text => drop(record.text(index)?),
                    Kind::Time => rows.times.push(millis_of(record.time(index)?)),
                    Kind::Number | Kind::Whole | Kind::Flag => {
                        rows.numbers[index].push(record.number(index)?.unwrap_or(f64::NAN));
                    }
                }
            }
        }
        rows.text = text.into();
        Ok(rows)
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// Returns an unquoted field; UTF-8, empty if there is no value.
    pub(crate) fn field(&self, row: usize, column: usize) -> &[u8] {
        let (start, end) = self.range(row, column);
        self.text.get(start..end).unwrap_or_default()
    }

    /// Returns an unquoted field without a copy.
    pub(crate) fn field_bytes(&self, row: usize, column: usize) -> Bytes {
        let (start, end) = self.range(row, column);
        self.text.slice(start..end)
    }

    fn range(&self, row: usize, column: usize) -> (usize, usize) {
        let at = row * FIELDS + column;
        (if at == 0 { 0 } else { self.ends[at - 1] }, self.ends[at])
    }

    /// Returns the value of a numeric column; `None` if it is missing.
    pub(crate) fn number(&self, row: usize, column: usize) -> Option<f64> {
        Some(self.numbers[column][row]).filter(|value| !value.is_nan())
    }

    /// Returns whether the ride ended in a service request; `None` if that is unknown.
    pub(crate) fn label(&self, row: usize) -> Option<bool> {
        self.number(row, FIELDSERVICE).map(|label| label != 0.0)
    }

    /// Returns whether the ride has weather.
    pub(crate) fn has_weather(&self, row: usize) -> bool {
        WEATHER.iter().all(|&element| self.number(row, element).is_some())
    }

    /// Returns whether the ride can be trained on: it has label and weather, and every value is within the limits.
    pub(crate) fn is_trainable(&self, row: usize) -> bool {
        self.label(row).is_some()
            && self.has_weather(row)
            && (FEATURES.iter().zip(*FEATURE_COLUMNS))
                .all(|(feature, column)| self.numbers[column][row].abs() <= feature.trained_max)
    }
}

/// Converts a time to milliseconds since 1970, UTC.
fn millis_of(time: StatusTime) -> i64 {
    // Years of four digits fit into 64 bits of milliseconds.
    i64::try_from(time.datetime().duration_since(EPOCH).as_millis()).unwrap_or(i64::MAX)
}

/// Converts milliseconds since 1970, UTC; `None` outside the range of dates.
pub(crate) fn moment_of(millis: i64) -> Option<StatusTime> {
    EPOCH.checked_add(SignedDuration::from_millis(millis)).ok().map(StatusTime::from)
}

/// Parses these records, which have no header line.
#[cfg(test)]
pub(crate) fn rows_of(records: &str) -> Rows {
    let header = records::datasets::Header::default();
    Rows::parse(&mut Records::new(&header, records.as_bytes())).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use records::datasets::columns::{BREED, NAME};

    const RIDE: &str =
        "a-0,Twilight,Qilin,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,1,USW00094728,20.700000,111,156,241\n";

    #[test]
    fn every_value_is_read_and_missing_ones_are_none() {
        let bare = "a-1,\"Line\nend, \"\"quoted\"\"\",,1969-12-31 23:59:59.999,40.6,-74.1,29.5,291,292.25,,,,,,\n";
        let rows = rows_of(&format!("{RIDE}{bare}"));
        assert_eq!(rows.len(), 2);
        let numeric = || (0..FIELDS).filter(|&column| !rows.numbers[column].is_empty());
        let first: Vec<_> = numeric().map(|column| rows.number(0, column)).collect();
        let expected = [40.6, -74.1, 29.5, 291.0, 292.0, 1.0, 20.7, 111.0, 156.0, 241.0];
        assert_eq!(first, expected.map(Some));
        let second: Vec<_> = numeric().map(|column| rows.number(1, column)).collect();
        let none = [None; 5];
        assert_eq!(second, [&[40.6, -74.1, 29.5, 291.0, 292.25].map(Some)[..], &none].concat());
        assert_eq!(rows.times, [1_524_675_785_722, -1]);
        assert_eq!(rows.field(1, NAME), b"Line\nend, \"quoted\"");
        assert_eq!(rows.field_bytes(0, BREED), "Qilin");
        assert_eq!((rows.label(0), rows.label(1)), (Some(true), None));
        assert_eq!((rows.is_trainable(0), rows.is_trainable(1)), (true, false));
        assert_eq!(moment_of(rows.times[0]).unwrap().to_string(), "2018-04-25 17:03:05.722");
    }

    #[test]
    fn every_field_is_checked() {
        for (from, to) in [("Twilight", "\u{ff}"), (",29.5,", ",,"), (",111,", ",11.5,"), ("2018-04", "2018-13")] {
            let block: Vec<u8> = RIDE.replace(from, to).chars().map(|c| c as u8).collect();
            let header = records::datasets::Header::default();
            let error = Rows::parse(&mut Records::new(&header, &block)).unwrap_err().to_string();
            assert!(error.starts_with("ride \"a-0\": "), "{error}");
        }
    }
}
