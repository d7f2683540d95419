//! The body of a score request: a ride, an array of rides, or an object with rides and options.

use super::{
    json::{read_json, without_mark},
    members::{self, Id, Members, Name, Number, Spelling},
};
use crate::http::problem::Problem;
use common::{
    message::{PrecipitationUnit, SCORE_RIDES_MAX, TemperatureUnit, Units},
    reading,
    ride::{InvalidStatusTime, StatusTime},
};
use runtime::host;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json};
use std::fmt;
use utoipa::ToSchema;

/// A ride to be scored: `distance`, `healthpoints`, `magicpoints`, and the weather of its day in one of three forms: `tmin`, `tmax`
/// and `prcp` in NOAA's units; `temperature` and `precipitation` with units; or `latitude`, `longitude` and `statustime`. For a place
/// and time, the weather is looked up, and the answer says whether it is observed, a forecast or a climatology. One feature is enough:
/// the others are imputed, unless `impute` is false. A key that resembles a missing feature is an error. As in batches, keys may be in
/// any case and numbers may be strings; null means absent; other members, such as `name` and `fieldservice`, are ignored.
#[derive(Debug, Clone, Default, PartialEq, ToSchema)]
#[schema(example = json!({"distance": 30, "healthpoints": 330, "magicpoints": 300,
    "temperature": {"min": 9.7, "max": 17.6, "unit": "celsius"}, "precipitation": {"amount": 4.8, "unit": "millimetre"}}))]
pub(crate) struct RideToScore {
    /// Returned with the score.
    #[schema(max_length = 128)]
    pub(crate) ride_id: Option<String>,
    /// Breed of the unicorn. The model of the breed scores the ride; if there is none, the global model does, and the answer says
    /// why in `fallback`.
    #[schema(max_length = 128)]
    pub(crate) breed: Option<String>,
    /// Miles, not negative.
    #[schema(minimum = 0)]
    pub(crate) distance: Option<f64>,
    /// Health points at the end of the ride.
    pub(crate) healthpoints: Option<f64>,
    /// Magic points burnt.
    pub(crate) magicpoints: Option<f64>,
    /// Lowest temperature of the day, tenths of °C, or in `units.temperature`.
    pub(crate) tmin: Option<f64>,
    /// Highest temperature of the day, tenths of °C, or in `units.temperature`.
    pub(crate) tmax: Option<f64>,
    /// Mean temperature of the day, tenths of °C, or in `units.temperature`: instead of `tmin`, of `tmax`, or of both.
    pub(crate) tavg: Option<f64>,
    /// Precipitation of the day, tenths of mm, or in `units.precipitation`.
    pub(crate) prcp: Option<f64>,
    /// Instead of `tmin`, `tmax` and `tavg`.
    pub(crate) temperature: Option<Temperature>,
    /// Instead of `prcp`.
    pub(crate) precipitation: Option<Precipitation>,
    /// Degrees north, −90 to 90.
    pub(crate) latitude: Option<f64>,
    /// Degrees east, −180 to 180.
    pub(crate) longitude: Option<f64>,
    /// When the ride ended: `YYYY-MM-DD HH:MM:SS[.fff]` in UTC, RFC 3339, or one of the other forms that batches
    /// accept; or `now`.
    #[schema(value_type = Option<String>, example = "2018-04-25 17:03:05")]
    pub(crate) statustime: Option<Moment>,
    /// Keys in another spelling than that of the member, and keys that resemble a member.
    #[schema(ignore)]
    pub(crate) spellings: Vec<Spelling>,
}

impl RideToScore {
    /// Returns whether the ride has none of the members.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { ride_id, breed, temperature, precipitation, statustime, .. } = self;
        RIDE_KEYS.iter().all(|key| self.number(key).is_none())
            && ride_id.is_none()
            && breed.is_none()
            && temperature.is_none()
            && precipitation.is_none()
            && statustime.is_none()
    }

    /// Returns how the request spells a member, if its spelling differs.
    pub(crate) fn spelling(&self, field: &str) -> Option<&str> {
        self.spellings.iter().find(|spelling| !spelling.is_near && spelling.field == field).map(|found| &*found.key)
    }

    /// Returns a key of the request that resembles one of these fields.
    pub(crate) fn near_miss(&self, fields: &[&str]) -> Option<&Spelling> {
        self.spellings.iter().find(|spelling| spelling.is_near && fields.contains(&spelling.field))
    }
}

