//! One ride, validated and normalised: what every stage after the splitter may rely on.

mod time;

pub use time::{InvalidStatusTime, StatusTime, TIME_FORMS};

use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Miles of a ride at most. No ride is forty times around the earth; what is beyond is a broken meter, and one such value
/// would outweigh all others when a model is fitted.
pub const DISTANCE_MAX: f64 = 1_000_000.0;
/// Health points and magic points at most, above and below 0. Any scale of points in use fits, and sums of squares of
/// millions of them stay numbers.
pub const POINTS_MAX: f64 = 1_000_000_000.0;

/// A ride that passed validation.
///
/// Short strings are stored inline ([`CompactString`] holds 24 bytes), so a ride usually costs no allocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ride {
    /// Unique within its batch: as given, else `{batch_id}-{index}`.
    pub ride_id: CompactString,
    /// The unicorn's name; may be empty.
    #[serde(default)]
    pub name: CompactString,
    /// The unicorn's breed, when told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breed: Option<CompactString>,
    /// When the ride ended, UTC.
    pub statustime: StatusTime,
    /// Degrees north, −90 … 90.
    #[serde(deserialize_with = "latitude")]
    pub latitude: f64,
    /// Degrees east, −180 … 180.
    #[serde(deserialize_with = "longitude")]
    pub longitude: f64,
    /// Miles, 0 … [`DISTANCE_MAX`].
    #[serde(deserialize_with = "distance")]
    pub distance: f64,
    /// Health points of the unicorn at the end of the ride, at most [`POINTS_MAX`] from 0.
    #[serde(deserialize_with = "points")]
    pub healthpoints: f64,
    /// Magic points burnt, at most [`POINTS_MAX`] from 0.
    #[serde(deserialize_with = "points")]
    pub magicpoints: f64,
    /// Whether service was asked for; `None` for rides not yet labelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fieldservice: Option<Label>,
}

/// The label of a ride: `1` on the wire when service was asked for, `0` when not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label(pub bool);

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(u8::from(self.0))
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self(false)),
            1 => Ok(Self(true)),
            other => Err(de::Error::invalid_value(de::Unexpected::Unsigned(other.into()), &"0 or 1")),
        }
    }
}

fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: std::ops::RangeInclusive<f64>,
    expected: &'static str,
) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(de::Error::invalid_value(de::Unexpected::Float(value), &expected))
    }
}

pub(super) fn latitude<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    within(deserializer, -90.0..=90.0, "degrees from -90 to 90")
}

pub(super) fn longitude<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    within(deserializer, -180.0..=180.0, "degrees from -180 to 180")
}

pub(super) fn not_negative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    within(deserializer, 0.0..=f64::MAX, "a number not below 0")
}

pub(super) fn distance<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    within(deserializer, 0.0..=DISTANCE_MAX, "miles from 0 to 1000000")
}

pub(super) fn points<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    within(deserializer, -POINTS_MAX..=POINTS_MAX, "points from -1000000000 to 1000000000")
}

/// A distance, not negative.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Kilometres(#[serde(deserialize_with = "not_negative")] pub(super) f64);

/// What the weather join found for a ride.
#[derive(Debug, Clone, PartialEq)]
pub enum Weather {
    /// The nearest station that measured all three elements on the ride's UTC date.
    Observed(Observation),
    /// The ride stays in the dataset without weather, for this reason.
    Missing(WeatherMissing),
}

/// One day at one station, in the units of NOAA's GHCN-Daily.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// GHCN-Daily station id, 11 characters.
    pub groundstation: CompactString,
    /// Great-circle distance to the station in kilometres, rounded to 6 decimals.
    pub station_km: f64,
    /// Lowest temperature of the day, tenths of °C.
    pub tmin: i32,
    /// Highest temperature of the day, tenths of °C.
    pub tmax: i32,
    /// Precipitation of the day, tenths of mm.
    pub prcp: i32,
}

/// Why a ride has no weather.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeatherMissing {
    /// No station of the list lies within `max_station_km`.
    NoStationInReach,
    /// Stations lie within reach, but none has all three elements on that date.
    NoObservationOnDate,
}

impl WeatherMissing {
    /// The reason as written on the wire and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoStationInReach => "no_station_in_reach",
            Self::NoObservationOnDate => "no_observation_on_date",
        }
    }
}

/// Why a ride was not accepted; the code of each is stable and part of the contract.
///
/// `missing_*`: the field is absent or null. `invalid_*`: it is there but is no number (or no such text).
/// `*_out_of_range`: a number outside what the field can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the codes say it
pub enum RejectReason {
    InvalidJson,
    NotAnObject,
    MissingStatustime,
    InvalidStatustime,
    MissingLatitude,
    InvalidLatitude,
    LatitudeOutOfRange,
    MissingLongitude,
    InvalidLongitude,
    LongitudeOutOfRange,
    MissingDistance,
    InvalidDistance,
    NegativeDistance,
    DistanceOutOfRange,
    MissingHealthpoints,
    InvalidHealthpoints,
    HealthpointsOutOfRange,
    MissingMagicpoints,
    InvalidMagicpoints,
    MagicpointsOutOfRange,
    InvalidFieldservice,
    InvalidName,
    InvalidBreed,
    InvalidRideId,
    DuplicateRideId,
    DuplicateField,
    RideTooLarge,
}

