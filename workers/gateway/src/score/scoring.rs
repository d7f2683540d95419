//! Turns rides as HTTP clients write them into score requests, and the scorer's answers back into the fields and units of the
//! request.

use super::{
    answer::{
        AssumedFeature, Baseline, FallbackName, LookedUp, Reason, RideError, RideScore, ScoreInterval, ScoredBy, Why,
    },
    body::{Precipitation, RideToScore, Temperature},
    coalesce::{ScoreFailure, Scored, SharedOptions},
};
use crate::{
    app::App,
    http::problem::{FieldError, Problem},
    link::request_failed,
};
use common::{
    features::{FEATURES, Feature},
    message::{
        self, Assumed, Contribution, PlaceWeather, ProbabilityInterval, ScoreError, ScoreErrorCode, ScoreOutcome,
        ScoreRide, Units, WEATHER_PLACES_MAX, WeatherError, WeatherErrorCode, WeatherPlace, WeatherRequest,
    },
    model::logistic,
    ride::TIME_FORMS,
    topology::queue,
    weather::{self, Impossible::TminAboveTmax},
};
use runtime::host;
use serde_json::{Value, json};
use std::borrow::Cow;
use tokio::time::Instant;

/// Maximum length of a `ride_id` or `breed`, bytes.
const NAME_BYTES_MAX: usize = 128;

/// The members by which the weather is looked up.
const PLACE: [&str; 3] = ["latitude", "longitude", "statustime"];
/// The members that show that a ride has a place. A time does not: many records have one.
const COORDINATES: [&str; 2] = ["latitude", "longitude"];

/// Options of a score request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScoreOptions {
    /// The options for the scorer.
    pub(crate) shared: SharedOptions,
    /// Units of `tmin`, `tmax`, `tavg` and `prcp`.
    pub(crate) units: Units,
}

/// The outcomes of the rides of one request.
pub(crate) struct RideOutcomes {
    /// Absent if no ride could be scored.
    pub(crate) by: Option<ScoredBy>,
    /// In the order of the request.
    pub(crate) rides: Vec<Result<RideScore, Fault>>,
}

/// Why one ride cannot be scored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    ride_id: Option<String>,
    code: &'static str,
    message: String,
    /// As spelled in the request.
    field: Option<Cow<'static, str>>,
    value: Option<Box<Value>>,
}

impl Fault {
    fn new(code: &'static str, message: impl Into<String>, field: Option<&'static str>, value: Option<Value>) -> Self {
        let field = field.map(Cow::Borrowed);
        Self { ride_id: None, code, message: message.into(), field, value: value.map(Box::new) }
    }

    fn at(code: &'static str, field: &'static str, value: Value, expected: &str) -> Self {
        Self::new(code, format!("{field} is {value}: expected {expected}"), Some(field), Some(value))
    }

    /// Adds the row of the ride, for tensors.
    pub(crate) fn in_row(self, row: usize) -> Self {
        Self { message: format!("ride {row}: {}", self.message), ..self }
    }

    /// Uses the request's spelling, and names the key that may be meant where the member is missing.
    fn in_spelling_of(mut self, ride: &RideToScore) -> Self {
        let Some(field) = self.field.as_deref() else { return self };
        if matches!(self.code, "missing_feature" | "missing_field") {
            // If all weather is missing, a place and a time are an alternative.
            let is_weather = Feature::named(field).is_some_and(|feature| feature.weather);
            let near = ride.near_miss(&[field]).or_else(|| ride.near_miss(if is_weather { &PLACE } else { &[] }));
            if let Some(near) = near {
                let unit = unit_of(near.field);
                let unit = if unit.is_empty() { String::new() } else { format!(" (unit: {unit})") };
                self.message = format!("{field} is missing; did you mean `{}`? Name it {}{unit}", near.key, near.field);
            }
            return self;
        }
        let (member, within) = field.split_once('.').map_or((field, None), |(member, within)| (member, Some(within)));
        if let Some(key) = ride.spelling(member) {
            let spelled = within.map_or_else(|| key.to_owned(), |within| format!("{key}.{within}"));
            if let Some(rest) = self.message.strip_prefix(field) {
                self.message = format!("{spelled}{rest}");
            }
            self.field = Some(Cow::Owned(spelled));
        }
        self
    }

    /// Returns the error of one ride of several.
    pub(crate) fn into_error(self) -> RideError {
        let Self { ride_id, code, message, field, .. } = self;
        RideError { ride_id, error: Why { code, message, field } }
    }

