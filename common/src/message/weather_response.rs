//! `weather-response.v1`: the answer to a weather request.

use crate::{
    message::{decode::Message, object, violation::Violation},
    ride::{self, Observation, WeatherMissing},
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// The answer to one weather request: either `weather` or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeatherResponse {
    /// Id of the request; empty if the request could not be decoded.
    pub request_id: String,
    /// One result per place, in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "object::list")]
    pub weather: Vec<PlaceWeather>,
    /// Why the request as a whole has no weather.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub error: Option<WeatherError>,
}

/// The result for one place: an observation or an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Wire")]
pub enum PlaceWeather {
    /// Observation of the nearest station that has all three elements on the UTC date.
    Observed(Observation),
    /// There is no observation.
    Failed {
        /// The reason.
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

/// Why a request or a place has no weather.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeatherError {
    /// Stable code.
    pub code: WeatherErrorCode,
    /// The error in words, with its remedy.
    pub message: String,
    /// Path of the invalid field, for example `places[3].latitude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Codes of weather errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeatherErrorCode {
    /// No station lies within `max_station_km` of the place.
    NoStationInReach,
    /// Stations lie within `max_station_km`, but none has all three elements on the date.
    NoObservationOnDate,
    /// The request breaks its schema.
    MalformedRequest,
    /// The worker does not know the version of the request.
    UnknownVersion,
    /// The weather service or the object store is down; a later retry may help.
    Unavailable,
    /// The deadline passed before the weather was loaded. The loaded part stays cached, so a retry may help.
    DeadlineExceeded,
    /// The worker failed; a retry may help.
    Internal,
}

impl From<WeatherMissing> for WeatherErrorCode {
    fn from(missing: WeatherMissing) -> Self {
        match missing {
            WeatherMissing::NoStationInReach => Self::NoStationInReach,
            // Readers of earlier versions refuse other codes; the message of the error says more.
            WeatherMissing::NoObservationOnDate | WeatherMissing::NotYetPublished => Self::NoObservationOnDate,
        }
    }
}

impl WeatherResponse {
    /// Returns an answer that consists of an error.
    pub fn failed(request_id: impl Into<String>, error: WeatherError) -> Self {
        Self { request_id: request_id.into(), weather: Vec::new(), error: Some(error) }
    }
}

impl Message for WeatherResponse {
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
