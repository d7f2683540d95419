//! `weather-response.v1`: the answer to a weather request.

use crate::{
    message::{decode::Message, object, violation::Violation},
    ride::{self, Observation, StatusTime, WeatherMissing},
};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

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

/// The result for one place: the weather of one kind, or an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub enum PlaceWeather {
    /// Observation of the nearest station that has all three elements on the UTC date. Only this kind enters datasets.
    Observed(Observation),
    /// Forecast for the grid cell of the place.
    Forecast(Forecast),
    /// What the nearest station with a history usually measures around that day of the year.
    Climatology(Climatology),
    /// There is no weather.
    Failed {
        /// The reason.
        error: WeatherError,
    },
}

/// Name of the source of observations and climatologies, NOAA's GHCN-Daily.
pub const GHCN_DAILY: &str = "ghcn-daily";

/// The forecast of one UTC date for one grid cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Name of the service, for example `nws`.
    pub source: CompactString,
    /// Id of the grid cell, in the form of the service.
    pub cell: CompactString,
    /// Great-circle distance from the place to the middle of the cell, kilometres.
    pub cell_km: f64,
    /// Time at which the service issued the forecast, UTC.
    pub issued: StatusTime,
    /// Lowest temperature of the day, tenths of °C.
    pub tmin: i32,
    /// Highest temperature of the day, tenths of °C.
    pub tmax: i32,
    /// Precipitation of the day, tenths of mm.
    pub prcp: i32,
}

/// The mean weather of one station around a day of the year.
#[derive(Debug, Clone, PartialEq)]
pub struct Climatology {
    /// GHCN-Daily station id, 11 characters.
    pub groundstation: CompactString,
    /// Great-circle distance from the place to the station, kilometres.
    pub station_km: f64,
    /// Number of years in the mean.
    pub years: u16,
    /// Mean of the lowest temperatures, tenths of °C.
    pub tmin: i32,
    /// Mean of the highest temperatures, tenths of °C.
    pub tmax: i32,
    /// Mean precipitation of a day, tenths of mm.
    pub prcp: i32,
}

/// The kinds of weather, in order of preference. Converts into its name, a `&'static str`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum WeatherKind {
    /// Measured at a station.
    Observed,
    /// Forecast for a grid cell.
    Forecast,
    /// Mean of the same days in earlier years.
    Climatology,
}

impl PlaceWeather {
    /// Returns the kind of the weather; `None` if the lookup failed.
    pub fn kind(&self) -> Option<WeatherKind> {
        match self {
            Self::Observed(_) => Some(WeatherKind::Observed),
            Self::Forecast(_) => Some(WeatherKind::Forecast),
            Self::Climatology(_) => Some(WeatherKind::Climatology),
            Self::Failed { .. } => None,
        }
    }

    /// Returns the name of the source of the weather; `None` if the lookup failed.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::Observed(_) | Self::Climatology(_) => Some(GHCN_DAILY),
            Self::Forecast(forecast) => Some(&forecast.source),
            Self::Failed { .. } => None,
        }
    }

    /// Returns `tmin` and `tmax` in tenths of °C and `prcp` in tenths of mm; `None` if there is no weather.
    pub fn elements(&self) -> Option<[i32; 3]> {
        match *self {
            Self::Observed(Observation { tmin, tmax, prcp, .. })
            | Self::Forecast(Forecast { tmin, tmax, prcp, .. })
            | Self::Climatology(Climatology { tmin, tmax, prcp, .. }) => Some([tmin, tmax, prcp]),
            Self::Failed { .. } => None,
        }
    }
}

/// The fields of every kind. A reader that knows observations only reads a forecast as the observation of its grid cell.
#[serde_with::skip_serializing_none]
#[derive(Default, Serialize, Deserialize)]
struct Wire {
    groundstation: Option<CompactString>,
    station_km: Option<ride::Kilometres>,
    tmin: Option<i32>,
    tmax: Option<i32>,
    prcp: Option<i32>,
    kind: Option<WeatherKind>,
    source: Option<CompactString>,
    cell: Option<CompactString>,
    issued: Option<StatusTime>,
    years: Option<u16>,
    #[serde(default, deserialize_with = "object::optional")]
    error: Option<WeatherError>,
}

impl From<PlaceWeather> for Wire {
    fn from(weather: PlaceWeather) -> Self {
        let [tmin, tmax, prcp] = match weather.elements() {
            Some(elements) => elements.map(Some),
            None => [None; 3],
        };
        let (kind, source) = (weather.kind(), weather.source().map(CompactString::from));
        let wire = Self { tmin, tmax, prcp, kind, source, ..Self::default() };
        let at = |station: CompactString, km| (Some(station), Some(ride::Kilometres(km)));
        match weather {
            PlaceWeather::Observed(Observation { groundstation, station_km, .. }) => {
                let (groundstation, station_km) = at(groundstation, station_km);
                Self { groundstation, station_km, ..wire }
            }
            PlaceWeather::Forecast(Forecast { cell, cell_km, issued, .. }) => {
                let (groundstation, station_km) = at(cell.clone(), cell_km);
                Self { groundstation, station_km, cell: Some(cell), issued: Some(issued), ..wire }
            }
            PlaceWeather::Climatology(Climatology { groundstation, station_km, years, .. }) => {
                let (groundstation, station_km) = at(groundstation, station_km);
                Self { groundstation, station_km, years: Some(years), ..wire }
            }
            PlaceWeather::Failed { error } => Self { error: Some(error), ..wire },
        }
    }
}

impl TryFrom<Wire> for PlaceWeather {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        let (groundstation, station_km, tmin, tmax, prcp) =
            match (wire.groundstation, wire.station_km, wire.tmin, wire.tmax, wire.prcp, wire.error) {
                (Some(station), Some(ride::Kilometres(km)), Some(tmin), Some(tmax), Some(prcp), None) => {
                    (station, km, tmin, tmax, prcp)
                }
                (None, None, None, None, None, Some(error)) => return Ok(Self::Failed { error }),
                _ => return Err("expected groundstation, station_km, tmin, tmax and prcp together, or error alone"),
            };
        match wire.kind.unwrap_or(WeatherKind::Observed) {
            WeatherKind::Observed => Ok(Self::Observed(Observation { groundstation, station_km, tmin, tmax, prcp })),
            WeatherKind::Forecast => {
                let (Some(source), Some(cell), Some(issued)) = (wire.source, wire.cell, wire.issued) else {
                    return Err("expected source, cell and issued with a forecast");
                };
                Ok(Self::Forecast(Forecast { source, cell, cell_km: station_km, issued, tmin, tmax, prcp }))
            }
            WeatherKind::Climatology => {
                let years = wire.years.ok_or("expected years with a climatology")?;
                Ok(Self::Climatology(Climatology { groundstation, station_km, years, tmin, tmax, prcp }))
            }
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

impl WeatherErrorCode {
    /// Returns whether a later retry may help.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unavailable | Self::DeadlineExceeded | Self::Internal)
    }
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
