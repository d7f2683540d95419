//! Scores rides: each by the model that was chosen for it. Pure.
//!
//! If a ride lacks features, their distribution given the known ones takes their place: the answer is the expectation of the
//! probability, with a 90 % interval. A ride with all features takes none of these steps.

use crate::serve::{
    artefact::{Servable, Weight},
    models::{Choice, Models},
};
use common::{
    features::{FEATURE_COUNT, Feature},
    imputation::{Known, Uncertain},
    message::{
        Assumed, Contribution, ProbabilityInterval, Score, ScoreError, ScoreErrorCode, ScoreOutcome, ScoreRequest,
        ScoreResponse, ScoreRide, ScoredBy, Units,
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

/// How a request is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Units of the weather.
    pub units: Units,
    /// Whether missing features are imputed; if not, they are errors.
    pub impute: bool,
}

impl Reading {
    /// Returns how this request is to be read.
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
    let (outcome, evaluation) = match score_ride(model, ride, Reading::of(request)) {
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
                warnings: far::warnings(&model.weights, &evaluation.features, |place| evaluation.is_assumed(place)),
            };
            (scored, Some(evaluation))
        }
        Err(why) => {
            let (code, message) = (why.code(), why.to_string());
            let field = Some(format!("rides[{index}].{}", why.feature()));
            (ScoreOutcome::Failed { error: ScoreError { code, message, field } }, None)
        }
    };
    (Score { ride_id: ride.ride_id.clone(), outcome }, evaluation)
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
/// Fails on the first feature used by the model that is impossible, or missing and not to be imputed, and if all are missing.
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
    /// All that the model uses, in the order of its weights.
    Complete([f64; FEATURE_COUNT]),
    /// Some of them, in the order of [`FEATURES`].
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

/// Reads one feature in the unit of the dataset; `None` if it is missing. A later feature that is missing and not to be imputed is its
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
mod tests {
    use super::*;
    use crate::serve::artefact::tests::{model, served};
    use common::{
        features::{FEATURES, FeatureSet},
        message::{Message, PrecipitationUnit, TemperatureUnit, decode},
        model::{Model, logistic},
    };
    use proptest::prelude::*;

    const NOAA: Reading = Reading {
        units: Units {
            temperature: TemperatureUnit::CelsiusTenths,
            precipitation: PrecipitationUnit::MillimetreTenths,
        },
        impute: true,
    };

    fn ride() -> ScoreRide {
        ScoreRide {
            ride_id: Some("r".to_owned()),
            distance: Some(30.0),
            healthpoints: Some(300.0),
            magicpoints: Some(310.0),
            tmin: Some(50.0),
            tmax: Some(150.0),
            prcp: Some(25.4),
            ..ScoreRide::default()
        }
    }

    fn request(rides: Vec<ScoreRide>) -> ScoreRequest {
        ScoreRequest { request_id: "q".to_owned(), units: Units::default(), explain: false, impute: true, rides }
    }

