//! `score-request.v1`: rides to score.

use crate::message::{decode::Message, object, violation::Violation};
use serde::{Deserialize, Serialize};

/// Maximum number of rides in one request, whatever limit a scorer is configured with. The decoder holds all rides in
/// memory, and a ride of two bytes of JSON takes 120 bytes there.
pub const SCORE_RIDES_MAX: usize = 100_000;

/// One or more rides to score. The deadline is the AMQP property `expiration`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRequest {
    /// Id chosen by the client, repeated in the answer.
    pub request_id: String,
    /// Units of the weather features; NOAA's own if absent or null.
    #[serde(default, deserialize_with = "object::object_or_default")]
    pub units: Units,
    /// Whether the answer contains the contribution of each feature; false if absent or null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "object::null_is_default")]
    pub explain: bool,
    /// Whether missing features are imputed; true if absent or null. If false, a ride that lacks a feature of the model is an error.
    #[serde(
        default = "object::yes",
        skip_serializing_if = "std::clone::Clone::clone",
        deserialize_with = "object::null_is_true"
    )]
    pub impute: bool,
    /// The rides, 1 to [`SCORE_RIDES_MAX`].
    #[serde(deserialize_with = "object::list_up_to::<_, _, SCORE_RIDES_MAX>")]
    pub rides: Vec<ScoreRide>,
}

/// Units of the features that come in several units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    /// Unit of `tmin`, `tmax` and `tavg`; tenths of °C if absent or null.
    #[serde(default, deserialize_with = "object::null_is_default")]
    pub temperature: TemperatureUnit,
    /// Unit of `prcp`; tenths of mm if absent or null.
    #[serde(default, deserialize_with = "object::null_is_default")]
    pub precipitation: PrecipitationUnit,
}

/// Units of temperature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemperatureUnit {
    /// Tenths of °C, as NOAA writes them.
    #[default]
    CelsiusTenths,
    /// °C.
    Celsius,
    /// °F.
    Fahrenheit,
}

impl TemperatureUnit {
    /// Converts `value` from this unit to tenths of °C.
    pub fn to_celsius_tenths(self, value: f64) -> f64 {
        match self {
            Self::CelsiusTenths => value,
            Self::Celsius => value * 10.0,
            Self::Fahrenheit => (value - 32.0) * 50.0 / 9.0,
        }
    }
}

/// Units of precipitation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrecipitationUnit {
    /// Tenths of mm, as NOAA writes them.
    #[default]
    MillimetreTenths,
    /// mm.
    Millimetre,
    /// Inches.
    Inch,
}

impl PrecipitationUnit {
    /// Converts `value` from this unit to tenths of mm.
    pub fn to_millimetre_tenths(self, value: f64) -> f64 {
        match self {
            Self::MillimetreTenths => value,
            Self::Millimetre => value * 10.0,
            Self::Inch => value * 254.0,
        }
    }
}

/// The features of one ride; at least one that the model uses. The others are imputed, unless the request says otherwise
/// ([`ScoreRequest::impute`]). A ride that cannot be scored is an error for this ride alone; the other rides of the request are
/// scored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreRide {
    /// Ride id, repeated with the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ride_id: Option<String>,
    /// Breed of the unicorn; its breed model scores the ride if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breed: Option<String>,
    /// Distance of the ride in miles, 0 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Health points of the unicorn at the end of the ride.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthpoints: Option<f64>,
    /// Magic points spent during the ride.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magicpoints: Option<f64>,
    /// Lowest temperature of the day, in [`Units::temperature`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmin: Option<f64>,
    /// Highest temperature of the day, in [`Units::temperature`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmax: Option<f64>,
    /// Mean temperature of the day, `(tmin + tmax) / 2`, in [`Units::temperature`]. Instead of `tmin` or `tmax`, or of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tavg: Option<f64>,
    /// Precipitation of the day, in [`Units::precipitation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prcp: Option<f64>,
}

impl Message for ScoreRequest {
    fn message_id(&self) -> String {
        format!("{}/score-request", self.request_id)
    }

    fn check(&self) -> Result<(), Violation> {
        if self.rides.is_empty() {
            return Err(Violation::new("rides", "expected at least one ride"));
        }
        Ok(())
    }
}