    /// Returns the problem of a request for one ride.
    pub(crate) fn into_problem(self) -> Problem {
        let problem = Problem::unprocessable(&self.code.replace('_', "-"), self.message.clone());
        match self.field {
            Some(field) => {
                let expected = self.message.split_once(": expected ").map_or(&*self.message, |(_, expected)| expected);
                problem.at(FieldError {
                    field: field.into_owned(),
                    value: self.value.map(|value| *value),
                    expected: expected.to_owned(),
                })
            }
            None => problem,
        }
    }
}

/// Scores one ride.
///
/// # Errors
/// Fails if the ride is invalid, or as [`score_all`].
pub(crate) async fn score_one(
    app: &App,
    options: ScoreOptions,
    ride: RideToScore,
    deadline: Instant,
) -> Result<(ScoredBy, RideScore), Problem> {
    let RideOutcomes { by, mut rides } = score_all(app, options, vec![ride], deadline).await?;
    match (rides.pop(), by) {
        (Some(Ok(mut score)), Some(by)) => Ok((score.by.take().unwrap_or(by), score)),
        (Some(Err(fault)), _) => Err(fault.into_problem()),
        _ => Err(Problem::internal("a ride without a score and without a reason")),
    }
}

/// Scores rides; looks up the weather of those that name a place.
///
/// # Errors
/// Fails if the whole request fails: too many rides, no worker, no answer.
pub(crate) async fn score_all(
    app: &App,
    options: ScoreOptions,
    rides: Vec<RideToScore>,
    deadline: Instant,
) -> Result<RideOutcomes, Problem> {
    check_count(app, rides.len())?;
    let mut prepared: Vec<Result<PreparedRide, Fault>> = rides.iter().map(|ride| prepare(ride, options)).collect();
    look_up_weather(app, options.shared, &mut prepared, deadline).await?;
    let features: Vec<ScoreRide> =
        prepared.iter().filter_map(|ride| Some(ride.as_ref().ok()?.features.clone())).collect();
    let scored = match features.is_empty() {
        true => None,
        false => Some(app.coalescer.score(options.shared, features, deadline).await.map_err(refused)?),
    };
    let (by, mut scores) = match scored {
        Some(Scored { model, model_id, threshold, baseline_log_odds, scores }) => {
            let by = message::ScoredBy { model, model_id, threshold, baseline_log_odds };
            (Some(scored_by(by)), scores.into_iter())
        }
        None => (None, Vec::new().into_iter()),
    };
    let mut outcomes = Vec::with_capacity(rides.len());
    for (ride, prepared) in rides.into_iter().zip(prepared) {
        let outcome = match prepared {
            Ok(PreparedRide { weather, .. }) => match scores.next().map(|score| score.outcome) {
                Some(outcome) => ride_score(&ride, outcome, weather),
                None => return Err(Problem::internal("fewer scores than rides")),
            },
            Err(fault) => Err(fault),
        };
        outcomes.push(match outcome {
            Ok(score) => Ok(RideScore { ride_id: ride.ride_id, ..score }),
            Err(fault) => {
                let fault = fault.in_spelling_of(&ride);
                Err(Fault { ride_id: ride.ride_id, ..fault })
            }
        });
    }
    Ok(RideOutcomes { by, rides: outcomes })
}

/// Turns the scorer's outcome for a ride into the score, or into a fault with the field and value of the request.
fn ride_score(ride: &RideToScore, outcome: ScoreOutcome, weather: Option<Box<LookedUp>>) -> Result<RideScore, Fault> {
    match outcome {
        ScoreOutcome::Scored {
            probability, service, explanation, by, fallback, assumed, interval, warnings, ..
        } => {
            check_spelling(ride, &assumed)?;
            Ok(RideScore {
                ride_id: None,
                probability,
                service,
                by: by.map(scored_by),
                fallback: fallback.map(FallbackName::from),
                contributions: explanation.into_iter().map(reason).collect(),
                assumed: assumed.into_iter().map(assumed_feature).collect(),
                interval: interval.map(|ProbabilityInterval { low, high }| ScoreInterval { low, high }),
                warnings,
                weather,
            })
        }
        ScoreOutcome::Failed { error } => Err(fault_of(ride, error)),
    }
}

/// Checks the number of rides of a request.
///
/// # Errors
/// 413 if there are too many.
pub(crate) fn check_count(app: &App, rides: usize) -> Result<(), Problem> {
    let max = app.settings.rides_max;
    match rides <= max {
        true => Ok(()),
        false => Err(Problem::too_large(format!("{rides} rides: expected at most {max} in one request"))),
    }
}