/// The numbers come first, in this order, then the others.
const RIDE_KEYS: [&str; 14] = [
    "distance",
    "healthpoints",
    "magicpoints",
    "tmin",
    "tmax",
    "tavg",
    "prcp",
    "latitude",
    "longitude",
    "statustime",
    "ride_id",
    "breed",
    "temperature",
    "precipitation",
];
const STATUSTIME: usize = 9;
const RIDE_ID: usize = 10;
const BREED: usize = 11;
const TEMPERATURE: usize = 12;

/// Maximum length of a key that is compared with the members, bytes.
const NEAR_MISS_BYTES_MAX: usize = 32;

/// Returns the member that a key resembles, of those that scoring needs: as in batches, and the weather.
fn near_miss(key: &str) -> Option<&'static str> {
    if key.len() > NEAR_MISS_BYTES_MAX {
        return None;
    }
    match reading::near_miss(key) {
        Some("ride_id" | "name" | "breed" | "fieldservice") => return None,
        Some(field) => return Some(field),
        None => {}
    }
    let letters: String = key.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    match letters.as_str() {
        "tmin" | "mintemp" | "tempmin" | "mintemperature" | "temperaturemin" | "lowesttemperature" => Some("tmin"),
        "tavg" | "avgtemp" | "tempavg" | "meantemp" | "averagetemperature" | "meantemperature" => Some("tavg"),
        "tmax" | "maxtemp" | "tempmax" | "maxtemperature" | "temperaturemax" | "highesttemperature" => Some("tmax"),
        "prcp" | "precip" | "rain" | "rainfall" | "precipitationmm" => Some("prcp"),
        _ => None,
    }
}

impl RideToScore {
    /// Reads the value of the key at this position of [`RIDE_KEYS`].
    fn value<'de, A: MapAccess<'de>>(&mut self, position: usize, map: &mut A) -> Result<(), A::Error> {
        match self.number_mut(position) {
            Some(number) => *number = map.next_value::<Number>()?.0,
            None => return self.other_value(position, map),
        }
        Ok(())
    }

    /// Returns the number at this position of [`RIDE_KEYS`].
    fn number_mut(&mut self, position: usize) -> Option<&mut Option<f64>> {
        let Self { distance, healthpoints, magicpoints, tmin, tmax, tavg, prcp, latitude, longitude, .. } = self;
        let numbers = [distance, healthpoints, magicpoints, tmin, tmax, tavg, prcp, latitude, longitude];
        numbers.into_iter().nth(position)
    }

    /// Sets a number, by its key; other keys change nothing.
    pub(crate) fn set(&mut self, key: &str, value: f64) {
        let position = RIDE_KEYS.iter().position(|known| *known == key);
        if let Some(number) = position.and_then(|position| self.number_mut(position)) {
            *number = Some(value);
        }
    }

    /// Returns a number, by its key; `None` for other keys.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        let Self { distance, healthpoints, magicpoints, tmin, tmax, tavg, prcp, latitude, longitude, .. } = self;
        let numbers = [distance, healthpoints, magicpoints, tmin, tmax, tavg, prcp, latitude, longitude];
        let position = RIDE_KEYS.iter().position(|known| *known == key)?;
        numbers.into_iter().nth(position).copied().flatten()
    }

    fn other_value<'de, A: MapAccess<'de>>(&mut self, position: usize, map: &mut A) -> Result<(), A::Error> {
        match position {
            STATUSTIME => self.statustime = map.next_value::<Option<Moment>>()?.filter(|moment| !moment.is_blank()),
            RIDE_ID => self.ride_id = map.next_value::<Id>()?.0,
            BREED => self.breed = map.next_value::<Name>()?.0,
            TEMPERATURE => {
                let given = map.next_value::<Option<Temperature>>()?;
                self.temperature = given.filter(|given| *given != Temperature::default());
            }
            _ => {
                let given = map.next_value::<Option<Precipitation>>()?;
                self.precipitation = given.filter(|given| *given != Precipitation::default());
            }
        }
        Ok(())
    }

    fn note(&mut self, spelling: Spelling) {
        // The first key that resembles a member is enough: memory does not grow with the number of such keys.
        let is_known = |known: &Spelling| known.is_near && known.field == spelling.field;
        if !(spelling.is_near && self.spellings.iter().any(is_known)) {
            self.spellings.push(spelling);
        }
    }

    /// Returns whether the ride has any weather, in any of its forms.
    pub(crate) fn has_weather(&self) -> bool {
        let Self { tmin, tmax, tavg, prcp, temperature, precipitation, .. } = self;
        [tmin, tmax, tavg, prcp].iter().any(|value| value.is_some()) || temperature.is_some() || precipitation.is_some()
    }

    /// Returns whether the ride has all features; a mean temperature may replace both temperatures, and a place with its time all
    /// weather. If not, a key may be misspelled.
    fn is_whole(&self) -> bool {
        let has_temperature =
            self.temperature.is_some() || self.tavg.is_some() || (self.tmin.is_some() && self.tmax.is_some());
        let has_weather = has_temperature && (self.precipitation.is_some() || self.prcp.is_some());
        let has_place = self.latitude.is_some() && self.longitude.is_some() && self.statustime.is_some();
        let has_mileage = self.distance.is_some() && self.healthpoints.is_some() && self.magicpoints.is_some();
        has_mileage && (has_weather || has_place)
    }
}

