//! Scores rides: each by the model that was chosen for it. Pure.
//!
//! If a ride lacks features, the scorer uses their distribution given the known ones. The answer is then the expectation of the
//! probability, with a 90 % interval. A ride with all features needs neither.

use crate::serve::{
    artefact::{Servable, Weight},
    models::{Choice, Models},
};
use common::{
    features::{FEATURE_COUNT, Feature},
    imputation::{Known, Uncertain},
    message::{
        Assumed, Contribution, PlaceWeather, ProbabilityInterval, Score, ScoreError, ScoreErrorCode, ScoreOutcome,
        ScoreRequest, ScoreResponse, ScoreRide, ScoredBy, Units, WeatherError, WeatherErrorCode,
    },
    weather::{self, Impossible, TEMPERATURE_TENTHS},
};

mod far;

/// Name of the mean temperature of the day in a score request.
const TAVG: &str = "tavg";

/// Why a ride cannot be scored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unscorable {
    /// A feature that the model needs is absent.
    #[error("{0} is missing: the model needs it")]
    Missing(&'static str),
    /// Every feature that the model needs is absent.
    #[error("{} is missing, and so is every feature that the model uses: expected at least one of {}", used[0], used.join(", "))]
    AllMissing {
        /// Names of the features that the model uses; at least one.
        used: Vec<&'static str>,
    },
    /// A feature has an impossible value.
    #[error("{feature} is {value}: expected {expected}")]
    Impossible {
        /// Name of the feature.
        feature: &'static str,
        /// Value in the request.
        value: f64,
        /// Possible values, in the request's units.
        expected: String,
    },
}

impl Unscorable {
    fn feature(&self) -> &'static str {
        match self {
            Self::Missing(feature) | Self::Impossible { feature, .. } => feature,
            Self::AllMissing { used } => used[0],
        }
    }

    fn code(&self) -> ScoreErrorCode {
        match self {
            Self::Missing(_) | Self::AllMissing { .. } => ScoreErrorCode::MissingFeature,
            Self::Impossible { .. } => ScoreErrorCode::ImpossibleFeature,
        }
    }
}

/// Options for reading the rides of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Units of the weather.
    pub units: Units,
    /// Whether missing features are imputed; if not, they are errors.
    pub impute: bool,
}

impl Reading {
    /// Returns the options of a request.
    pub fn of(request: &ScoreRequest) -> Self {
        Self { units: request.units, impute: request.impute }
    }
}

/// A score: the features that the model uses, in the order of its weights, and the probability.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evaluation {
    pub(crate) features: [f64; FEATURE_COUNT],
    pub(crate) probability: f64,
    /// `None` if no feature was missing.
    pub(crate) imputed: Option<Imputed>,
}

/// What was imputed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Imputed {
    /// Whether a feature was assumed, in the order of the weights.
    assumed: [bool; FEATURE_COUNT],
    interval: ProbabilityInterval,
}

impl Evaluation {
    /// Returns whether the value of the feature at this place among the weights was assumed.
    pub(crate) fn is_assumed(&self, place: usize) -> bool {
        self.imputed.is_some_and(|imputed| imputed.assumed[place])
    }
}

/// Scores every ride of a request by one model, whatever their breeds. The outcome of a ride that cannot be scored is an error with
/// the path of the field.
pub fn score(model: &Servable, request: &ScoreRequest) -> ScoreResponse {
    let rides = request.rides.iter().enumerate();
    let scores = rides.map(|(index, ride)| outcome(model, Choice::Global, index, ride, request).0).collect();
    response(model, request, scores)
}

/// Scores every ride by the model chosen for it. Also returns the features and probabilities, in the order of the rides.
pub(crate) fn score_by(models: &Models, request: &ScoreRequest) -> (ScoreResponse, Vec<Option<Evaluation>>) {
    let rides = request.rides.iter().enumerate().map(|(index, ride)| {
        let choice = models.choice(index);
        outcome(models.model(choice), choice, index, ride, request)
    });
    let (scores, evaluations) = rides.unzip();
    (response(&models.global.model, request, scores), evaluations)
}

