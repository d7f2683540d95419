//! Synthetic rides.

use super::{
    draw::Draw,
    weather::{Weather, WeatherOptions},
};
use common::{features::FEATURE_COUNT, ride::RejectReason};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// What the labels are drawn from: the log-odds of a service request, per original unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Log-odds where everything is 0.
    pub intercept: f64,
    /// Per mile.
    pub distance: f64,
    /// Per point.
    pub healthpoints: f64,
    /// Per point.
    pub magicpoints: f64,
    /// Per tenth of °C.
    pub tmin: f64,
    /// Per tenth of °C.
    pub tmax: f64,
    /// Per tenth of mm.
    pub prcp: f64,
}

/// The truth behind every generated label. Health does not matter.
pub const TRUTH: Truth = Truth {
    intercept: -19.2,
    distance: 0.75,
    healthpoints: 0.0,
    magicpoints: -0.011,
    tmin: -0.004,
    tmax: -0.003,
    prcp: 0.007,
};

impl Truth {
    /// One per feature, in the order of `common::features::FEATURES`.
    pub fn coefficients(&self) -> [f64; FEATURE_COUNT] {
        [self.distance, self.healthpoints, self.magicpoints, self.tmin, self.tmax, self.prcp]
    }

    /// Probability of a service request of a ride with these features.
    pub fn probability(&self, features: [f64; FEATURE_COUNT]) -> f64 {
        let log_odds = self.coefficients().iter().zip(features).fold(self.intercept, |sum, (b, x)| sum + b * x);
        1.0 / (1.0 + (-log_odds).exp())
    }
}

/// Which rides to make up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RidesOptions {
    /// How many.
    pub rides: u64,
    /// Same seed, same rides; the seed of the weather they are labelled with, too.
    pub seed: u64,
    /// Share of rides that the splitter rejects, 0 to 1.
    pub bad_share: f64,
    /// The calendar year, UTC, all rides are of.
    pub year: i16,
    /// Whether it is known if service was asked for.
    pub labelled: bool,
}

impl Default for RidesOptions {
    fn default() -> Self {
        let WeatherOptions { seed, year } = WeatherOptions::default();
        Self { rides: 20_000, seed, bad_share: 0.002, year, labelled: true }
    }
}

/// How a document holds its rides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentForm {
    /// `{"travel_data": [...]}`
    TravelData,
    /// `[...]`
    Array,
    /// One object a line.
    Ndjson,
    /// Objects with nothing between them.
    Concatenated,
}

/// A value of a ride: some producers write numbers as text, some write nonsense.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Decimal(f64),
    /// Text, or a number as text.
    Text(String),
    /// What no field takes.
    Boolean(bool),
}

/// One ride as producers write it; a field without a value is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)] // the fields of a ride
pub struct MadeUpRide {
    /// Why the splitter rejects it, for a bad one.
    #[serde(skip)]
    pub bad: Option<RejectReason>,
    #[serde(rename = "ride_id", skip_serializing_if = "Option::is_none")]
    pub ride_id: Option<Value>,
    pub name: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_time: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latitude: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longitude: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_points: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub magic_points: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// The reasons bad rides are made for, in turn: all that a well-formed object can be rejected for.
const BAD: [RejectReason; 23] = [
    RejectReason::MissingStatustime,
    RejectReason::InvalidStatustime,
    RejectReason::MissingLatitude,
    RejectReason::InvalidLatitude,
    RejectReason::LatitudeOutOfRange,
    RejectReason::MissingLongitude,
    RejectReason::InvalidLongitude,
    RejectReason::LongitudeOutOfRange,
    RejectReason::MissingDistance,
    RejectReason::InvalidDistance,
    RejectReason::NegativeDistance,
    RejectReason::MissingHealthpoints,
    RejectReason::InvalidHealthpoints,
    RejectReason::MissingMagicpoints,
    RejectReason::InvalidMagicpoints,
    RejectReason::InvalidFieldservice,
    RejectReason::InvalidName,
    RejectReason::InvalidBreed,
    RejectReason::InvalidRideId,
    RejectReason::DuplicateRideId,
    RejectReason::DistanceOutOfRange,
    RejectReason::HealthpointsOutOfRange,
    RejectReason::MagicpointsOutOfRange,
];

/// Times Square: degrees north and east.
pub(super) const MANHATTAN: (f64, f64) = (40.749167, -73.985184);
/// Kilometres around it in which rides end.
const AROUND_KM: f64 = 60.0;
/// Kilometres of one degree of latitude.
const DEGREE_KM: f64 = 111.195;
/// Cosine of Manhattan's latitude, by which a degree of longitude is shorter.
const SHORTER: f64 = 0.7576;
/// Share of rides that end hundreds of kilometres away, where no station is near.
const FAR_SHARE: f64 = 0.0008;
/// Share of rides whose numbers are written as text.
const TEXT_SHARE: f64 = 0.3;
/// Stands in for the weather of a ride that has none when its label is drawn: tmin, tmax, prcp.
const TYPICAL: [f64; 3] = [90.0, 170.0, 45.0];

/// Makes up rides, one after the other. The first carries a `ride_id`, so that a later one can repeat it.
pub fn rides(options: &RidesOptions) -> impl Iterator<Item = MadeUpRide> + use<> {
    let RidesOptions { rides, seed, year, .. } = *options;
    let mut maker = RideMaker {
        options: *options,
        draw: Draw::new(seed, 1),
        weather: Weather::new(&WeatherOptions { seed, year }),
        bad_so_far: 0,
    };
    (0..rides).map(move |index| maker.ride(index))
}

struct RideMaker {
    options: RidesOptions,
    draw: Draw,
    weather: Weather,
    bad_so_far: usize,
}

impl RideMaker {
    fn ride(&mut self, index: u64) -> MadeUpRide {
        let draw = &mut self.draw;
        let day = draw.below(self.weather.calendar.len());
        let millis = draw.below(86_400_000);
        let (latitude, longitude) = place(draw);
        let distance = millionths(29.0 + 2.0 * draw.unit());
        let healthpoints = 290 + draw.below(81) as i64;
        let magicpoints = (10.0 * distance + 60.0 * draw.normal()).round().max(0.0) as i64;
        let [tmin, tmax, prcp] = self.weather.near(day, latitude, longitude).unwrap_or(TYPICAL);
        let chance = TRUTH.probability([distance, healthpoints as f64, magicpoints as f64, tmin, tmax, prcp]);
        let service = draw.unit() < chance;
        let name = NAMES[draw.below(NAMES.len())];
        let breed = BREEDS[draw.below(BREEDS.len())];
        let as_text = draw.unit() < TEXT_SHARE;
        let bad = draw.unit() < self.options.bad_share && index > 0;

        let whole = |number: i64| Some(if as_text { Value::Text(number.to_string()) } else { Value::Whole(number) });
        let decimal =
            |number: f64| Some(if as_text { Value::Text(format!("{number:.6}")) } else { Value::Decimal(number) });
        let mut ride = MadeUpRide {
            bad: None,
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
        if bad {
            self.spoil(&mut ride);
        }
        ride
    }

    fn first_ride_id(&self) -> Value {
        Value::Text(format!("made-up-{}-{}-first", self.options.year, self.options.seed))
    }

    /// `YYYY-MM-DD HH:MM:SS.fff`
    fn time(&self, day: usize, millis: usize) -> String {
        let (month, day) = self.weather.calendar[day];
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}", self.options.year)
    }

