//! `score-request.v1`: rides to score.

use crate::message::{
    decode::Message, object, violation::Violation, weather_request::WeatherPlace, weather_response::PlaceWeather,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Maximum number of rides in one request, whatever limit a scorer is configured with. The decoder holds all rides in
/// memory, and a ride of two bytes of JSON takes more than 200 bytes there.
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

    /// Converts tenths of °C to this unit.
    pub fn of_celsius_tenths(self, tenths: f64) -> f64 {
        match self {
            Self::CelsiusTenths => tenths,
            Self::Celsius => tenths / 10.0,
            Self::Fahrenheit => tenths * 9.0 / 50.0 + 32.0,
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

    /// Converts tenths of mm to this unit.
    pub fn of_millimetre_tenths(self, tenths: f64) -> f64 {
        match self {
            Self::MillimetreTenths => tenths,
            Self::Millimetre => tenths / 10.0,
            Self::Inch => tenths / 254.0,
        }
    }
}

/// The features of one ride; at least one that the model uses. The others are imputed, unless the request says otherwise
/// ([`ScoreRequest::impute`]). The weather is looked up for a ride that has a place and a time instead of it. A ride that cannot be scored is an error for this ride alone; the other rides of the request are
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
    /// Latitude in degrees north, as in [`WeatherPlace`]. Read only if the weather is looked up, so that any other record of a ride can
    /// be sent with its weather.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latitude: Option<Value>,
    /// Longitude in degrees east, as in [`WeatherPlace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longitude: Option<Value>,
    /// Time, as in [`WeatherPlace`]; its UTC date is the day of the weather.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statustime: Option<Value>,
    /// What was found for place and time: the source of `tmin`, `tmax` and `prcp`, or why there is no weather. Repeated with the score.
    /// The fleet sets it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub weather: Option<Box<PlaceWeather>>,
}

impl ScoreRide {
    /// Returns where and when the weather is to be looked up; `None` if the ride has weather, or a lookup that failed, or no place. A
    /// time alone is no place: many records have one.
    ///
    /// # Errors
    /// Fails at the first member of the place that is missing or invalid.
    pub fn place(&self) -> Result<Option<WeatherPlace>, Violation> {
        let given = [self.tmin, self.tmax, self.tavg, self.prcp];
        let has_place = self.latitude.is_some() || self.longitude.is_some();
        if !has_place || self.weather.is_some() || given.iter().any(Option::is_some) {
            return Ok(None);
        }
        let members = [("latitude", &self.latitude), ("longitude", &self.longitude), ("statustime", &self.statustime)];
        if let Some((name, _)) = members.iter().find(|(_, value)| value.is_none()) {
            let why = "expected a value: the weather is looked up by latitude, longitude and statustime";
            return Err(Violation::new(*name, why));
        }
        let place: Map<String, Value> =
            members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect();
        let read = serde_path_to_error::deserialize::<_, WeatherPlace>(Value::Object(place));
        read.map(Some).map_err(|error| Violation::new(error.path().to_string(), error.inner()))
    }

    /// Adds what was found for the place; `units` are those of the request.
    pub fn add_weather(&mut self, found: PlaceWeather, Units { temperature, precipitation }: Units) {
        if let Some([tmin, tmax, prcp]) = found.elements().map(|tenths| tenths.map(f64::from)) {
            [self.tmin, self.tmax] = [tmin, tmax].map(|tenths| Some(temperature.of_celsius_tenths(tenths)));
            self.prcp = Some(precipitation.of_millimetre_tenths(prcp));
        }
        self.weather = Some(Box::new(found));
    }
}

impl ScoreRequest {
    /// Returns the places at which weather is to be looked up, each with the index of its ride.
    pub fn places(&self) -> Vec<(usize, WeatherPlace)> {
        let places = self.rides.iter().enumerate().filter_map(|(index, ride)| Some((index, ride.place().ok()??)));
        places.collect()
    }
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