fn response(model: &Servable, request: &ScoreRequest, scores: Vec<Score>) -> ScoreResponse {
    ScoreResponse {
        request_id: request.request_id.clone(),
        model: Some(model.model.clone()),
        model_id: Some(model.model_id.clone()),
        threshold: Some(model.threshold),
        baseline_log_odds: request.explain.then_some(model.intercept_standardised),
        scores,
        error: None,
    }
}

fn outcome(
    model: &Servable,
    choice: Choice,
    index: usize,
    ride: &ScoreRide,
    request: &ScoreRequest,
) -> (Score, Option<Evaluation>) {
    let scored = match unlocated(ride, index, request.impute) {
        Some(error) => Err(error),
        None => score_ride(model, ride, Reading::of(request)).map_err(|why| ScoreError {
            code: why.code(),
            message: why.to_string(),
            field: Some(format!("rides[{index}].{}", why.feature())),
        }),
    };
    let (outcome, evaluation) = match scored {
        Ok(evaluation) => {
            let (by, fallback) = match choice {
                Choice::Global => (None, None),
                Choice::Breed(_) => (Some(scored_by(model, request.explain)), None),
                Choice::Fallback(why) => (None, Some(why)),
            };
            let scored = ScoreOutcome::Scored {
                probability: evaluation.probability,
                service: evaluation.probability >= model.threshold,
                explanation: if request.explain { explain(model, &evaluation.features) } else { Vec::new() },
                by,
                fallback,
                assumed: assumed(model, &evaluation),
                interval: evaluation.imputed.map(|imputed| imputed.interval),
                warnings: warnings(model, ride, &evaluation),
                weather: ride.weather.clone().filter(|found| found.kind().is_some()),
            };
            (scored, Some(evaluation))
        }
        Err(error) => (ScoreOutcome::Failed { error }, None),
    };
    (Score { ride_id: ride.ride_id.clone(), outcome }, evaluation)
}

/// Returns why a ride with a place is not scored: the place is incomplete or invalid; or its weather was not found, and either must not
/// be imputed or may be found by a later request.
fn unlocated(ride: &ScoreRide, index: usize, impute: bool) -> Option<ScoreError> {
    let error =
        |code, message, field: &str| ScoreError { code, message, field: Some(format!("rides[{index}].{field}")) };
    if let Err(violation) = ride.place() {
        return Some(error(ScoreErrorCode::MalformedRequest, violation.to_string(), &violation.path));
    }
    let Some(PlaceWeather::Failed { error: WeatherError { code, message, .. } }) = ride.weather.as_deref() else {
        return None;
    };
    let code = match code {
        WeatherErrorCode::DeadlineExceeded => ScoreErrorCode::DeadlineExceeded,
        code if code.may_pass() => ScoreErrorCode::Internal,
        _ if impute => return None,
        _ => ScoreErrorCode::MissingFeature,
    };
    Some(error(code, format!("the weather of the place was not found: {message}"), "statustime"))
}

/// Returns the reasons for caution: weather that was not found, and values far outside the range of the training rides.
fn warnings(model: &Servable, ride: &ScoreRide, evaluation: &Evaluation) -> Vec<String> {
    let missing = ride.weather.as_deref().and_then(|found| match found {
        PlaceWeather::Failed { error } => Some(format!("the weather is assumed: {}", error.message)),
        _ => None,
    });
    let far = far::warnings(&model.weights, &evaluation.features, |place| evaluation.is_assumed(place));
    missing.into_iter().chain(far).collect()
}

fn scored_by(model: &Servable, explained: bool) -> ScoredBy {
    ScoredBy {
        model: model.model.clone(),
        model_id: model.model_id.clone(),
        threshold: model.threshold,
        baseline_log_odds: explained.then_some(model.intercept_standardised),
    }
}

/// Returns the probability that a ride ends in a service request, 0 to 1.
///
/// # Errors
/// Fails on the first feature of the model that is impossible, or that is missing and must not be imputed. Also fails if all features of
/// the model are missing.
pub fn probability(model: &Servable, ride: &ScoreRide, reading: Reading) -> Result<f64, Unscorable> {
    score_ride(model, ride, reading).map(|evaluation| evaluation.probability)
}