/// A checked ride.
struct PreparedRide {
    features: ScoreRide,
    /// Place and time of the weather to look up.
    place: Option<WeatherPlace>,
    weather: Option<Box<LookedUp>>,
}

fn prepare(ride: &RideToScore, options: ScoreOptions) -> Result<PreparedRide, Fault> {
    for (code, field, name) in
        [("ride_id_too_long", "ride_id", &ride.ride_id), ("breed_too_long", "breed", &ride.breed)]
    {
        if let Some(name) = name.as_ref().filter(|name| name.len() > NAME_BYTES_MAX) {
            let expected = format!("at most {NAME_BYTES_MAX} bytes");
            let excerpt = format!("{}…", name.chars().take(20).collect::<String>());
            return Err(Fault::at(code, field, json!(excerpt), &expected));
        }
    }
    let mut features = ScoreRide {
        ride_id: ride.ride_id.clone(),
        breed: ride.breed.clone().filter(|breed| !breed.trim().is_empty()),
        ..weather_of(ride, options.units)?
    };
    let ScoreRide { tmin, tmax, tavg, prcp, .. } = features;
    let has_weather = [tmin, tmax, tavg, prcp].iter().any(Option::is_some);
    // A time alone is no place: many records have one.
    let has_place = ride.latitude.is_some() || ride.longitude.is_some();
    let place = if has_place && !has_weather { Some(place(ride)?) } else { None };
    for feature in FEATURES.iter().filter(|feature| !feature.weather) {
        (feature.set)(&mut features, ride.number(feature.name));
    }
    Ok(PreparedRide { features, place, weather: None })
}

/// Checks that no key of the ride resembles an assumed feature, or a coordinate if the ride has no weather: an assumed value must not
/// replace a misspelled one.
fn check_spelling(ride: &RideToScore, assumed: &[Assumed]) -> Result<(), Fault> {
    let is_near = |fields: &[&str]| ride.near_miss(fields).is_some();
    let of_assumed = assumed.iter().filter_map(|assumed| Feature::named(&assumed.feature)).find_map(|feature| {
        let is_place = feature.weather && !ride.has_weather() && is_near(&COORDINATES);
        let is_mean = matches!(feature.name, "tmin" | "tmax") && is_near(&["tavg"]);
        if is_near(&[feature.name]) || is_place { Some(feature.name) } else { is_mean.then_some("tavg") }
    });
    match of_assumed {
        Some(field) => Err(Fault::new("missing_feature", format!("{field} is missing"), Some(field), None)),
        None => Ok(()),
    }
}

/// Returns the weather that a ride has in the request, in any of its forms, in NOAA's tenths.
fn weather_of(ride: &RideToScore, units: Units) -> Result<ScoreRide, Fault> {
    let both = |field: &'static str, other: &str| {
        let message = format!("{field} is given twice: expected either {field} or {other}");
        Fault::new("ambiguous_weather", message, Some(field), None)
    };
    let without_unit = |field: &'static str, expected: &str| {
        Fault::new("missing_field", format!("{field} is missing: expected {expected}"), Some(field), None)
    };
    let celsius_tenths = |value| units.temperature.to_celsius_tenths(value);
    let [mut tmin, mut tmax, mut tavg] = [ride.tmin, ride.tmax, ride.tavg].map(|given| given.map(celsius_tenths));
    let mut prcp = ride.prcp.map(|value| units.precipitation.to_millimetre_tenths(value));
    if let Some(Temperature { value, min, max, unit }) = ride.temperature {
        if tmin.is_some() || tmax.is_some() || tavg.is_some() {
            return Err(both("temperature", "tmin, tmax and tavg"));
        }
        if value.is_some() && min.is_some() && max.is_some() {
            return Err(both("temperature.value", "temperature.min and temperature.max"));
        }
        let expected = "celsius, fahrenheit or celsius_tenths";
        let unit = unit.ok_or_else(|| without_unit("temperature.unit", expected))?;
        [tmin, tmax, tavg] = [min, max, value].map(|given| given.map(|given| unit.to_celsius_tenths(given)));
    }
    if let Some(Precipitation { amount, unit }) = ride.precipitation {
        if prcp.is_some() {
            return Err(both("precipitation", "prcp"));
        }
        let expected = "millimetre, inch or millimetre_tenths";
        let unit = unit.ok_or_else(|| without_unit("precipitation.unit", expected))?;
        prcp = amount.map(|amount| unit.to_millimetre_tenths(amount));
    }
    // The scorer checks the weather, because it knows which features its model uses; but JSON cannot represent infinity.
    let infinite = |value: Option<f64>| value.filter(|value| !value.is_finite());
    let fault = |feature: &str, why: weather::Impossible| {
        let (field, value) = as_given(ride, feature);
        Fault::at("impossible_feature", field, json!(value), why.expected())
    };
    weather::check(infinite(tmin), infinite(tmax), infinite(prcp)).map_err(|why| fault(why.feature(), why))?;
    weather::check(infinite(tavg), None, None).map_err(|why| fault("tavg", why))?;
    Ok(ScoreRide { tmin, tmax, tavg, prcp, ..ScoreRide::default() })
}

