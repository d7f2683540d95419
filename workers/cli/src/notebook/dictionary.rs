//! The data dictionary: the meaning of each column of an export. The types of a Parquet file, the checks of a dataset and the
//! statistics of `describe` follow from the same table.

use crate::session::Failed;
use serde_json::{Value, json};
use std::fmt::Write;

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// UTF-8.
    Text,
    /// A moment in UTC with milliseconds.
    Time,
    /// Any finite number.
    Real,
    /// A whole number of 32 bits.
    Whole,
    /// 0 or 1.
    Flag,
}

impl Kind {
    /// Returns the name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Time => "time, UTC",
            Self::Real => "number",
            Self::Whole => "whole number",
            Self::Flag => "0 or 1",
        }
    }

    /// Returns the physical type of a Parquet column, and the logical type in parentheses.
    pub(crate) fn parquet(self) -> (&'static str, &'static str) {
        match self {
            Self::Text => ("BYTE_ARRAY", "(STRING)"),
            Self::Time => ("INT64", "(TIMESTAMP(MILLIS,true))"),
            Self::Real => ("DOUBLE", ""),
            Self::Whole | Self::Flag => ("INT32", ""),
        }
    }

    /// Returns whether values are numeric.
    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Real | Self::Whole | Self::Flag)
    }
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// Title of a narrow table column, at most seven characters.
    pub(crate) short: &'static str,
    pub(crate) kind: Kind,
    /// Unit of a number.
    pub(crate) unit: Option<&'static str>,
    /// A sentence or several.
    pub(crate) meaning: &'static str,
    /// Completes "Missing when …"; `None` if there is always a value.
    pub(crate) missing: Option<&'static str>,
}

const NO_WEATHER: &str = "no station within reach measured tmin, tmax and prcp on that day";

/// The columns of an export, in order: the batch, then those of a dataset file.
pub(crate) const COLUMNS: [Column; 16] = [
    Column {
        name: "batch_id",
        short: "batch",
        kind: Kind::Text,
        unit: None,
        meaning: "The batch of the ride. batch_id and ride_id together identify a row.",
        missing: None,
    },
    Column {
        name: "ride_id",
        short: "ride",
        kind: Kind::Text,
        unit: None,
        meaning: "The ride, unique within its batch: as given by the publisher, else the batch id and the ride's index in \
                  the batch, counted from 0.",
        missing: None,
    },
    Column {
        name: "name",
        short: "name",
        kind: Kind::Text,
        unit: None,
        meaning: "The unicorn's name.",
        missing: Some("the publisher gave none"),
    },
    Column {
        name: "breed",
        short: "breed",
        kind: Kind::Text,
        unit: None,
        meaning: "The unicorn's breed.",
        missing: Some("the publisher gave none"),
    },
    Column {
        name: "statustime",
        short: "time",
        kind: Kind::Time,
        unit: None,
        meaning: "When the ride ended. Its UTC date is the day of the weather. In CSV as YYYY-MM-DD HH:MM:SS.fff.",
        missing: None,
    },
    Column {
        name: "latitude",
        short: "lat",
        kind: Kind::Real,
        unit: Some("degree north"),
        meaning: "Latitude of the unicorn at statustime, from -90 to 90.",
        missing: None,
    },
    Column {
        name: "longitude",
        short: "lon",
        kind: Kind::Real,
        unit: Some("degree east"),
        meaning: "Longitude of the unicorn at statustime, from -180 to 180.",
        missing: None,
    },
    Column {
        name: "distance",
        short: "dist",
        kind: Kind::Real,
        unit: Some("mile"),
        meaning: "Length of the ride.",
        missing: None,
    },
    Column {
        name: "healthpoints",
        short: "health",
        kind: Kind::Real,
        unit: Some("point"),
        meaning: "Health points of the unicorn at the end of the ride.",
        missing: None,
    },
    Column {
        name: "magicpoints",
        short: "magic",
        kind: Kind::Real,
        unit: Some("point"),
        meaning: "Magic points the unicorn burnt on the ride.",
        missing: None,
    },
    Column {
        name: "fieldservice",
        short: "service",
        kind: Kind::Flag,
        unit: None,
        meaning: "The label: 1 if the ride ended in a service request, else 0.",
        missing: Some("the label is not known yet"),
    },
    Column {
        name: "groundstation",
        short: "station",
        kind: Kind::Text,
        unit: None,
        meaning: "The weather station, by its id in NOAA's Global Historical Climatology Network: the nearest one that \
                  measured tmin, tmax and prcp on the day of the ride.",
        missing: Some(NO_WEATHER),
    },
    Column {
        name: "station_km",
        short: "km",
        kind: Kind::Real,
        unit: Some("kilometre"),
        meaning: "Distance between that station and the unicorn.",
        missing: Some(NO_WEATHER),
    },
    Column {
        name: "tmin",
        short: "tmin",
        kind: Kind::Whole,
        unit: Some("tenth of °C"),
        meaning: "Lowest temperature of the day: 97 is 9.7 °C.",
        missing: Some(NO_WEATHER),
    },
    Column {
        name: "tmax",
        short: "tmax",
        kind: Kind::Whole,
        unit: Some("tenth of °C"),
        meaning: "Highest temperature of the day: 176 is 17.6 °C.",
        missing: Some(NO_WEATHER),
    },
    Column {
        name: "prcp",
        short: "prcp",
        kind: Kind::Whole,
        unit: Some("tenth of mm"),
        meaning: "Precipitation of the day: 48 is 4.8 mm.",
        missing: Some(NO_WEATHER),
    },
];