/// Returns the features of a ride and its probability.
pub(crate) fn score_ride(model: &Servable, ride: &ScoreRide, reading: Reading) -> Result<Evaluation, Unscorable> {
    let evaluation = match features(model, ride, reading)? {
        Read::Complete(features) => Evaluation { features, probability: model.probability(&features), imputed: None },
        Read::Incomplete(known) => impute(model, &known)?,
    };
    // Values near the limits of floating point can give log-odds that are not a number.
    if evaluation.probability.is_nan() {
        let feature = model.weights.first().map_or("distance", |weight| weight.feature().name);
        let expected = "values that give a finite score".into();
        return Err(Unscorable::Impossible { feature, value: evaluation.features[0], expected });
    }
    Ok(evaluation)
}

/// Scores a ride that lacks features.
fn impute(model: &Servable, known: &Known) -> Result<Evaluation, Unscorable> {
    let is_missing = |weight: &Weight| known.features[weight.place].is_none();
    if known.tavg.is_none() && model.weights.iter().all(is_missing) {
        return Err(Unscorable::AllMissing {
            used: model.weights.iter().map(|weight| weight.feature().name).collect(),
        });
    }
    let conditional = model.distribution.given(known);
    let (mut features, mut assumed) = ([0.0; FEATURE_COUNT], [false; FEATURE_COUNT]);
    let mut per_unit = [0.0; FEATURE_COUNT];
    for (position, weight) in model.weights.iter().enumerate() {
        features[position] = conditional.mean[weight.place];
        assumed[position] = is_missing(weight);
        if assumed[position] {
            per_unit[weight.place] = weight.per_unit;
        }
    }
    let log_odds = model.log_odds(&features);
    let uncertain = Uncertain { log_odds, std_dev: conditional.variance(&per_unit).sqrt() };
    let (low, high) = uncertain.interval();
    let imputed = Imputed { assumed, interval: ProbabilityInterval { low, high } };
    Ok(Evaluation { features, probability: uncertain.probability(), imputed: Some(imputed) })
}

/// Returns the features that were missing, with the assumed values.
fn assumed(model: &Servable, evaluation: &Evaluation) -> Vec<Assumed> {
    if evaluation.imputed.is_none() {
        return Vec::new();
    }
    let values = model.weights.iter().zip(evaluation.features).enumerate();
    let assumed = values.filter(|(position, _)| evaluation.is_assumed(*position));
    assumed.map(|(_, (weight, value))| Assumed { feature: weight.feature().name.to_owned(), value }).collect()
}

/// Returns what each feature adds to the log-odds at the training mean: the largest first, equal ones in the order of the features.
/// The probability itself comes from [`Servable::probability`], with the same bits with and without an explanation.
fn explain(model: &Servable, features: &[f64; FEATURE_COUNT]) -> Vec<Contribution> {
    let contributions = model.weights.iter().zip(features).map(|(weight, &value)| {
        let log_odds = weight.per_unit * (value - weight.mean);
        Contribution {
            feature: weight.feature().name.to_owned(),
            value,
            // JSON has no infinity, and a zero weight contributes nothing, whatever the value.
            log_odds: if weight.per_unit == 0.0 { 0.0 } else { log_odds.clamp(f64::MIN, f64::MAX) },
            outside_training: value < weight.min || value > weight.max,
        }
    });
    let mut contributions: Vec<Contribution> = contributions.collect();
    contributions.sort_by(|a, b| b.log_odds.abs().total_cmp(&a.log_odds.abs()));
    contributions
}

/// The checked features of a ride, in the units of the dataset.
enum Read {
    /// All features that the model uses, in the order of its weights.
    Complete([f64; FEATURE_COUNT]),
    /// Some of these features, in the order of [`FEATURES`].
    Incomplete(Known),
}