/// Returns a feature as the request writes it: its path and its value.
fn as_given(ride: &RideToScore, feature: &str) -> (&'static str, Option<f64>) {
    match (feature, ride.temperature, ride.precipitation) {
        ("tmin", Some(temperature), _) => ("temperature.min", temperature.min),
        ("tmax", Some(temperature), _) => ("temperature.max", temperature.max),
        ("tavg", Some(temperature), _) => ("temperature.value", temperature.value),
        ("tavg", None, _) => ("tavg", ride.tavg),
        ("prcp", _, Some(precipitation)) => ("precipitation.amount", precipitation.amount),
        _ => Feature::named(feature).map_or(("", None), |feature| (feature.name, ride.number(feature.name))),
    }
}

/// Returns the place and time for the lookup.
fn place(ride: &RideToScore) -> Result<WeatherPlace, Fault> {
    let degrees = |field: &'static str, value: Option<f64>, max: f64| match value {
        Some(value) if value.abs() <= max => Ok(value),
        Some(value) => {
            Err(Fault::at("place_out_of_range", field, json!(value), &format!("degrees from -{max} to {max}")))
        }
        None => Err(missing(field)),
    };
    let latitude = degrees("latitude", ride.latitude, 90.0)?;
    let longitude = degrees("longitude", ride.longitude, 180.0)?;
    let moment = ride.statustime.as_ref().ok_or_else(|| missing("statustime"))?;
    let statustime =
        moment.read().map_err(|_| Fault::at("invalid_statustime", "statustime", moment.excerpt(), &moment_forms()))?;
    Ok(WeatherPlace { latitude, longitude, statustime })
}

/// Returns the accepted forms of a time, for error messages.
fn moment_forms() -> String {
    format!("now, or {TIME_FORMS}")
}

fn missing(field: &'static str) -> Fault {
    let message = format!("{field} is missing: the weather is looked up by latitude, longitude and statustime");
    Fault::new("missing_field", message, Some(field), None)
}

/// Adds the weather to the rides that name a place. If weather is not found, the scorer imputes it, with a warning, unless the request
/// forbids it or a later request may find the weather.
///
/// # Errors
/// Fails if the weather cannot be looked up now and every ride needs it. If only some rides need it, these rides get the fault.
async fn look_up_weather(
    app: &App,
    SharedOptions { impute, .. }: SharedOptions,
    prepared: &mut [Result<PreparedRide, Fault>],
    deadline: Instant,
) -> Result<(), Problem> {
    let pending: Vec<usize> =
        (0..prepared.len()).filter(|&index| prepared[index].as_ref().is_ok_and(|ride| ride.place.is_some())).collect();
    for some in pending.chunks(WEATHER_PLACES_MAX) {
        let places = some.iter().filter_map(|&index| prepared[index].as_ref().ok()?.place).collect();
        let found = match weather_of_places(app, places, deadline).await {
            Ok(found) => found,
            Err(problem) if pending.len() == prepared.len() => return Err(problem),
            Err(problem) => {
                for &index in some {
                    prepared[index] = Err(Fault::new("no_weather", problem.detail(), None, None));
                }
                continue;
            }
        };
        for (&index, found) in some.iter().zip(found) {
            let Ok(ride) = &mut prepared[index] else { continue };
            match LookedUp::of(found) {
                Ok(weather) => {
                    let elements = [weather.tmin, weather.tmax, weather.prcp].map(|value| Some(f64::from(value)));
                    [ride.features.tmin, ride.features.tmax, ride.features.prcp] = elements;
                    ride.weather = Some(Box::new(weather));
                }
                Err(error) if impute && !error.code.may_pass() => {
                    ride.features.weather = Some(Box::new(PlaceWeather::Failed { error }));
                }
                Err(error) => prepared[index] = Err(Fault::new(code_of(error.code), error.message, None, None)),
            }
        }
    }
    Ok(())
}