impl RejectReason {
    /// The code as written to `rejected/<batch_id>.ndjson`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingStatustime => "missing_statustime",
            Self::InvalidStatustime => "invalid_statustime",
            Self::MissingLatitude => "missing_latitude",
            Self::InvalidLatitude => "invalid_latitude",
            Self::LatitudeOutOfRange => "latitude_out_of_range",
            Self::MissingLongitude => "missing_longitude",
            Self::InvalidLongitude => "invalid_longitude",
            Self::LongitudeOutOfRange => "longitude_out_of_range",
            Self::MissingDistance => "missing_distance",
            Self::InvalidDistance => "invalid_distance",
            Self::NegativeDistance => "negative_distance",
            Self::DistanceOutOfRange => "distance_out_of_range",
            Self::MissingHealthpoints => "missing_healthpoints",
            Self::InvalidHealthpoints => "invalid_healthpoints",
            Self::HealthpointsOutOfRange => "healthpoints_out_of_range",
            Self::MissingMagicpoints => "missing_magicpoints",
            Self::InvalidMagicpoints => "invalid_magicpoints",
            Self::MagicpointsOutOfRange => "magicpoints_out_of_range",
            Self::InvalidFieldservice => "invalid_fieldservice",
            Self::InvalidName => "invalid_name",
            Self::InvalidBreed => "invalid_breed",
            Self::InvalidRideId => "invalid_ride_id",
            Self::DuplicateRideId => "duplicate_ride_id",
            Self::DuplicateField => "duplicate_field",
            Self::RideTooLarge => "ride_too_large",
        }
    }

    /// The reason with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::from(code)).ok()
    }

    /// What was expected, in words.
    pub fn expected(self) -> &'static str {
        match self {
            Self::InvalidJson => "a whole JSON object",
            Self::NotAnObject => "an object with a ride's fields",
            Self::MissingStatustime | Self::InvalidStatustime => TIME_FORMS,
            Self::MissingLatitude | Self::InvalidLatitude | Self::LatitudeOutOfRange => "degrees north from -90 to 90",
            Self::MissingLongitude | Self::InvalidLongitude | Self::LongitudeOutOfRange => {
                "degrees east from -180 to 180"
            }
            Self::MissingDistance | Self::InvalidDistance | Self::NegativeDistance | Self::DistanceOutOfRange => {
                "miles from 0 to 1,000,000"
            }
            Self::MissingHealthpoints
            | Self::InvalidHealthpoints
            | Self::HealthpointsOutOfRange
            | Self::MissingMagicpoints
            | Self::InvalidMagicpoints
            | Self::MagicpointsOutOfRange => "a number from -1,000,000,000 to 1,000,000,000",
            Self::InvalidFieldservice => "0 or 1, true or false; null, NaN or blank while the label is unknown",
            Self::InvalidName | Self::InvalidBreed => "a text of at most 256 bytes as JSON",
            Self::InvalidRideId => "1 to 128 bytes without control characters, or a whole number",
            Self::DuplicateRideId => "each ride_id once in a batch",
            Self::DuplicateField => "each field once",
            Self::RideTooLarge => "at most 64 KiB of JSON",
        }
    }

    /// The field at fault, where it is one.
    pub fn field(self) -> Option<&'static str> {
        Some(match self {
            Self::InvalidJson | Self::NotAnObject | Self::DuplicateField | Self::RideTooLarge => return None,
            Self::MissingStatustime | Self::InvalidStatustime => "statustime",
            Self::MissingLatitude | Self::InvalidLatitude | Self::LatitudeOutOfRange => "latitude",
            Self::MissingLongitude | Self::InvalidLongitude | Self::LongitudeOutOfRange => "longitude",
            Self::MissingDistance | Self::InvalidDistance | Self::NegativeDistance | Self::DistanceOutOfRange => {
                "distance"
            }
            Self::MissingHealthpoints | Self::InvalidHealthpoints | Self::HealthpointsOutOfRange => "healthpoints",
            Self::MissingMagicpoints | Self::InvalidMagicpoints | Self::MagicpointsOutOfRange => "magicpoints",
            Self::InvalidFieldservice => "fieldservice",
            Self::InvalidName => "name",
            Self::InvalidBreed => "breed",
            Self::InvalidRideId | Self::DuplicateRideId => "ride_id",
        })
    }
}

/// Rides counted by a reason code, in the order of the codes: `{"invalid_statustime": 8, …}`.
pub type Counts = std::collections::BTreeMap<String, u64>;
