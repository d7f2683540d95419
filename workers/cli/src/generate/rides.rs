//! Synthetic rides.

use super::{
    draw::Draw,
    weather::{Weather, WeatherOptions},
};
use crate::arguments::Form;
use common::ride::RejectReason as Why;
use serde::Serialize;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// The coefficients behind the labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Log-odds of a service request for a ride whose features are all 0.
    pub intercept: f64,
    /// Log-odds per original unit, by the name of the feature; other features have no effect.
    pub per_unit: &'static [(&'static str, f64)],
}

/// The coefficients behind every generated label. Health has no effect.
pub const TRUTH: Truth = Truth {
    intercept: -19.2,
    per_unit: &[("distance", 0.75), ("magicpoints", -0.011), ("tmin", -0.004), ("tmax", -0.003), ("prcp", 0.007)],
};

impl Truth {
    /// Returns the coefficient of a feature.
    pub fn of(&self, feature: &str) -> f64 {
        self.per_unit.iter().find(|(name, _)| *name == feature).map_or(0.0, |(_, per_unit)| *per_unit)
    }

    /// Returns the probability of a service request for a ride with these features; features without an effect may be left out.
    pub fn probability(&self, features: &[(&str, f64)]) -> f64 {
        let log_odds = features.iter().fold(self.intercept, |sum, (feature, value)| sum + self.of(feature) * value);
        1.0 / (1.0 + (-log_odds).exp())
    }
}

/// Which rides to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RidesOptions {
    /// Number of rides.
    pub rides: u64,
    /// The same seed gives the same rides; also the seed of the weather behind their labels.
    pub seed: u64,
    /// Share of rides that the splitter rejects, 0 to 1.
    pub bad_share: f64,
    /// The calendar year of all rides, UTC.
    pub year: i16,
    /// Whether rides have labels.
    pub labelled: bool,
}

impl Default for RidesOptions {
    fn default() -> Self {
        let WeatherOptions { seed, year } = WeatherOptions::default();
        Self { rides: 20_000, seed, bad_share: 0.002, year, labelled: true }
    }
}

/// A value of a ride. Some producers write numbers as text, some write invalid values.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Decimal(f64),
    /// Text, or a number as text.
    Text(String),
    /// Invalid in every field.
    Boolean(bool),
}

/// One ride as producers write it; a field without a value is omitted.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)] // the fields of a ride
pub struct SyntheticRide {
    /// Why the splitter rejects it; `None` if it is valid.
    #[serde(skip)]
    pub reject_reason: Option<Why>,
    #[serde(rename = "ride_id")]
    pub ride_id: Option<Value>,
    pub name: Value,
    pub status_time: Option<Value>,
    pub latitude: Option<Value>,
    pub longitude: Option<Value>,
    pub distance: Option<Value>,
    pub health_points: Option<Value>,
    pub magic_points: Option<Value>,
    pub field_service: Option<Value>,
    pub breed: Value,
}

const NAMES: [&str; 20] = [
    "Almond",
    "Biscuit",
    "Calliope",
    "Dapple",
    "Ember",
    "Fennel",
    "Gossamer",
    "Hazel, Jr.",
    "Indigo",
    "Jubilee",
    "Kestrel",
    "Luna",
    "Marzipan",
    "Nutmeg",
    "Orla \"Swift\" Hoof",
    "Pixie",
    "Quartz",
    "Rowan",
    "Søren",
    "Thistle",
];
const BREEDS: [&str; 6] = ["Highland", "Silverhorn", "Moonmane", "Cloudrunner", "Marsh", "Emberhoof"];

/// A reason to reject a ride, and the change that makes a ride invalid for it. The change receives the first ride's id.
type Fault = (Why, fn(&mut SyntheticRide, Value));