/// A ride, read with or without a search for keys that resemble a member.
#[derive(Default)]
struct Read<const NEAR: bool>(RideToScore);

impl<const NEAR: bool> Members for Read<NEAR> {
    const KEYS: &'static [&'static str] = &RIDE_KEYS;
    const NEAR: bool = NEAR;

    fn value<'de, A: MapAccess<'de>>(&mut self, position: usize, map: &mut A) -> Result<(), A::Error> {
        self.0.value(position, map)
    }

    fn near(key: &str) -> Option<&'static str> {
        near_miss(key)
    }

    fn note(&mut self, spelling: Spelling) {
        self.0.note(spelling);
    }
}

impl<'de, const NEAR: bool> Deserialize<'de> for Read<NEAR> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        members::read(deserializer)
    }
}

/// The temperatures of a day: the lowest, the highest, or their mean; any two determine the third.
#[derive(Debug, Clone, Copy, Default, PartialEq, ToSchema)]
pub(crate) struct Temperature {
    /// Mean of the lowest and the highest.
    #[schema(value_type = Option<f64>)]
    pub(crate) value: Option<f64>,
    /// Lowest.
    #[schema(value_type = Option<f64>)]
    pub(crate) min: Option<f64>,
    /// Highest.
    #[schema(value_type = Option<f64>)]
    pub(crate) max: Option<f64>,
    /// Unit of these temperatures.
    #[schema(value_type = TemperatureUnitName)]
    pub(crate) unit: Option<TemperatureUnit>,
}

impl Members for Temperature {
    const KEYS: &'static [&'static str] = &["value", "min", "max", "unit"];

    fn value<'de, A: MapAccess<'de>>(&mut self, position: usize, map: &mut A) -> Result<(), A::Error> {
        match position {
            0 => self.value = map.next_value::<Number>()?.0,
            1 => self.min = map.next_value::<Number>()?.0,
            2 => self.max = map.next_value::<Number>()?.0,
            _ => self.unit = map.next_value()?,
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Temperature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        members::read(deserializer)
    }
}

/// The precipitation of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, ToSchema)]
pub(crate) struct Precipitation {
    /// Amount in `unit`.
    #[schema(value_type = f64, minimum = 0)]
    pub(crate) amount: Option<f64>,
    /// Its unit.
    #[schema(value_type = PrecipitationUnitName)]
    pub(crate) unit: Option<PrecipitationUnit>,
}

impl Members for Precipitation {
    const KEYS: &'static [&'static str] = &["amount", "unit"];

    fn value<'de, A: MapAccess<'de>>(&mut self, position: usize, map: &mut A) -> Result<(), A::Error> {
        match position {
            0 => self.amount = map.next_value::<Number>()?.0,
            _ => self.unit = map.next_value()?,
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Precipitation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        members::read(deserializer)
    }
}

/// An unparsed time: parsed when its ride is checked, so that an invalid time fails this ride alone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Moment {
    /// A text.
    Text(String),
    /// Seconds or milliseconds since the epoch.
    Epoch(f64),
}

impl Moment {
    fn is_blank(&self) -> bool {
        matches!(self, Self::Text(text) if common::text::trimmed(text).is_empty())
    }

    /// Parses the time.
    ///
    /// # Errors
    /// Fails on a form that batches do not accept, except `now`.
    pub(crate) fn read(&self) -> Result<StatusTime, InvalidStatusTime> {
        match self {
            Self::Text(text) => host::read_time(text),
            Self::Epoch(number) => StatusTime::from_epoch(*number),
        }
    }