/// Number of columns of a dataset file: all but the batch.
pub(crate) const FIELDS: usize = COLUMNS.len() - 1;
/// Number of numeric columns.
pub(crate) const NUMBERS: usize = 10;

/// Indices into [`numbers`].
pub(crate) mod number {
    pub(crate) const DISTANCE: usize = 2;
    pub(crate) const HEALTHPOINTS: usize = 3;
    pub(crate) const MAGICPOINTS: usize = 4;
    pub(crate) const FIELDSERVICE: usize = 5;
    pub(crate) const TMIN: usize = 7;
    pub(crate) const TMAX: usize = 8;
    pub(crate) const PRCP: usize = 9;
    /// The features, in their order.
    pub(crate) const FEATURES: [usize; common::features::FEATURE_COUNT] =
        [DISTANCE, HEALTHPOINTS, MAGICPOINTS, TMIN, TMAX, PRCP];
}

/// Indices into [`fields`].
pub(crate) mod field {
    pub(crate) const RIDE_ID: usize = 0;
    pub(crate) const NAME: usize = 1;
    pub(crate) const BREED: usize = 2;
    pub(crate) const GROUNDSTATION: usize = 10;
}

/// Returns the columns of a dataset file, in order.
pub(crate) fn fields() -> &'static [Column] {
    &COLUMNS[1..]
}

/// Returns the numeric columns, in order.
pub(crate) fn numbers() -> impl Iterator<Item = &'static Column> {
    fields().iter().filter(|column| column.kind.is_number())
}

/// Returns the dictionary for machines.
pub(crate) fn as_json() -> Value {
    let columns: Vec<_> = COLUMNS
        .iter()
        .map(|Column { name, kind, unit, meaning, missing, .. }| {
            let (physical, logical) = kind.parquet();
            json!({
                "name": name, "type": kind.name(), "parquet_type": format!("{physical} {logical}").trim_end(),
                "unit": unit, "meaning": meaning, "missing_when": missing,
            })
        })
        .collect();
    json!({
        "rows": "One unicorn ride each, joined with the weather of its day.",
        "missing_value": { "csv": "an empty field", "parquet": "null" },
        "columns": columns,
    })
}

/// `export --dictionary`
pub(crate) fn print(json: bool) -> Result<(), Failed> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(&as_json())?),
        false => print!("{}", as_text()?),
    }
    Ok(())
}

fn as_text() -> Result<String, std::fmt::Error> {
    const INDENT: usize = 16;
    const WIDTH: usize = 100;
    let mut text = String::new();
    for Column { name, kind, unit, meaning, missing, .. } in &COLUMNS {
        let unit = unit.map(|unit| format!(", {unit}")).unwrap_or_default();
        writeln!(text, "{name:<INDENT$}{}{unit}", kind.name())?;
        let missing = missing.map_or("Never missing.".to_owned(), |when| format!("Missing when {when}."));
        for line in wrapped(&format!("{meaning} {missing}"), WIDTH - INDENT) {
            writeln!(text, "{:INDENT$}{line}", "")?;
        }
    }
    Ok(text)
}

/// Wraps a text at blanks into lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dataset;

    #[test]
    fn dictionary_covers_exactly_the_columns_of_a_dataset() {
        let names: Vec<_> = fields().iter().map(|column| column.name).collect();
        assert_eq!(names, dataset::COLUMNS);
        assert_eq!(COLUMNS[0].name, "batch_id");
        for column in &COLUMNS {
            let Column { name, short, meaning, .. } = column;
            assert!(!meaning.is_empty() && short.chars().count() <= 7, "{name}");
            assert!(column.unit.is_none() || column.kind.is_number(), "{name}");
        }
    }

    #[test]
    fn indices_match_their_columns() {
        let names: Vec<_> = numbers().map(|column| column.name).collect();
        assert_eq!(names.len(), NUMBERS);
        for (index, name) in [
            (number::DISTANCE, "distance"),
            (number::HEALTHPOINTS, "healthpoints"),
            (number::MAGICPOINTS, "magicpoints"),
            (number::FIELDSERVICE, "fieldservice"),
            (number::TMIN, "tmin"),
            (number::TMAX, "tmax"),
            (number::PRCP, "prcp"),
        ] {
            assert_eq!(names[index], name);
        }
        for (index, name) in [
            (field::RIDE_ID, "ride_id"),
            (field::NAME, "name"),
            (field::BREED, "breed"),
            (field::GROUNDSTATION, "groundstation"),
        ] {
            assert_eq!(fields()[index].name, name);
        }
    }

    #[test]
    fn text_describes_every_column_within_100_characters_per_line() {
        let text = as_text().unwrap();
        for Column { name, .. } in &COLUMNS {
            assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