/// Asks a weather-fetcher for the weather of places; returns one result for each.
async fn weather_of_places(
    app: &App,
    places: Vec<WeatherPlace>,
    deadline: Instant,
) -> Result<Vec<PlaceWeather>, Problem> {
    let expected = places.len();
    let request_id = format!("{:016x}", host::random_range(0..=u64::MAX));
    let request = WeatherRequest { request_id, places, observed_only: false };
    let left = deadline.saturating_duration_since(Instant::now());
    let answer = app.link.requester(queue::WEATHER_LOOKUP)?.weather(&request, left).await;
    let answer = answer.map_err(|error| request_failed(&error, "a weather-fetcher"))?;
    match answer.error {
        Some(error) => Err(weather_refused(error)),
        None if answer.weather.len() != expected => {
            Err(Problem::internal("the weather-fetcher did not answer every place"))
        }
        None => Ok(answer.weather),
    }
}

fn scored_by(by: message::ScoredBy) -> ScoredBy {
    let message::ScoredBy { model, model_id, threshold, baseline_log_odds } = by;
    let baseline = baseline_log_odds.map(|log_odds| Baseline { log_odds, probability: logistic(log_odds) });
    ScoredBy { model, model_id, threshold, baseline }
}

fn reason(contribution: Contribution) -> Reason {
    let Contribution { feature, value, log_odds, outside_training } = contribution;
    let unit = unit_of(&feature);
    Reason { feature, value, unit, log_odds, outside_training }
}

fn assumed_feature(Assumed { feature, value }: Assumed) -> AssumedFeature {
    let unit = unit_of(&feature);
    AssumedFeature { feature, value, unit }
}

/// Returns the unit of a feature in the dataset.
fn unit_of(feature: &str) -> &'static str {
    Feature::named(feature).map_or("", |known| known.unit)
}

/// Turns the scorer's error of one ride into a fault with the field and value of the request.
fn fault_of(ride: &RideToScore, error: ScoreError) -> Fault {
    let feature = error.field.as_deref().and_then(|path| path.rsplit('.').next()).unwrap_or_default();
    let (field, value) = as_given(ride, feature);
    let value = value.map(Value::from);
    let code = match error.code {
        ScoreErrorCode::MissingFeature => "missing_feature",
        ScoreErrorCode::ImpossibleFeature => "impossible_feature",
        _ => "not_scored",
    };
    let expected = error.message.split_once(": expected ").map(|(_, expected)| expected);
    match (&value, expected) {
        (Some(value), Some(expected)) if feature == "tmin" && expected.starts_with(TminAboveTmax.expected()) => {
            // Names the other temperature in the request's units: the scorer got tenths.
            let (tmax_field, tmax) = as_given(ride, "tmax");
            Fault::at(code, field, value.clone(), &format!("at most {tmax_field}, {}", json!(tmax)))
        }
        (Some(value), Some(expected)) => Fault::at(code, field, value.clone(), expected),
        // Names the request's member, because the request has no "tmin".
        (None, _) if code == "missing_feature" && field.contains('.') => {
            Fault::new(code, format!("{field} is missing: the model needs it"), Some(field), None)
        }
        _ => Fault::new(code, error.message, Some(field).filter(|field| !field.is_empty()), value),
    }
}

/// Returns the problem of a request without scores.
pub(crate) fn refused(why: ScoreFailure) -> Problem {
    let error = match why {
        ScoreFailure::Unanswered(problem) => return problem,
        ScoreFailure::Scorer(error) => error,
    };
    match error.code {
        ScoreErrorCode::NoModel => Problem::unavailable("no-model", error.message),
        ScoreErrorCode::DeadlineExceeded => Problem::no_answer(format!("waited for a scorer: {}", error.message)),
        ScoreErrorCode::Internal => Problem::unavailable("scorer-failed", error.message),
        ScoreErrorCode::MissingFeature | ScoreErrorCode::ImpossibleFeature | ScoreErrorCode::MalformedRequest => {
            Problem::unprocessable("refused-by-scorer", error.message)
        }
        ScoreErrorCode::UnknownVersion => {
            Problem::internal(format!("gateway and scorer are of different versions: {}", error.message))
        }
    }
}

fn code_of(code: WeatherErrorCode) -> &'static str {
    match code {
        WeatherErrorCode::NoStationInReach => "no_station_in_reach",
        WeatherErrorCode::NoObservationOnDate => "no_observation_on_date",
        _ => "no_weather",
    }
}

fn weather_refused(error: WeatherError) -> Problem {
    match error.code {
        WeatherErrorCode::DeadlineExceeded => {
            Problem::no_answer(format!("waited for the weather-fetcher: {}", error.message))
        }
        _ => Problem::unavailable("no-weather", error.message),
    }
}