    fn error(ride: ScoreRide, units: Units) -> ScoreError {
        let response = score(&served(&model("m")), &ScoreRequest { units, ..request(vec![ride]) });
        match &response.scores[0].outcome {
            ScoreOutcome::Failed { error } => error.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_ride_is_scored_by_the_formula_and_decided_at_the_threshold() {
        let mut model = model("m");
        let log_odds = -19.2 + 0.75 * 30.0 - 0.011 * 310.0 - 0.004 * 50.0 - 0.003 * 150.0 + 0.007 * 25.4;
        let expected = 1.0 / (1.0 + f64::exp(-log_odds));
        for (threshold, decision) in [(expected + 1e-9, false), (expected - 1e-9, true)] {
            model.threshold = threshold;
            let response = score(&served(&model), &request(vec![ride()]));
            response.check().unwrap();
            let ScoreOutcome::Scored { probability, service, .. } = response.scores[0].outcome else {
                panic!("{response:?}")
            };
            assert!((probability - expected).abs() < 1e-12);
            assert_eq!(service, decision);
        }
    }

    #[test]
    fn the_same_weather_in_any_unit_has_the_same_score() {
        let metric = ScoreRide { tmin: Some(5.0), tmax: Some(15.0), prcp: Some(2.54), ..ride() };
        let imperial = ScoreRide { tmin: Some(41.0), tmax: Some(59.0), prcp: Some(0.1), ..ride() };
        let model = served(&model("m"));
        let expected = probability(&model, &ride(), NOAA).unwrap();
        for (ride, temperature, precipitation) in [
            (metric, TemperatureUnit::Celsius, PrecipitationUnit::Millimetre),
            (imperial, TemperatureUnit::Fahrenheit, PrecipitationUnit::Inch),
        ] {
            let actual =
                probability(&model, &ride, Reading { units: Units { temperature, precipitation }, impute: true })
                    .unwrap();
            assert!((actual - expected).abs() < 1e-12, "{actual} {expected}");
        }
    }

    #[test]
    fn a_ride_that_cannot_be_scored_does_not_affect_others() {
        let request = request(vec![ride(), ScoreRide { tmin: None, ..ride() }, ride()]);
        let response = score(&served(&model("m")), &ScoreRequest { impute: false, ..request });
        response.check().unwrap();
        assert!(matches!(response.scores[0].outcome, ScoreOutcome::Scored { .. }));
        assert_eq!(response.scores[0].outcome, response.scores[2].outcome);
        let ScoreOutcome::Failed { error } = &response.scores[1].outcome else { panic!("{response:?}") };
        assert_eq!((error.code, error.field.as_deref()), (ScoreErrorCode::MissingFeature, Some("rides[1].tmin")));
        assert!(response.scores.iter().all(|score| score.ride_id.as_deref() == Some("r")));
    }

    #[test]
    fn an_impossible_value_is_refused_with_its_field() {
        let impossible = |ride, units, field: &str| {
            let error = error(ride, units);
            assert_eq!(error.code, ScoreErrorCode::ImpossibleFeature, "{error:?}");
            assert_eq!(error.field, Some(format!("rides[0].{field}")), "{error:?}");
        };
        let celsius = Units { temperature: TemperatureUnit::Celsius, ..Units::default() };
        impossible(ScoreRide { distance: Some(-0.1), ..ride() }, Units::default(), "distance");
        impossible(ScoreRide { distance: Some(f64::INFINITY), ..ride() }, Units::default(), "distance");
        impossible(ScoreRide { healthpoints: Some(f64::NAN), ..ride() }, Units::default(), "healthpoints");
        impossible(ScoreRide { magicpoints: Some(f64::NEG_INFINITY), ..ride() }, Units::default(), "magicpoints");
        impossible(ScoreRide { tmin: Some(-1_001.0), ..ride() }, Units::default(), "tmin");
        impossible(ScoreRide { tmin: Some(50.0), tmax: Some(71.0), ..ride() }, celsius, "tmax");
        impossible(ScoreRide { tmin: Some(150.5), ..ride() }, Units::default(), "tmin");
        impossible(ScoreRide { prcp: Some(-1.0), ..ride() }, Units::default(), "prcp");
        impossible(ScoreRide { prcp: Some(20_001.0), ..ride() }, Units::default(), "prcp");
        let inch = Units { precipitation: PrecipitationUnit::Inch, ..Units::default() };
        impossible(ScoreRide { prcp: Some(79.0), ..ride() }, inch, "prcp");
        let used = "distance, healthpoints, magicpoints, tmin, tmax, prcp";
        let expected = format!(
            "distance is missing, and so is every feature that the model uses: expected at least one of {used}"
        );
        assert_eq!(error(ScoreRide::default(), Units::default()).message, expected);
    }

    /// The weather of a day is checked as in the join, in the units of the request, with the same message.
    #[test]
    fn weather_is_possible_here_exactly_if_the_join_accepts_it() {
        let values = [-1_000.5, -1_000.0, -0.5, 0.0, 97.0, 176.0, 700.0, 700.5, 20_000.0, 20_000.5];
        let model = served(&model("m"));
        for tmin in values {
            for tmax in values {
                for prcp in values {
                    let ride = ScoreRide { tmin: Some(tmin), tmax: Some(tmax), prcp: Some(prcp), ..ride() };
                    let actual = probability(&model, &ride, NOAA);
                    match weather::check(ride.tmin, ride.tmax, ride.prcp) {
                        Ok(()) => assert!(actual.is_ok(), "{ride:?}: {actual:?}"),
                        Err(why) => {
                            let message = actual.unwrap_err().to_string();
                            assert!(message.starts_with(why.feature()), "{ride:?}: {message}");
                            assert!(message.contains(why.expected()), "{ride:?}: {message}");
                        }
                    }
                }
            }
        }
    }

    /// A model of mileage alone scores a ride whose weather is missing or impossible, and explains it by mileage alone; a model of the
    /// weather does not.
    #[test]
    fn features_that_a_model_does_not_use_may_be_missing() {
        let of = |set: FeatureSet| {
            let mut model = model("m");
            let mut used = set.used().into_iter();
            model.coefficients.retain(|_| used.next() == Some(true));
            served(&model)
        };
        let dry = ScoreRide { tmin: Some(900.0), tmax: Some(-5e9), prcp: None, ..ride() };
        let request = ScoreRequest { explain: true, impute: false, ..request(vec![dry]) };
        let response = score(&of(FeatureSet::Mileage), &request);
        response.check().unwrap();
        let ScoreOutcome::Scored { probability, explanation, .. } = &response.scores[0].outcome else {
            panic!("{response:?}")
        };
        assert!((probability - logistic(-19.2 + 0.75 * 30.0 - 0.011 * 310.0)).abs() < 1e-12);
        let features: Vec<_> = explanation.iter().map(|contribution| contribution.feature.as_str()).collect();
        assert_eq!(features, ["distance", "magicpoints", "healthpoints"]);
        let ScoreOutcome::Failed { error } = &score(&of(FeatureSet::Weather), &request).scores[0].outcome else {
            panic!("scored without its weather")
        };
        assert_eq!(error.field.as_deref(), Some("rides[0].tmin"));
    }

    /// A plausible ride, and a model with a consistent intercept.
    fn explainable() -> impl Strategy<Value = (Model, ScoreRide)> {
        let coefficient = |weight: f64, low: f64, high: f64| {
            (-weight..weight, low..high, low..high, low..high).prop_map(|(per_unit, mean, min, max)| {
                (per_unit, mean.clamp(min.min(max), min.max(max)), min.min(max), min.max(max))
            })
        };
        let coefficients = (
            coefficient(2.0, 0.0, 60.0),
            coefficient(0.1, 0.0, 400.0),
            coefficient(0.1, 0.0, 400.0),
            coefficient(0.05, -300.0, 200.0),
            coefficient(0.05, 0.0, 400.0),
            coefficient(0.05, 0.0, 500.0),
        );
        let ride = (0.0..60.0, 0.0..400.0, 0.0..400.0, -300.0..200.0, 200.0..400.0, 0.0..500.0).prop_map(
            |(distance, healthpoints, magicpoints, tmin, tmax, prcp)| ScoreRide {
                distance: Some(distance),
                healthpoints: Some(healthpoints),
                magicpoints: Some(magicpoints),
                tmin: Some(tmin),
                tmax: Some(tmax),
                prcp: Some(prcp),
                ..ScoreRide::default()
            },
        );
        (coefficients, -5.0..5.0, ride).prop_map(|((a, b, c, d, e, f), intercept_standardised, ride)| {
            let mut model = model("m");
            model.intercept_standardised = intercept_standardised;
            model.intercept = intercept_standardised;
            for (coefficient, (per_unit, mean, min, max)) in model.coefficients.iter_mut().zip([a, b, c, d, e, f]) {
                model.intercept -= per_unit * mean;
                (coefficient.per_unit, coefficient.mean, coefficient.min, coefficient.max) = (per_unit, mean, min, max);
            }
            (model, ride)
        })
    }

    fn explanation(model: &Model, ride: ScoreRide) -> (ScoreResponse, f64, Vec<Contribution>) {
        let response = score(&served(model), &ScoreRequest { explain: true, ..request(vec![ride]) });
        response.check().unwrap();
        match response.scores[0].outcome.clone() {
            ScoreOutcome::Scored { probability, explanation, .. } => (response, probability, explanation),
            ScoreOutcome::Failed { error } => panic!("{error:?}"),
        }
    }

    /// Contributions are sorted by size, equal ones in the order of the features, with values in units of the dataset. Values outside
    /// the training range are marked.
    #[test]
    fn an_explanation_is_sorted_and_marks_values_outside_training() {
        let mut model = model("m");
        for coefficient in &mut model.coefficients {
            (coefficient.per_unit, coefficient.mean) = (0.0, 100.0);
            (coefficient.min, coefficient.max) = (-50.0, 310.0);
        }
        model.coefficients[5].per_unit = 0.01;
        model.coefficients[3].per_unit = -0.02;
        let inch = ScoreRide { prcp: Some(2.0), ..ride() };
        let units = Units { precipitation: PrecipitationUnit::Inch, ..Units::default() };
        let response = score(&served(&model), &ScoreRequest { explain: true, units, ..request(vec![inch]) });
        let ScoreOutcome::Scored { explanation, .. } = &response.scores[0].outcome else { panic!("{response:?}") };
        let contributions: Vec<_> =
            explanation.iter().map(|c| (c.feature.as_str(), c.value, c.outside_training)).collect();
        let expected = [
            ("prcp", 508.0, true),
            ("tmin", 50.0, false),
            ("distance", 30.0, false),
            ("healthpoints", 300.0, false),
            ("magicpoints", 310.0, false),
            ("tmax", 150.0, false),
        ];
        assert_eq!(contributions, expected);
        assert!((explanation[0].log_odds - 4.08).abs() < 1e-12 && explanation[1].log_odds == 1.0, "{explanation:?}");
        let plain = serde_json::to_string(&score(&served(&model), &request(vec![ride()]))).unwrap();
        assert!(!plain.contains("explanation") && !plain.contains("baseline"), "{plain}");
    }

    /// The mean temperature stands for both temperatures; with one of them it determines the other, and nothing is assumed.
    #[test]
    fn a_mean_temperature_stands_for_the_temperatures() {
        let model = served(&model("m"));
        let expected = probability(&model, &ride(), NOAA).unwrap();
        for (tmin, tmax) in [(Some(50.0), None), (None, Some(150.0))] {
            let known = ScoreRide { tmin, tmax, tavg: Some(100.0), ..ride() };
            for impute in [true, false] {
                let actual = score_ride(&model, &known, Reading { impute, ..NOAA }).unwrap();
                assert_eq!(actual.probability.to_bits(), expected.to_bits());
                assert!(actual.imputed.is_none());
            }
        }
        let mean = ScoreRide { tmin: None, tmax: None, tavg: Some(10.0), ..ride() };
        let units = Units { temperature: TemperatureUnit::Celsius, ..Units::default() };
        let actual = score_ride(&model, &mean, Reading { units, ..NOAA }).unwrap();
        assert!((actual.features[3] + actual.features[4] - 200.0).abs() < 1e-9 && actual.is_assumed(3), "{actual:?}");
        let refused = score_ride(&model, &mean, Reading { impute: false, ..NOAA }).unwrap_err();
        assert_eq!(refused.to_string(), "tmin is missing: the model needs it");
        for (tmin, tmax, tavg, words) in [
            (Some(50.0), Some(150.0), 100.0, "tavg is 100: expected no mean temperature beside both tmin and tmax"),
            (Some(150.0), None, 100.0, "tavg is 100: expected the mean of tmin, and tmax between"),
            (None, Some(50.0), 100.0, "tavg is 100: expected the mean of tmax, and tmin between"),
            (Some(50.0), None, 400.0, "tavg is 400: expected the mean of tmin, and tmax between"),
            (None, None, 701.0, "tavg is 701: expected a temperature from -100 °C to 70 °C"),
            (None, None, f64::NAN, "tavg is NaN: expected a temperature"),
        ] {
            let why = score_ride(&model, &ScoreRide { tmin, tmax, tavg: Some(tavg), ..ride() }, NOAA).unwrap_err();
            assert!(why.to_string().starts_with(words), "{why}");
        }
    }

    /// Values that lie more than a standard deviation outside the training range are named in the units that people use.
    #[test]
    fn far_values_are_named_in_words() {
        let mut artefact = model("m");
        for coefficient in &mut artefact.coefficients {
            (coefficient.mean, coefficient.std_dev, coefficient.min, coefficient.max) = (100.0, 50.0, 0.0, 400.0);
        }
        let warnings_of = |ride: ScoreRide| {
            let response = score(&served(&artefact), &request(vec![ride]));
            let ScoreOutcome::Scored { warnings, .. } = &response.scores[0].outcome else { panic!("{response:?}") };
            warnings.clone()
        };
        assert!(warnings_of(ScoreRide { tmin: Some(-50.0), tmax: Some(450.0), ..ride() }).is_empty());
        let far =
            warnings_of(ScoreRide { tmin: Some(-51.0), distance: Some(1e300), healthpoints: Some(-1e9), ..ride() });
        // The weight of the health points is 0.
        let expected = [
            "distance is 1.0e300 miles, far outside the training rides' range of 0 to 400 miles: the model extrapolates",
            "tmin is -5.1 °C, far outside the training rides' range of 0 to 40 °C: the model extrapolates",
        ];
        assert_eq!(far, expected);
        let assumed = warnings_of(ScoreRide { tmin: None, tmax: None, tavg: Some(600.0), ..ride() });
        assert!(assumed[0].starts_with("tmin is assumed to be 60 °C, far outside"), "{assumed:?}");
    }

    fn number() -> impl Strategy<Value = Option<f64>> {
        proptest::option::weighted(0.9, prop_oneof![Just(0.0), -2_000.0f64..2_000.0, any::<f64>()])
    }

    proptest! {
        /// Baseline and contributions add up to the probability, which is the same to the last bit with and without an explanation.
        #[test]
        fn an_explanation_adds_up_to_the_probability((model, ride) in explainable()) {
            let (response, explained, contributions) = explanation(&model, ride.clone());
            let plain = probability(&served(&model), &ride, NOAA).unwrap();
            prop_assert_eq!(explained.to_bits(), plain.to_bits());
            let sum: f64 = contributions.iter().map(|contribution| contribution.log_odds).sum();
            let explained_sum = logistic(response.baseline_log_odds.unwrap() + sum);
            prop_assert!((explained_sum - plain).abs() < 1e-12, "{} {}", explained_sum, plain);
            prop_assert!(contributions.is_sorted_by(|a, b| a.log_odds.abs() >= b.log_odds.abs()));
            for (contribution, coefficient) in
                contributions.iter().flat_map(|c| model.coefficients.iter().map(move |k| (c, k)))
            {
                if contribution.feature == coefficient.feature {
                    let inside = (coefficient.min..=coefficient.max).contains(&contribution.value);
                    prop_assert_eq!(contribution.outside_training, !inside);
                }
            }
        }

        /// A ride without some of its features has the listed values assumed, an interval that contains the probability, and an
        /// explanation that adds up to the log-odds at the assumed values. All others are as given, to the last bit.
        #[test]
        fn an_incomplete_ride_is_scored_at_what_it_assumes(
            (model, ride) in explainable(), kept in prop::array::uniform6(any::<bool>()),
        ) {
            prop_assume!(kept.iter().any(|kept| *kept) && !kept.iter().all(|kept| *kept));
            let mut known = ride.clone();
            for (feature, _) in FEATURES.iter().zip(kept).filter(|(_, kept)| !kept) {
                (feature.set)(&mut known, None);
            }
            let response = score(&served(&model), &ScoreRequest { explain: true, ..request(vec![known.clone()]) });
            response.check().unwrap();
            let ScoreOutcome::Scored { probability, explanation, assumed, interval: Some(interval), .. } =
                &response.scores[0].outcome else { panic!("{response:?}") };
            prop_assert!(interval.low <= *probability && *probability <= interval.high, "{response:?}");
            let missing = FEATURES.iter().zip(kept).filter(|(_, kept)| !kept).map(|(feature, _)| feature.name);
            prop_assert!(assumed.iter().map(|assumed| assumed.feature.as_str()).eq(missing), "{response:?}");
            let sum: f64 = explanation.iter().map(|contribution| contribution.log_odds).sum();
            let mut complete = known.clone();
            for Assumed { feature, value } in assumed {
                (Feature::named(feature).unwrap().set)(&mut complete, Some(*value));
            }
            let at_assumed = super::probability(&served(&model), &complete, NOAA).unwrap();
            let explained = logistic(response.baseline_log_odds.unwrap() + sum);
            prop_assert!((explained - at_assumed).abs() < 1e-12, "{} {}", explained, at_assumed);
            prop_assert!(interval.low <= at_assumed + 1e-15 && at_assumed <= interval.high + 1e-15, "{response:?}");
            let refused = score(&served(&model), &ScoreRequest { impute: false, ..request(vec![known]) });
            let is_missing = matches!(&refused.scores[0].outcome,
                ScoreOutcome::Failed { error } if error.code == ScoreErrorCode::MissingFeature);
            prop_assert!(is_missing, "{refused:?}");
        }

        #[test]
        fn every_ride_has_a_probability_or_an_error_that_names_a_feature(
            (distance, healthpoints, magicpoints) in (number(), number(), number()),
            (tmin, tmax, prcp) in (number(), number(), number()),
            (tavg, impute) in (proptest::option::weighted(0.2, -2_000.0..2_000.0), any::<bool>()),
        ) {
            let ride = ScoreRide { distance, healthpoints, magicpoints, tmin, tmax, tavg, prcp, ..ScoreRide::default() };
            let response = score(&served(&model("m")), &ScoreRequest { explain: true, impute, ..request(vec![ride]) });
            prop_assert_eq!(response.check(), Ok(()));
            let json = serde_json::to_vec(&response).unwrap();
            prop_assert_eq!(decode::<ScoreResponse>(&json), Ok(response.clone()));
            if let ScoreOutcome::Failed { error } = &response.scores[0].outcome {
                let field = error.field.as_deref().unwrap_or_default();
                let feature = field.strip_prefix("rides[0].");
                let is_known = FEATURES.iter().any(|known| Some(known.name) == feature) || feature == Some(TAVG);
                prop_assert!(is_known, "{}", field);
            }
        }
    }
}