/// The faults of invalid rides, in turn: all reasons to reject a well-formed object.
const FAULTS: [Fault; 23] = [
    (Why::MissingStatustime, |ride, _| ride.status_time = None),
    (Why::InvalidStatustime, |ride, _| ride.status_time = Some(Value::Text("yesterday".to_owned()))),
    (Why::MissingLatitude, |ride, _| ride.latitude = None),
    (Why::InvalidLatitude, |ride, _| ride.latitude = Some(Value::Text("n/a".to_owned()))),
    (Why::LatitudeOutOfRange, |ride, _| ride.latitude = Some(Value::Decimal(91.25))),
    (Why::MissingLongitude, |ride, _| ride.longitude = None),
    (Why::InvalidLongitude, |ride, _| ride.longitude = Some(Value::Text("n/a".to_owned()))),
    (Why::LongitudeOutOfRange, |ride, _| ride.longitude = Some(Value::Decimal(-190.5))),
    (Why::MissingDistance, |ride, _| ride.distance = None),
    (Why::InvalidDistance, |ride, _| ride.distance = Some(Value::Text("n/a".to_owned()))),
    (Why::NegativeDistance, |ride, _| ride.distance = Some(Value::Decimal(-1.5))),
    (Why::MissingHealthpoints, |ride, _| ride.health_points = None),
    (Why::InvalidHealthpoints, |ride, _| ride.health_points = Some(Value::Text("n/a".to_owned()))),
    (Why::MissingMagicpoints, |ride, _| ride.magic_points = None),
    (Why::InvalidMagicpoints, |ride, _| ride.magic_points = Some(Value::Boolean(true))),
    (Why::InvalidFieldservice, |ride, _| ride.field_service = Some(Value::Whole(2))),
    (Why::InvalidName, |ride, _| ride.name = Value::Boolean(true)),
    (Why::InvalidBreed, |ride, _| ride.breed = Value::Boolean(false)),
    (Why::InvalidRideId, |ride, _| ride.ride_id = Some(Value::Boolean(true))),
    (Why::DuplicateRideId, |ride, first_id| ride.ride_id = Some(first_id)),
    (Why::DistanceOutOfRange, |ride, _| ride.distance = Some(Value::Decimal(1_000_000.5))),
    (Why::HealthpointsOutOfRange, |ride, _| ride.health_points = Some(Value::Whole(1_000_000_001))),
    (Why::MagicpointsOutOfRange, |ride, _| ride.magic_points = Some(Value::Whole(-1_000_000_001))),
];

/// Times Square: degrees north and east.
pub(super) const MANHATTAN: (f64, f64) = (40.749167, -73.985184);
/// Radius around it in kilometres within which rides end.
const AROUND_KM: f64 = 60.0;
/// Kilometres of one degree of latitude.
const DEGREE_KM: f64 = 111.195;
/// Cosine of Manhattan's latitude: length of a degree of longitude relative to one of latitude.
const LONGITUDE_SCALE: f64 = 0.7576;
/// Share of rides that end hundreds of kilometres away, without a station in reach.
const FAR_SHARE: f64 = 0.0008;
/// Share of rides whose numbers are written as text.
const TEXT_SHARE: f64 = 0.3;
/// Weather behind the label of a ride that has none: tmin, tmax, prcp.
const TYPICAL: [f64; 3] = [90.0, 170.0, 45.0];

/// Generates rides one after the other. The first has a `ride_id`, so that a later one can repeat it.
pub fn rides(options: &RidesOptions) -> impl Iterator<Item = SyntheticRide> + use<> {
    let RidesOptions { rides, seed, year, .. } = *options;
    let mut generator = RideGenerator {
        options: *options,
        draw: Draw::new(seed, 1),
        weather: Weather::new(&WeatherOptions { seed, year }),
        invalid_so_far: 0,
    };
    (0..rides).map(move |index| generator.ride(index))
}

struct RideGenerator {
    options: RidesOptions,
    draw: Draw,
    weather: Weather,
    invalid_so_far: usize,
}

