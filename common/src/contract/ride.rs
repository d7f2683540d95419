//! One ride, validated and normalised: what every stage after the splitter may rely on.

use compact_str::CompactString;
use jiff::civil::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

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

/// A moment in UTC with milliseconds, written `YYYY-MM-DD HH:MM:SS.fff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusTime(DateTime);

/// Why a text is no [`StatusTime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected YYYY-MM-DD HH:MM:SS[.fff] in UTC, or RFC 3339")]
pub struct InvalidStatusTime;

impl StatusTime {
    /// The UTC calendar date as `(year, month, day)`: the key of the weather join.
    pub fn date(self) -> (i16, i8, i8) {
        (self.0.year(), self.0.month(), self.0.day())
    }

    /// The moment as jiff's civil type, in UTC.
    pub fn datetime(self) -> DateTime {
        self.0
    }

    /// The canonical 23 characters, `YYYY-MM-DD HH:MM:SS.fff`.
    pub fn canonical(self) -> [u8; 23] {
        fn put(out: &mut [u8], mut value: u32) {
            for digit in out.iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        let at = self.0;
        let mut out = *b"0000-00-00 00:00:00.000";
        put(&mut out[0..4], at.year().unsigned_abs().into());
        put(&mut out[5..7], at.month().unsigned_abs().into());
        put(&mut out[8..10], at.day().unsigned_abs().into());
        put(&mut out[11..13], at.hour().unsigned_abs().into());
        put(&mut out[14..16], at.minute().unsigned_abs().into());
        put(&mut out[17..19], at.second().unsigned_abs().into());
        put(&mut out[20..23], at.millisecond().unsigned_abs().into());
        out
    }
}

impl From<DateTime> for StatusTime {
    /// Cuts to milliseconds.
    fn from(at: DateTime) -> Self {
        let millis = at.subsec_nanosecond() / 1_000_000 * 1_000_000;
        Self(at.with().subsec_nanosecond(millis).build().unwrap_or(at))
    }
}

impl FromStr for StatusTime {
    type Err = InvalidStatusTime;

    /// Reads `YYYY-MM-DD HH:MM:SS[.fff]` (blank or `T` between date and time), optionally followed by `Z` or `±HH:MM`.
    /// Without an offset the time is UTC. Fractions of any length are cut to milliseconds.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let digits = |from: usize, len: usize| -> Result<i32, InvalidStatusTime> {
            let mut value = 0;
            for &byte in bytes.get(from..from + len).ok_or(InvalidStatusTime)? {
                if !byte.is_ascii_digit() {
                    return Err(InvalidStatusTime);
                }
                value = value * 10 + i32::from(byte - b'0');
            }
            Ok(value)
        };
        let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if bytes.len() < 19
            || separators.iter().any(|&(at, expected)| bytes[at] != expected)
            || !matches!(bytes[10], b' ' | b'T' | b't')
        {
            return Err(InvalidStatusTime);
        }
        let mut end = 19;
        let mut millis = 0;
        if bytes.get(end) == Some(&b'.') {
            let fraction = bytes[20..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if fraction == 0 {
                return Err(InvalidStatusTime);
            }
            let kept = fraction.min(3);
            millis = digits(20, kept)? * [100, 10, 1][kept - 1];
            end = 20 + fraction;
        }
        let offset_minutes = match &bytes[end..] {
            [] | [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
                let (hours, minutes) = (digits(end + 1, 2)?, digits(end + 4, 2)?);
                if hours > 23 || minutes > 59 {
                    return Err(InvalidStatusTime);
                }
                let total = hours * 60 + minutes;
                if *sign == b'+' { total } else { -total }
            }
            _ => return Err(InvalidStatusTime),
        };
        let civil = DateTime::new(
            digits(0, 4)? as i16,
            digits(5, 2)? as i8,
            digits(8, 2)? as i8,
            digits(11, 2)? as i8,
            digits(14, 2)? as i8,
            digits(17, 2)? as i8,
            millis * 1_000_000,
        )
        .map_err(|_| InvalidStatusTime)?;
        let utc = if offset_minutes == 0 {
            civil
        } else {
            let offset = jiff::SignedDuration::from_mins(offset_minutes.into());
            civil.checked_sub(offset).map_err(|_| InvalidStatusTime)?
        };
        if utc.year() < 0 {
            return Err(InvalidStatusTime);
        }
        Ok(Self(utc))
    }
}

impl fmt::Display for StatusTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.canonical();
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for StatusTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.canonical();
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for StatusTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = StatusTime;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as YYYY-MM-DD HH:MM:SS[.fff] in UTC, or RFC 3339")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusTime, E> {
                text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_accepted_form_of_a_time() {
        for (text, canonical) in [
            ("2018-04-25 17:03:05.722", "2018-04-25 17:03:05.722"),
            ("2018-04-25 17:03:05", "2018-04-25 17:03:05.000"),
            ("2018-04-25T17:03:05Z", "2018-04-25 17:03:05.000"),
            ("2018-04-25T17:03:05.7229", "2018-04-25 17:03:05.722"),
            ("2018-04-25T17:03:05.1z", "2018-04-25 17:03:05.100"),
            ("2018-12-31T23:30:00-01:00", "2019-01-01 00:30:00.000"),
            ("2020-02-29 00:00:00+05:30", "2020-02-28 18:30:00.000"),
        ] {
            assert_eq!(text.parse::<StatusTime>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "2018-04-25",
            "2018-13-01 00:00:00",
            "2019-02-29 00:00:00",
            "2018-04-25 24:00:00",
            "2018-04-25 23:59:60",
            "2018-04-25 17:03:05.",
            "2018-04-25 17:03:05 Z",
            "20180425 170305",
            "2018-04-25 17:03:05+0100",
            "2018-04-25 17:03:05é",
            "+018-04-25 17:03:05",
            "0000-01-01T00:00:00+23:59",
        ] {
            assert_eq!(text.parse::<StatusTime>(), Err(InvalidStatusTime), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_canonical_time_reads_back_as_itself(
            y in 1i16..=9999, mo in 1i8..=12, d in 1i8..=28, h in 0i8..24, mi in 0i8..60, s in 0i8..60, ms in 0i32..1000
        ) {
            let at = StatusTime(DateTime::new(y, mo, d, h, mi, s, ms * 1_000_000).unwrap());
            proptest::prop_assert_eq!(at.to_string().parse::<StatusTime>(), Ok(at));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<StatusTime>();
        }
    }
}
