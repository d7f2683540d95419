//! Tests of scores, explanations and imputation.

use super::*;
use crate::serve::artefact::tests::{model, served};
use common::{
    features::{FEATURES, FeatureSet},
    message::{Message, PrecipitationUnit, TemperatureUnit, decode},
    model::{Model, logistic},
};
use proptest::prelude::*;

const NOAA: Reading = Reading {
    units: Units { temperature: TemperatureUnit::CelsiusTenths, precipitation: PrecipitationUnit::MillimetreTenths },
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
            probability(&model, &ride, Reading { units: Units { temperature, precipitation }, impute: true }).unwrap();
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
    let expected =
        format!("distance is missing, and so is every feature that the model uses: expected at least one of {used}");
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
    let contributions: Vec<_> = explanation.iter().map(|c| (c.feature.as_str(), c.value, c.outside_training)).collect();
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
    let far = warnings_of(ScoreRide { tmin: Some(-51.0), distance: Some(1e300), healthpoints: Some(-1e9), ..ride() });
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