    fn spoil(&mut self, ride: &mut MadeUpRide) {
        use RejectReason as Why;
        let why = BAD[self.bad_so_far % BAD.len()];
        self.bad_so_far += 1;
        let nonsense = || Some(Value::Text("n/a".to_owned()));
        match why {
            Why::MissingStatustime => ride.status_time = None,
            Why::InvalidStatustime => ride.status_time = Some(Value::Text("yesterday".to_owned())),
            Why::MissingLatitude => ride.latitude = None,
            Why::InvalidLatitude => ride.latitude = nonsense(),
            Why::LatitudeOutOfRange => ride.latitude = Some(Value::Decimal(91.25)),
            Why::MissingLongitude => ride.longitude = None,
            Why::InvalidLongitude => ride.longitude = nonsense(),
            Why::LongitudeOutOfRange => ride.longitude = Some(Value::Decimal(-190.5)),
            Why::MissingDistance => ride.distance = None,
            Why::InvalidDistance => ride.distance = nonsense(),
            Why::NegativeDistance => ride.distance = Some(Value::Decimal(-1.5)),
            Why::MissingHealthpoints => ride.health_points = None,
            Why::InvalidHealthpoints => ride.health_points = nonsense(),
            Why::MissingMagicpoints => ride.magic_points = None,
            Why::InvalidMagicpoints => ride.magic_points = Some(Value::Boolean(true)),
            Why::InvalidFieldservice => ride.field_service = Some(Value::Whole(2)),
            Why::InvalidName => ride.name = Value::Boolean(true),
            Why::InvalidBreed => ride.breed = Value::Boolean(false),
            Why::InvalidRideId => ride.ride_id = Some(Value::Boolean(true)),
            Why::DuplicateRideId => ride.ride_id = Some(self.first_ride_id()),
            Why::DistanceOutOfRange => ride.distance = Some(Value::Decimal(1_000_000.5)),
            Why::HealthpointsOutOfRange => ride.health_points = Some(Value::Whole(1_000_000_001)),
            Why::MagicpointsOutOfRange => ride.magic_points = Some(Value::Whole(-1_000_000_001)),
            Why::InvalidJson | Why::NotAnObject | Why::DuplicateField | Why::RideTooLarge => return,
        }
        ride.bad = Some(why);
    }
}

/// Where a ride ends: degrees north and east.
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
    let longitude = MANHATTAN.1 + east_km / (DEGREE_KM * SHORTER);
    (millionths(latitude), millionths(longitude))
}

/// Rounded to six decimals.
fn millionths(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// Writes a document of made-up rides, never more than a few of them in memory.
///
/// # Errors
/// When the file cannot be written.
pub fn write_rides(path: &Path, form: DocumentForm, options: &RidesOptions) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (start, between, end) = match form {
        DocumentForm::TravelData => ("{\"travel_data\":[\n", ",\n", "\n]}\n"),
        DocumentForm::Array => ("[\n", ",\n", "\n]\n"),
        DocumentForm::Ndjson => ("", "\n", "\n"),
        DocumentForm::Concatenated => ("", "", ""),
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
