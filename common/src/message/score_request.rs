//! `score-request.v1`: how likely do these rides end in a service request?

use crate::{
    fleet::exchange,
    message::{decode::Message, kind::Kind, object, violation::Violation},
};
use serde::{Deserialize, Serialize};

/// Rides in one request at most, whatever a scorer is configured to take: they are in memory before it can look, and a
/// ride of two bytes of JSON takes 120 there.
pub const SCORE_RIDES_MAX: usize = 100_000;

/// One or many rides to score. The deadline is the AMQP `expiration`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRequest {
    /// Chosen by the client; comes back as the message id's first part.
    pub request_id: String,
    /// Units of the weather features; NOAA's own when left out or null.
    #[serde(default, deserialize_with = "object::object_or_default")]
    pub units: Units,
    /// Whether the answer is to contain the contribution of each feature; false when left out or null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "object::null_is_default")]
    pub explain: bool,
    /// At least one, at most [`SCORE_RIDES_MAX`].
    #[serde(deserialize_with = "object::list_up_to::<_, _, SCORE_RIDES_MAX>")]
    pub rides: Vec<ScoreRide>,
}

/// Units of the features that have more than one in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    /// Of `tmin` and `tmax`; tenths of °C when left out or null.
    #[serde(default, deserialize_with = "object::null_is_default")]
    pub temperature: TemperatureUnit,
    /// Of `prcp`; tenths of mm when left out or null.
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
    /// In tenths of °C.
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
    /// In tenths of mm.
    pub fn to_millimetre_tenths(self, value: f64) -> f64 {
        match self {
            Self::MillimetreTenths => value,
            Self::Millimetre => value * 10.0,
            Self::Inch => value * 254.0,
        }
    }
}

/// The features of one ride. Every feature the model uses must be there; a missing one is an error in the answer for
/// this ride, not a refusal of the request, so that neighbours still get their score.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreRide {
    /// Comes back with the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ride_id: Option<String>,
    /// Breed of the unicorn: where it has a model of its own, that one scores the ride.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breed: Option<String>,
    /// Miles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Health points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthpoints: Option<f64>,
    /// Magic points burnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magicpoints: Option<f64>,
    /// Lowest temperature of the day, in [`Units::temperature`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmin: Option<f64>,
    /// Highest temperature of the day, in [`Units::temperature`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmax: Option<f64>,
    /// Precipitation of the day, in [`Units::precipitation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prcp: Option<f64>,
}

impl Message for ScoreRequest {
    const KIND: Kind = Kind { name: "score-request", major: 1 };
    const EXCHANGE: &'static str = exchange::RPC;

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
