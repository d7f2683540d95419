//! `weather-response.v1`: the weather of the places asked for, or why there is none.

use crate::{
    message::{decode::Message, kind::Kind, object, violation::Violation},
    ride::{self, Observation, WeatherMissing},
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// The answer to one weather request: either `weather` or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeatherResponse {
    /// Of the request; empty when the request was too broken to tell.
    pub request_id: String,
    /// One per place, in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "object::list")]
    pub weather: Vec<PlaceWeather>,
    /// Why the whole request has no answer.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub error: Option<WeatherError>,
}

/// What is known of one place: an observation, or the error of this one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Wire")]
pub enum PlaceWeather {
    /// The nearest station that measured everything on that UTC date.
    Observed(Observation),
    /// There is none.
    Failed {
        /// Why.
        error: WeatherError,
    },
}

#[derive(Deserialize)]
struct Wire {
    groundstation: Option<CompactString>,
    station_km: Option<ride::Kilometres>,
    tmin: Option<i32>,
    tmax: Option<i32>,
    prcp: Option<i32>,
    #[serde(default, deserialize_with = "object::optional")]
    error: Option<WeatherError>,
}

impl TryFrom<Wire> for PlaceWeather {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        match (wire.groundstation, wire.station_km, wire.tmin, wire.tmax, wire.prcp, wire.error) {
            (Some(groundstation), Some(ride::Kilometres(station_km)), Some(tmin), Some(tmax), Some(prcp), None) => {
                Ok(Self::Observed(Observation { groundstation, station_km, tmin, tmax, prcp }))
            }
            (None, None, None, None, None, Some(error)) => Ok(Self::Failed { error }),
            _ => Err("expected groundstation, station_km, tmin, tmax and prcp together, or error alone"),
        }
    }
}

/// A typed error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeatherError {
    /// Stable code.
    pub code: WeatherErrorCode,
    /// In words, with the way out.
    pub message: String,
    /// Path of the field at fault, as in `places[3].latitude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// What can be wrong with a weather request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeatherErrorCode {
    /// No station of the list lies within `max_station_km` of the place.
    NoStationInReach,
    /// Stations lie within reach, but none has all three elements on that date.
    NoObservationOnDate,
    /// The request breaks its schema.
    MalformedRequest,
    /// The request is of a version this worker does not know.
    UnknownVersion,
    /// The weather service, or the object store, is away; trying again later may help.
    Unavailable,
    /// The deadline passed before the weather was there; what was read meanwhile is kept, trying again may help.
    DeadlineExceeded,
    /// The worker failed; trying again may help.
    Internal,
}

impl From<WeatherMissing> for WeatherErrorCode {
    fn from(missing: WeatherMissing) -> Self {
        match missing {
            WeatherMissing::NoStationInReach => Self::NoStationInReach,
            WeatherMissing::NoObservationOnDate => Self::NoObservationOnDate,
        }
    }
}

impl WeatherResponse {
    /// An answer that is only an error.
    pub fn failed(request_id: impl Into<String>, error: WeatherError) -> Self {
        Self { request_id: request_id.into(), weather: Vec::new(), error: Some(error) }
    }
}

impl Message for WeatherResponse {
    const KIND: Kind = Kind { name: "weather-response", major: 1 };
    /// The default exchange: an answer goes straight to the queue the request names.
    const EXCHANGE: &'static str = "";
    const MANDATORY: bool = false;

    fn message_id(&self) -> String {
        format!("{}/weather-response", self.request_id)
    }

    fn check(&self) -> Result<(), Violation> {
        match (self.weather.is_empty(), &self.error) {
            (false, None) | (true, Some(_)) => Ok(()),
            _ => Err(Violation::new(".", "expected either weather or error")),
        }
    }
}