    /// Returns the time as received, shortened.
    pub(crate) fn excerpt(&self) -> Value {
        match self {
            Self::Text(text) => json!(text.chars().take(40).collect::<String>()),
            Self::Epoch(number) => json!(number),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl Visitor<'_> for Visit {
            type Value = Moment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time, as in \"2018-04-25 17:03:05\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Moment, E> {
                members::refuse_marked(text)?;
                Ok(Moment::Text(text.to_owned()))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Moment, E> {
                Ok(Moment::Epoch(number))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Moment, E> {
                Ok(Moment::Epoch(number as f64))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Moment, E> {
                Ok(Moment::Epoch(number as f64))
            }
        }

        deserializer.deserialize_any(Visit)
    }
}

/// Units of temperature.
#[derive(ToSchema)]
#[schema(as = TemperatureUnit, rename_all = "snake_case")]
#[allow(dead_code, missing_docs)]
pub(crate) enum TemperatureUnitName {
    Celsius,
    Fahrenheit,
    CelsiusTenths,
}

/// Units of precipitation.
#[derive(ToSchema)]
#[schema(as = PrecipitationUnit, rename_all = "snake_case")]
#[allow(dead_code, missing_docs)]
pub(crate) enum PrecipitationUnitName {
    Millimetre,
    Inch,
    MillimetreTenths,
}

/// Units of `tmin`, `tmax` and `prcp`; by default NOAA's.
#[derive(ToSchema)]
#[schema(as = Units)]
#[allow(dead_code)]
pub(crate) struct UnitsOfRides {
    /// Unit of `tmin`, `tmax` and `tavg`; default `celsius_tenths`.
    temperature: Option<TemperatureUnitName>,
    /// Unit of `prcp`; default `millimetre_tenths`.
    precipitation: Option<PrecipitationUnitName>,
}

/// One ride, or several.
#[derive(ToSchema)]
#[schema(as = ScoreBody)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant)] // Never constructed: it describes the body.
pub(crate) enum Body {
    /// One ride.
    One(RideToScore),
    /// Several rides: each has its score or its error in its position.
    Many(Vec<RideToScore>),
    /// Several rides, as in `score-request.v1`.
    Request(RidesToScore),
}

/// Rides and options: the body of `score-request.v1`. `travel_data` is a synonym of `rides`.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(crate) struct RidesToScore {
    /// At least one ride.
    rides: Vec<RideToScore>,
    /// Units of `tmin`, `tmax`, `tavg` and `prcp`.
    units: Option<UnitsOfRides>,
    /// Whether to explain the scores by each feature's contribution. Overrides the parameter of the URL.
    explain: Option<bool>,
    /// Whether missing features are imputed. Overrides the parameter of the URL.
    impute: Option<bool>,
    /// Returned with the answer.
    request_id: Option<String>,
}

/// Rides of an array. All are counted, but only as many are kept as a request may have: a ride of a few bytes takes a hundred
/// times as much memory.
#[derive(Debug, Default)]
pub(crate) struct Rides {
    pub(crate) kept: Vec<RideToScore>,
    pub(crate) count: usize,
}

/// [`Rides`], read as [`Read`] reads one.
struct ReadRides<const NEAR: bool>(Rides);

impl<'de, const NEAR: bool> Deserialize<'de> for ReadRides<NEAR> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<const NEAR: bool>;

        impl<'de, const NEAR: bool> Visitor<'de> for Visit<NEAR> {
            type Value = ReadRides<NEAR>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of rides")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut rides: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < SCORE_RIDES_MAX {
                    let Some(Read::<NEAR>(ride)) = rides.next_element()? else { break };
                    kept.push(ride);
                }
                let mut count = kept.len();
                while count >= SCORE_RIDES_MAX && rides.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(ReadRides(Rides { kept, count }))
            }
        }

        deserializer.deserialize_seq(Visit::<NEAR>)
    }
}

/// An object that is a ride, or has rides.
#[derive(Debug, Default)]
pub(crate) struct RideOrRides {
    pub(crate) ride: RideToScore,
    /// `Some` if several rides were sent.
    pub(crate) rides: Option<Rides>,
    pub(crate) units: Units,
    pub(crate) explain: Option<bool>,
    pub(crate) impute: Option<bool>,
    pub(crate) request_id: Option<String>,
}