/// Reads and checks the features that the model uses. Others may have any value.
fn features(model: &Servable, ride: &ScoreRide, reading: Reading) -> Result<Read, Unscorable> {
    let mut known = Known::default();
    for weight in &model.weights {
        let name = weight.feature().name;
        let value = read(weight, ride, reading)?;
        // Each feature is checked alone first, so that the error names the first invalid one.
        let only = |feature: &str| value.filter(|_| name == feature);
        weather::check(only("tmin"), only("tmax"), only("prcp")).map_err(|why| impossible_weather(why, ride))?;
        // The mean temperature may stand for a temperature.
        if value.is_none() && !reading.impute && ride.tavg.is_none() {
            return Err(Unscorable::Missing(name));
        }
        known.features[weight.place] = value;
    }
    let place = |name: &str| {
        let weight = model.weights.iter().find(|weight| weight.feature().name == name);
        weight.map(|weight| weight.place)
    };
    if let (Some(tavg), Some(tmin), Some(tmax)) = (ride.tavg, place("tmin"), place("tmax")) {
        add_mean(&mut known, tavg, (tmin, tmax), reading.units)?;
    }
    let used = |name: &str| place(name).and_then(|place| known.features[place]);
    weather::check(used("tmin"), used("tmax"), used("prcp")).map_err(|why| impossible_weather(why, ride))?;
    let missing = |weight: &&Weight| known.features[weight.place].is_none();
    match model.weights.iter().find(missing) {
        Some(_) if reading.impute => Ok(Read::Incomplete(known)),
        Some(weight) => Err(Unscorable::Missing(weight.feature().name)),
        None => {
            let mut features = [0.0; FEATURE_COUNT];
            for (slot, weight) in features.iter_mut().zip(&model.weights) {
                *slot = known.features[weight.place].unwrap_or(weight.mean);
            }
            Ok(Read::Complete(features))
        }
    }
}

/// Adds the mean temperature of the day, in the units of the request. With one of the temperatures it determines the other.
fn add_mean(known: &mut Known, given: f64, (tmin, tmax): (usize, usize), units: Units) -> Result<(), Unscorable> {
    let impossible = |expected: String| Unscorable::Impossible { feature: TAVG, value: given, expected };
    let tavg = units.temperature.to_celsius_tenths(given);
    if !TEMPERATURE_TENTHS.contains(&tavg) {
        return Err(impossible(Impossible::TminOutOfRange.expected().to_owned()));
    }
    let other = match (known.features[tmin], known.features[tmax]) {
        (None, None) => {
            known.tavg = Some(tavg);
            return Ok(());
        }
        (Some(_), Some(_)) => return Err(impossible("no mean temperature beside both tmin and tmax".to_owned())),
        (Some(low), None) => (tmax, 2.0 * tavg - low, low <= tavg, "tmin, and tmax"),
        (None, Some(high)) => (tmin, 2.0 * tavg - high, high >= tavg, "tmax, and tmin"),
    };
    let (place, value, is_ordered, names) = other;
    if !is_ordered || !TEMPERATURE_TENTHS.contains(&value) {
        return Err(impossible(format!("the mean of {names} between -100 °C and 70 °C, tmin at most tmax")));
    }
    known.features[place] = Some(value);
    Ok(())
}

/// Returns the error of impossible weather, with the value in the request.
fn impossible_weather(why: Impossible, ride: &ScoreRide) -> Unscorable {
    let feature = why.feature();
    let value = Feature::named(feature).and_then(|feature| (feature.of)(ride)).unwrap_or(f64::NAN);
    let expected = match (why, ride.tmax) {
        (Impossible::TminAboveTmax, Some(tmax)) => format!("{}, {tmax}", why.expected()),
        _ => why.expected().to_owned(),
    };
    Unscorable::Impossible { feature, value, expected }
}

/// Reads one feature in the unit of the dataset; `None` if it is missing. A missing later feature that must not be imputed takes its
/// mean in training, so that it contributes nothing. The caller checks the weather once all of it is known.
fn read(weight: &Weight, ride: &ScoreRide, reading: Reading) -> Result<Option<f64>, Unscorable> {
    let feature = weight.feature();
    match feature.read(ride, reading.units) {
        Some(value) if feature.is_scored(value) => Ok(Some(value)),
        Some(value) => {
            Err(Unscorable::Impossible { feature: feature.name, value, expected: feature.expected.to_owned() })
        }
        None if !feature.original && !reading.impute => Ok(Some(weight.mean)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
