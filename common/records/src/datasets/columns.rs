//! The columns of a dataset file: type, unit and meaning of each. The checks of a dataset, an export and its data dictionary
//! follow from this table.

use common::features::{FEATURE_COUNT, FEATURES};
use std::sync::LazyLock;

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// A moment in UTC with milliseconds.
    Time,
    /// Any finite number.
    Number,
    /// A whole number of 32 bits.
    Whole,
    /// 0 or 1.
    Flag,
}

impl Kind {
    /// Returns the name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Time => "time, UTC",
            Self::Number => "number",
            Self::Whole => "whole number",
            Self::Flag => "0 or 1",
        }
    }
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Name in the header line.
    pub name: &'static str,
    /// Title of a narrow table column, at most seven characters.
    pub short: &'static str,
    /// Type of its values.
    pub kind: Kind,
    /// Unit of a number.
    pub unit: Option<&'static str>,
    /// A sentence or several.
    pub meaning: &'static str,
    /// Completes "Missing when …"; `None` if there is always a value.
    pub missing: Option<&'static str>,
}

const NO_WEATHER: &str = "no station within reach measured tmin, tmax and prcp on that day";

/// A text that is always present.
const TEXT: Column = Column { name: "", short: "", kind: Kind::Text, unit: None, meaning: "", missing: None };
/// A number that is always present.
const NUMBER: Column = Column { kind: Kind::Number, ..TEXT };
/// A measurement of a weather station.
const OBSERVED: Column = Column { kind: Kind::Whole, missing: Some(NO_WEATHER), ..TEXT };

/// The columns of a dataset file, in order.
pub const COLUMNS: [Column; 15] = [
    Column {
        name: "ride_id",
        short: "ride",
        meaning: "The ride, unique within its batch: as given by the publisher, else the batch id and the ride's index in \
                  the batch, counted from 0.",
        ..TEXT
    },
    Column {
        name: "name",
        short: "name",
        meaning: "The unicorn's name.",
        missing: Some("the publisher gave none"),
        ..TEXT
    },
    Column {
        name: "breed",
        short: "breed",
        meaning: "The unicorn's breed.",
        missing: Some("the publisher gave none"),
        ..TEXT
    },
    Column {
        name: "statustime",
        short: "time",
        kind: Kind::Time,
        meaning: "When the ride ended. Its UTC date is the day of the weather. In CSV as YYYY-MM-DD HH:MM:SS.fff.",
        ..TEXT
    },
    Column {
        name: "latitude",
        short: "lat",
        unit: Some("degree north"),
        meaning: "Latitude of the unicorn at statustime, from -90 to 90.",
        ..NUMBER
    },
    Column {
        name: "longitude",
        short: "lon",
        unit: Some("degree east"),
        meaning: "Longitude of the unicorn at statustime, from -180 to 180.",
        ..NUMBER
    },
    Column { name: "distance", short: "dist", unit: Some("mile"), meaning: "Length of the ride.", ..NUMBER },
    Column {
        name: "healthpoints",
        short: "health",
        unit: Some("point"),
        meaning: "Health points of the unicorn at the end of the ride.",
        ..NUMBER
    },
    Column {
        name: "magicpoints",
        short: "magic",
        unit: Some("point"),
        meaning: "Magic points the unicorn burnt on the ride.",
        ..NUMBER
    },
    Column {
        name: "fieldservice",
        short: "service",
        kind: Kind::Flag,
        meaning: "The label: 1 if the ride ended in a service request, else 0.",
        missing: Some("the label is not known yet"),
        ..TEXT
    },
    Column {
        name: "groundstation",
        short: "station",
        meaning: "The weather station, by its id in NOAA's Global Historical Climatology Network: the nearest one that \
                  measured tmin, tmax and prcp on the day of the ride.",
        missing: Some(NO_WEATHER),
        ..TEXT
    },
    Column {
        name: "station_km",
        short: "km",
        unit: Some("kilometre"),
        meaning: "Distance between that station and the unicorn.",
        missing: Some(NO_WEATHER),
        ..NUMBER
    },
    Column {
        name: "tmin",
        short: "tmin",
        unit: Some("tenth of °C"),
        meaning: "Lowest temperature of the day: 97 is 9.7 °C.",
        ..OBSERVED
    },
    Column {
        name: "tmax",
        short: "tmax",
        unit: Some("tenth of °C"),
        meaning: "Highest temperature of the day: 176 is 17.6 °C.",
        ..OBSERVED
    },
    Column {
        name: "prcp",
        short: "prcp",
        unit: Some("tenth of mm"),
        meaning: "Precipitation of the day: 48 is 4.8 mm.",
        ..OBSERVED
    },
];

/// Returns the names of the columns, in order: the header line of a dataset file.
pub fn column_names() -> [&'static str; COLUMNS.len()] {
    COLUMNS.map(|column| column.name)
}

/// Index of the ride's id in [`COLUMNS`].
pub const RIDE_ID: usize = 0;
/// Index of the unicorn's name.
pub const NAME: usize = 1;
/// Index of the unicorn's breed.
pub const BREED: usize = 2;
/// Index of the time at which the ride ended.
pub const STATUSTIME: usize = 3;
/// Index of the latitude at that time.
pub const LATITUDE: usize = 4;
/// Index of the longitude at that time.
pub const LONGITUDE: usize = 5;
/// Index of the label.
pub const FIELDSERVICE: usize = 9;
/// Index of the weather station's id.
pub const GROUNDSTATION: usize = 10;
/// Indices of the weather: tmin, tmax and prcp.
pub const WEATHER: [usize; 3] = [12, 13, 14];
/// Indices of the features, in the order of [`FEATURES`].
pub static FEATURE_COLUMNS: LazyLock<[usize; FEATURE_COUNT]> = LazyLock::new(|| {
    let index = |name| COLUMNS.iter().position(|column| column.name == name);
    std::array::from_fn(|j| index(FEATURES[j].name).expect("every feature is a column"))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_meaning() {
        for Column { name, short, kind, unit, meaning, .. } in &COLUMNS {
            assert!(!meaning.is_empty() && short.chars().count() <= 7, "{name}");
            assert!(unit.is_none() || !matches!(kind, Kind::Text | Kind::Time), "{name}");
        }
    }

    #[test]
    fn indices_match_their_columns() {
        for (index, name) in [
            (RIDE_ID, "ride_id"),
            (NAME, "name"),
            (BREED, "breed"),
            (STATUSTIME, "statustime"),
            (LATITUDE, "latitude"),
            (LONGITUDE, "longitude"),
            (FIELDSERVICE, "fieldservice"),
            (GROUNDSTATION, "groundstation"),
        ] {
            assert_eq!(COLUMNS[index].name, name);
        }
        assert_eq!(WEATHER.map(|index| COLUMNS[index].name), ["tmin", "tmax", "prcp"]);
        for (feature, index) in FEATURES.iter().zip(*FEATURE_COLUMNS) {
            assert_eq!(Some(feature.unit), COLUMNS[index].unit, "{}", feature.name);
        }
    }
}
