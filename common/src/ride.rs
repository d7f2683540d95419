//! A validated and normalised ride, as every stage after the splitter receives it.

mod time;

pub use time::{InvalidStatusTime, StatusTime, TIME_FORMS};

use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use strum::{EnumString, IntoStaticStr};

/// Maximum distance of a ride in miles: forty times around the earth. A larger value means a broken meter, and one such
/// value would outweigh all others in the fit of a model.
pub const DISTANCE_MAX: f64 = 1_000_000.0;
/// Maximum absolute value of health points and magic points. Every scale in use fits, and sums of squares over millions
/// of rides stay finite.
pub const POINTS_MAX: f64 = 1_000_000_000.0;

/// A ride that passed validation.
///
/// Short strings are stored inline ([`CompactString`] holds 24 bytes), so a ride usually needs no allocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ride {
    /// Id of the ride, unique within its batch: from the input, else `{batch_id}-{index}`.
    pub ride_id: CompactString,
    /// Name of the unicorn; may be empty.
    #[serde(default)]
    pub name: CompactString,
    /// Breed of the unicorn; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breed: Option<CompactString>,
    /// Time at which the ride ended, UTC.
    pub statustime: StatusTime,
    /// Latitude in degrees north, −90 to 90.
    #[serde(deserialize_with = "latitude")]
    pub latitude: f64,
    /// Longitude in degrees east, −180 to 180.
    #[serde(deserialize_with = "longitude")]
    pub longitude: f64,
    /// Distance in miles, 0 to [`DISTANCE_MAX`].
    #[serde(deserialize_with = "distance")]
    pub distance: f64,
    /// Health points of the unicorn at the end of the ride, `-POINTS_MAX` to [`POINTS_MAX`].
    #[serde(deserialize_with = "points")]
    pub healthpoints: f64,
    /// Magic points spent during the ride, `-POINTS_MAX` to [`POINTS_MAX`].
    #[serde(deserialize_with = "points")]
    pub magicpoints: f64,
    /// Label: whether the unicorn requested service; `None` if the ride has no label yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fieldservice: Option<Label>,
}

/// The label of a ride: `1` on the wire if the unicorn requested service, else `0`.
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

/// A distance in kilometres, not negative.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Kilometres(#[serde(deserialize_with = "not_negative")] pub(super) f64);

/// Result of the weather join for a ride.
#[derive(Debug, Clone, PartialEq)]
pub enum Weather {
    /// Observation of the nearest station that has all three elements on the ride's UTC date.
    Observed(Observation),
    /// The ride has no weather, for this reason; it stays in the dataset.
    Missing(WeatherMissing),
}

/// One day at one station, in the units of NOAA's GHCN-Daily.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// GHCN-Daily station id, 11 characters.
    pub groundstation: CompactString,
    /// Great-circle distance from the ride to the station in kilometres, rounded to 6 decimals.
    pub station_km: f64,
    /// Lowest temperature of the day, tenths of °C.
    pub tmin: i32,
    /// Highest temperature of the day, tenths of °C.
    pub tmax: i32,
    /// Precipitation of the day, tenths of mm.
    pub prcp: i32,
}

/// Why a ride has no weather. Converts into its stable code, a `&'static str`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum WeatherMissing {
    /// No station lies within `max_station_km`.
    NoStationInReach,
    /// Stations lie within `max_station_km`, but none has all three elements on the date.
    NoObservationOnDate,
    /// As [`Self::NoObservationOnDate`], and the observations of the date are still expected: it is too recent, or in the
    /// future.
    NotYetPublished,
}

/// Why a ride was rejected. The codes are stable and part of the contract.
///
/// `missing_*`: the field is absent or null. `invalid_*`: the value does not have the type of the field.
/// `*_out_of_range`: the number is outside the range of the field. Converts into the code, a `&'static str`, as
/// written to `rejected/<batch_id>.ndjson`; `parse` reads it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, EnumString, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs)] // The codes are self-explanatory.
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
    /// Returns what was expected, in words.
    pub fn expected(self) -> &'static str {
        self.field_and_expected().1
    }

    /// Returns the invalid field; `None` if the reason concerns the ride as a whole.
    pub fn field(self) -> Option<&'static str> {
        self.field_and_expected().0
    }

    fn field_and_expected(self) -> (Option<&'static str>, &'static str) {
        const POINTS: &str = "a number from -1,000,000,000 to 1,000,000,000";
        const SHORT_TEXT: &str = "a text of at most 256 bytes as JSON";
        match self {
            Self::InvalidJson => (None, "a whole JSON object"),
            Self::NotAnObject => (None, "an object with a ride's fields"),
            Self::DuplicateField => (None, "each field once"),
            Self::RideTooLarge => (None, "at most 64 KiB of JSON"),
            Self::MissingStatustime | Self::InvalidStatustime => (Some("statustime"), TIME_FORMS),
            Self::MissingLatitude | Self::InvalidLatitude | Self::LatitudeOutOfRange => {
                (Some("latitude"), "degrees north from -90 to 90")
            }
            Self::MissingLongitude | Self::InvalidLongitude | Self::LongitudeOutOfRange => {
                (Some("longitude"), "degrees east from -180 to 180")
            }
            Self::MissingDistance | Self::InvalidDistance | Self::NegativeDistance | Self::DistanceOutOfRange => {
                (Some("distance"), "miles from 0 to 1,000,000")
            }
            Self::MissingHealthpoints | Self::InvalidHealthpoints | Self::HealthpointsOutOfRange => {
                (Some("healthpoints"), POINTS)
            }
            Self::MissingMagicpoints | Self::InvalidMagicpoints | Self::MagicpointsOutOfRange => {
                (Some("magicpoints"), POINTS)
            }
            Self::InvalidFieldservice => {
                (Some("fieldservice"), "0 or 1, true or false; null, NaN or blank while the label is unknown")
            }
            Self::InvalidName => (Some("name"), SHORT_TEXT),
            Self::InvalidBreed => (Some("breed"), SHORT_TEXT),
            Self::InvalidRideId => (Some("ride_id"), "1 to 128 bytes without control characters, or a whole number"),
            Self::DuplicateRideId => (Some("ride_id"), "each ride_id once in a batch"),
        }
    }
}

/// Number of rides by reason code, in the order of the codes: `{"invalid_statustime": 8, …}`.
pub type Counts = std::collections::BTreeMap<String, u64>;