impl RideGenerator {
    fn ride(&mut self, index: u64) -> SyntheticRide {
        let draw = &mut self.draw;
        let day = draw.below(self.weather.calendar.len());
        let millis = draw.below(86_400_000);
        let (latitude, longitude) = place(draw);
        let distance = millionths(29.0 + 2.0 * draw.unit());
        let healthpoints = 290 + draw.below(81) as i64;
        let magicpoints = (10.0 * distance + 60.0 * draw.normal()).round().max(0.0) as i64;
        let [tmin, tmax, prcp] = self.weather.near(day, latitude, longitude).unwrap_or(TYPICAL);
        let probability = TRUTH.probability(&[
            ("distance", distance),
            ("magicpoints", magicpoints as f64),
            ("tmin", tmin),
            ("tmax", tmax),
            ("prcp", prcp),
        ]);
        let service = draw.unit() < probability;
        let name = NAMES[draw.below(NAMES.len())];
        let breed = BREEDS[draw.below(BREEDS.len())];
        let as_text = draw.unit() < TEXT_SHARE;
        let is_invalid = draw.unit() < self.options.bad_share && index > 0;

        let whole = |number: i64| Some(if as_text { Value::Text(number.to_string()) } else { Value::Whole(number) });
        let decimal =
            |number: f64| Some(if as_text { Value::Text(format!("{number:.6}")) } else { Value::Decimal(number) });
        let mut ride = SyntheticRide {
            reject_reason: None,
            ride_id: (index == 0).then(|| self.first_ride_id()),
            name: Value::Text(name.to_owned()),
            status_time: Some(Value::Text(self.time(day, millis))),
            latitude: decimal(latitude),
            longitude: decimal(longitude),
            distance: decimal(distance),
            health_points: whole(healthpoints),
            magic_points: whole(magicpoints),
            field_service: if self.options.labelled { whole(service.into()) } else { None },
            breed: Value::Text(breed.to_owned()),
        };
        if is_invalid {
            self.invalidate(&mut ride);
        }
        ride
    }

    fn first_ride_id(&self) -> Value {
        Value::Text(format!("made-up-{}-{}-first", self.options.year, self.options.seed))
    }

    /// Formats a time as `YYYY-MM-DD HH:MM:SS.fff`.
    fn time(&self, day: usize, millis: usize) -> String {
        let (month, day) = self.weather.calendar[day];
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}", self.options.year)
    }

    /// Makes a ride invalid.
    fn invalidate(&mut self, ride: &mut SyntheticRide) {
        let (why, change) = FAULTS[self.invalid_so_far % FAULTS.len()];
        self.invalid_so_far += 1;
        change(ride, self.first_ride_id());
        ride.reject_reason = Some(why);
    }
}

/// Draws the place where a ride ends: degrees north and east.
fn place(draw: &mut Draw) -> (f64, f64) {
    let (north_km, east_km) = if draw.unit() < FAR_SHARE {
        (-300.0 - 150.0 * draw.unit(), -200.0 - 150.0 * draw.unit())
    } else {
        loop {
            let (x, y) = (2.0 * draw.unit() - 1.0, 2.0 * draw.unit() - 1.0);
            if x * x + y * y <= 1.0 {
                break (AROUND_KM * y, AROUND_KM * x);
            }
        }
    };
    let latitude = MANHATTAN.0 + north_km / DEGREE_KM;
    let longitude = MANHATTAN.1 + east_km / (DEGREE_KM * LONGITUDE_SCALE);
    (millionths(latitude), millionths(longitude))
}

/// Rounds to six decimals.
fn millionths(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// Writes a document of synthetic rides, with a few of them in memory at a time.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_rides(path: &Path, form: Form, options: &RidesOptions) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (start, between, end) = match form {
        Form::TravelData => ("{\"travel_data\":[\n", ",\n", "\n]}\n"),
        Form::Array => ("[\n", ",\n", "\n]\n"),
        Form::Ndjson => ("", "\n", "\n"),
        Form::Concatenated => ("", "", ""),
    };
    out.write_all(start.as_bytes())?;
    for (index, ride) in rides(options).enumerate() {
        if index > 0 {
            out.write_all(between.as_bytes())?;
        }
        serde_json::to_writer(&mut out, &ride)?;
    }
    out.write_all(end.as_bytes())?;
    out.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests;