const ALL_KEYS: [&str; 20] = {
    let mut keys = [""; 20];
    let mut at = 0;
    while at < RIDE_KEYS.len() {
        keys[at] = RIDE_KEYS[at];
        at += 1;
    }
    [keys[at], keys[at + 1], keys[at + 2], keys[at + 3], keys[at + 4], keys[at + 5]] =
        ["rides", "travel_data", "units", "explain", "impute", "request_id"];
    keys
};
const RIDES: usize = RIDE_KEYS.len();
const TRAVEL_DATA: usize = RIDES + 1;
const UNITS: usize = RIDES + 2;
const EXPLAIN: usize = RIDES + 3;
const IMPUTE: usize = RIDES + 4;

/// [`RideOrRides`], read as [`Read`] reads a ride.
#[derive(Default)]
struct ReadBody<const NEAR: bool>(RideOrRides);

impl<const NEAR: bool> Members for ReadBody<NEAR> {
    const KEYS: &'static [&'static str] = &ALL_KEYS;
    const NEAR: bool = NEAR;

    fn value<'de, A: MapAccess<'de>>(&mut self, position: usize, map: &mut A) -> Result<(), A::Error> {
        let Self(body) = self;
        match position {
            ..RIDES => return body.ride.value(position, map),
            RIDES | TRAVEL_DATA => match (map.next_value::<Option<ReadRides<NEAR>>>()?, &body.rides) {
                (Some(_), Some(_)) => {
                    return Err(A::Error::custom("rides are given twice, expected rides or travel_data"));
                }
                (Some(ReadRides(rides)), None) => body.rides = Some(rides),
                (None, _) => {}
            },
            UNITS => body.units = map.next_value::<Option<GivenUnits>>()?.unwrap_or_default().0,
            EXPLAIN => body.explain = map.next_value()?,
            IMPUTE => body.impute = map.next_value()?,
            _ => body.request_id = map.next_value::<Name>()?.0,
        }
        Ok(())
    }

    fn near(key: &str) -> Option<&'static str> {
        near_miss(key)
    }

    fn note(&mut self, spelling: Spelling) {
        if RIDE_KEYS.contains(&spelling.field) {
            self.0.ride.note(spelling);
        }
    }
}

impl<'de, const NEAR: bool> Deserialize<'de> for ReadBody<NEAR> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        members::read(deserializer)
    }
}

/// Reads one ride, or rides in an array or an object. If a ride lacks a member, the body is read again to find keys that resemble
/// it.
///
/// # Errors
/// As [`read_json`].
pub(crate) fn read(body: &[u8]) -> Result<RideOrRides, Problem> {
    let request = read_as::<false>(body)?;
    let is_whole = match &request.rides {
        Some(rides) => rides.kept.iter().all(RideToScore::is_whole),
        None => request.ride.is_whole(),
    };
    if is_whole { Ok(request) } else { read_as::<true>(body) }
}

fn read_as<const NEAR: bool>(body: &[u8]) -> Result<RideOrRides, Problem> {
    if without_mark(body).iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let ReadRides::<NEAR>(rides) = read_json(body)?;
        return Ok(RideOrRides { rides: Some(rides), ..RideOrRides::default() });
    }
    read_json(body).map(|ReadBody::<NEAR>(request)| request)
}

/// Reads one ride, as [`read`] does.
///
/// # Errors
/// As [`read_json`].
pub(crate) fn read_one(body: &[u8]) -> Result<RideToScore, Problem> {
    let Read::<false>(ride) = read_json(body)?;
    if ride.is_whole() {
        return Ok(ride);
    }
    read_json(body).map(|Read::<true>(ride)| ride)
}

/// The units of a request; null means the default.
#[derive(Debug, Clone, Copy, Default)]
struct GivenUnits(Units);

impl Members for GivenUnits {
    const KEYS: &'static [&'static str] = &["temperature", "precipitation"];

    fn value<'de, A: MapAccess<'de>>(&mut self, position: usize, map: &mut A) -> Result<(), A::Error> {
        match position {
            0 => self.0.temperature = map.next_value::<Option<_>>()?.unwrap_or_default(),
            _ => self.0.precipitation = map.next_value::<Option<_>>()?.unwrap_or_default(),
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for GivenUnits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        members::read(deserializer)
    }
}

#[cfg(test)]
mod tests;
