use super::*;
use crate::data::rows::NO_BREED;
use common::model::Criterion;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Draws rides whose log-odds are `intercept` plus the weights of the first features times uniform values. The values of the other
/// features come from a generator of their own, so that they do not change the first ones.
fn drawn(count: usize, weights: [f64; 6], intercept: f64, seed: u64) -> TrainingData {
    let (mut random, mut others) = (Pcg64Mcg::seed_from_u64(seed), Pcg64Mcg::seed_from_u64(!seed));
    let mut loaded = TrainingData::default();
    for _ in 0..count {
        let features: Features =
            std::array::from_fn(|j| if j < 6 { &mut random } else { &mut others }.random_range(-1.7..1.7));
        let z = intercept + weights.iter().zip(features).map(|(w, x)| w * x).sum::<f64>();
        let service = random.random_range(0.0..1.0) < 1.0 / (1.0 + (-z).exp());
        let side = if random.random_range(0..10) == 0 { &mut loaded.test } else { &mut loaded.train };
        side.push(features, service, random.random_range(0..=u8::MAX), NO_BREED);
    }
    count_up(&mut loaded);
    loaded
}

fn count_up(loaded: &mut TrainingData) {
    loaded.counts.train = loaded.train.len() as u64;
    loaded.counts.train_service = loaded.train.services() as u64;
    loaded.counts.test = loaded.test.len() as u64;
    loaded.counts.test_service = loaded.test.services() as u64;
}

fn plan(settings: TrainingSettings) -> Plan {
    Plan { model: "m".to_owned(), model_id: "0".repeat(16), settings, manifests: Vec::new(), datasets: Vec::new() }
}

fn built(loaded: &TrainingData, settings: TrainingSettings) -> Model {
    build(&plan(settings), loaded, &Cancel::default()).unwrap().model
}

const WEIGHTS: [f64; 6] = [1.0, 0.0, -0.8, 0.0, 0.5, 0.9];

fn codes(model: &Model) -> Vec<WarningCode> {
    model.warnings.iter().map(|warning| warning.code).collect()
}

/// With a service request on one ride in fifty, or on all but one in fifty, weights have the right sign, probabilities are calibrated, and
/// costs choose a threshold far from one half.
#[test]
fn rare_and_frequent_service_requests_are_modelled_alike() {
    for (intercept, rare) in [(-5.0, true), (5.0, false)] {
        let loaded = drawn(40_000, WEIGHTS, intercept, 1);
        let share = loaded.train.services() as f64 / loaded.train.len() as f64;
        assert!(if rare { share < 0.03 } else { share > 0.97 }, "{share}");
        let threshold = Criterion::Cost { false_positive: 1.0, false_negative: 20.0 };
        let model = built(&loaded, TrainingSettings { threshold, ..TrainingSettings::default() });
        for (coefficient, truth) in model.coefficients.iter().zip(WEIGHTS) {
            let error = coefficient.inference.as_ref().unwrap().standard_error;
            assert!((coefficient.per_unit - truth).abs() < 4.0 * error, "{rare}: {coefficient:?}");
        }
        let test = model.test.unwrap();
        assert!(test.calibration_error.unwrap() < 0.01 && test.roc_auc.unwrap() > 0.75, "{rare}: {test:?}");
        // Both mistakes cost the same at one in twenty-one. If hardly any ride is that unlikely, any lower threshold is as good.
        let away = if rare { 0.03 } else { 0.35 };
        assert!((model.threshold - 1.0 / 21.0).abs() < away, "{rare}: {}", model.threshold);
        assert_eq!(model.selection.unwrap().threshold.criterion, threshold);
    }
}

/// Test and held-out rides give evidence for the weather only if it has an effect; the interval contains the difference.
#[test]
fn there_is_evidence_for_the_weather_only_if_it_has_an_effect() {
    for (weights, helps) in [(WEIGHTS, true), ([1.0, 0.0, -0.8, 0.0, 0.0, 0.0], false)] {
        let model = built(&drawn(12_000, weights, 0.0, 3), TrainingSettings::default());
        let evidence = model.evidence.unwrap();
        let (weather, held_out) = (evidence.weather.unwrap(), evidence.held_out.unwrap());
        assert_eq!(weather.degrees_of_freedom, 3);
        assert_eq!(evidence.any.unwrap().degrees_of_freedom as usize, FEATURE_COUNT);
        let (gain, mileage) = (held_out.over_mileage.unwrap().log_loss, held_out.mileage.unwrap());
        assert!((gain.value - (mileage.log_loss.value - held_out.model.log_loss.value)).abs() < 1e-12);
        assert!(gain.lower <= gain.value && gain.value <= gain.upper);
        assert_eq!(weather.p_value < 0.001, helps, "{weather:?}");
        assert_eq!(gain.lower > 0.0, helps, "{gain:?}");
        assert_eq!(held_out.model.log_loss.value, model.test.unwrap().log_loss);
    }
}

/// 95 % intervals contain the true weight in 95 % of the cases, and tests at the 5 % level give 5 % false positives.
#[test]
fn intervals_and_tests_have_their_nominal_rates() {
    let settings = TrainingSettings {
        alphas: vec![0.0],
        threshold: Criterion::Fixed { probability: 0.5 },
        breed_rides_min: None,
        ..TrainingSettings::default()
    };
    let (mut covered, mut false_positives, mut count) = (0, 0, 0);
    for seed in 0..150 {
        let loaded =
            TrainingData { test: Rides::default(), ..drawn(600, [0.7, 0.0, -0.5, 0.0, 0.0, 0.0], -0.3, 100 + seed) };
        let model = built(&loaded, settings.clone());
        for (coefficient, truth) in model.coefficients.iter().zip([0.7, 0.0, -0.5, 0.0, 0.0, 0.0]) {
            let inference = coefficient.inference.as_ref().unwrap();
            let expected = (truth * inference.step).exp();
            covered += i32::from(inference.odds_ratio.lower <= expected && expected <= inference.odds_ratio.upper);
            count += 1;
        }
        false_positives += i32::from(model.evidence.unwrap().weather.unwrap().p_value < 0.05);
    }
    // Expected: 855 ± 7 of 900 intervals and 7.5 ± 2.7 of 150 tests.
    assert!((830..=880).contains(&covered) && count == 900, "{covered} of {count}");
    assert!((1..=17).contains(&false_positives), "{false_positives} of 150");
}

#[test]
fn an_artefact_has_only_the_features_of_its_set() {
    let loaded = drawn(4_000, WEIGHTS, 0.0, 5);
    for (features, weather) in [(FeatureSet::Mileage, false), (FeatureSet::Weather, true)] {
        let of_set = FEATURES.iter().filter(|feature| feature.weather == weather);
        let names: Vec<&str> = of_set.map(|feature| feature.name).collect();
        let model = built(&loaded, TrainingSettings { features, ..TrainingSettings::default() });
        assert_eq!(model.coefficients.iter().map(|c| c.feature.as_str()).collect::<Vec<_>>(), names);
        let used = model.used().unwrap();
        let row = loaded.test.features[0];
        let inputs: Vec<f64> = used.iter().map(|j| row[*j]).collect();
        let shift: f64 = model.coefficients.iter().zip(&inputs).map(|(c, x)| c.per_unit * x).sum();
        assert_eq!(model.log_odds(&inputs), model.intercept + shift);
        let evidence = model.evidence.unwrap();
        assert!(evidence.weather.is_none() && evidence.any.is_some() && evidence.held_out.unwrap().mileage.is_none());
    }
}

/// Collinear, separating and constant features and too few rides give a warning each; ordinary rides give none.
#[test]
fn problems_give_warnings() {
    let settings = TrainingSettings::default;
    let loaded = drawn(4_000, WEIGHTS, 0.0, 6);
    assert_eq!(codes(&built(&loaded, settings())), []);

    let mut collinear = TrainingData {
        train: loaded.train.clone(),
        test: loaded.test.clone(),
        counts: loaded.counts,
        ..TrainingData::default()
    };
    collinear.train.features.iter_mut().for_each(|row| row[4] = row[3] + 0.05 * row[4]);
    let model = built(&collinear, settings());
    assert_eq!(codes(&model)[0], WarningCode::Collinearity);
    assert!(model.warnings[0].why.contains("tmin, tmax"), "{:?}", model.warnings);
    collinear.train.features.iter_mut().for_each(|row| row[4] = 2.0 * row[3] + 1.0);
    // Only the penalty determines the two weights here.
    let model = built(&collinear, settings());
    assert_eq!(codes(&model), [WarningCode::Collinearity, WarningCode::StrongPenalty]);
    assert!(model.warnings[0].why.contains("others: tmin, tmax;"), "{:?}", model.warnings);

    let mut separated = TrainingData {
        train: loaded.train.clone(),
        test: loaded.test.clone(),
        counts: loaded.counts,
        ..TrainingData::default()
    };
    separated.train.service = separated.train.features.iter().map(|row| row[0] > 0.2).collect();
    count_up(&mut separated);
    let model = built(&separated, settings());
    assert!(codes(&model).contains(&WarningCode::Separation), "{:?}", model.warnings);
    assert_eq!(model.evidence.unwrap().any, None);

    let mut constant = TrainingData {
        train: loaded.train.clone(),
        test: loaded.test,
        counts: loaded.counts,
        ..TrainingData::default()
    };
    constant.train.features.iter_mut().for_each(|row| row[5] = 3.0);
    assert_eq!(codes(&built(&constant, settings())), [WarningCode::ConstantFeature]);

    let few = drawn(120, WEIGHTS, -1.0, 8);
    assert!(codes(&built(&few, settings())).contains(&WarningCode::FewEvents));
    let noise = drawn(3_000, [0.0; 6], 0.0, 9);
    let model = built(&noise, settings());
    assert_eq!(codes(&model), [WarningCode::LargestPenalty, WarningCode::StrongPenalty]);
    assert!(model.coefficients.iter().all(|c| c.inference.is_none()) && model.intercept_standard_error.is_none());
}

#[test]
fn a_cancelled_training_gives_no_model() {
    let loaded = drawn(2_000, WEIGHTS, 0.0, 10);
    let cancel = Cancel::default();
    cancel.cancel();
    let ended = build(&plan(TrainingSettings::default()), &loaded, &cancel);
    assert_eq!(ended.unwrap_err(), Refusal::Fit(FitError::Cancelled));
}

/// The covariance is that of the training rides, symmetric, with the squares of the standard deviations on its diagonal and 0 for a
/// constant feature. The number of threads changes no bit.
#[test]
fn the_covariance_is_that_of_the_training_rides() {
    let mut loaded = drawn(40_000, WEIGHTS, 0.0, 11);
    for row in &mut loaded.train.features {
        (row[4], row[5]) = (row[3] + 0.5 * row[4], 3.0);
    }
    let settings = || TrainingSettings { alphas: vec![1.0], ..TrainingSettings::default() };
    let model = built(&loaded, settings());
    let covariance = model.covariance.clone().unwrap();
    let rows = &loaded.train.features;
    let n = rows.len() as f64;
    let mean: Features = std::array::from_fn(|j| rows.iter().map(|row| row[j]).sum::<f64>() / n);
    for j in 0..FEATURE_COUNT {
        assert!((covariance[j][j] - model.coefficients[j].std_dev.powi(2)).abs() < 1e-12, "{j}: {covariance:?}");
        for k in 0..FEATURE_COUNT {
            assert_eq!(covariance[j][k].to_bits(), covariance[k][j].to_bits());
            let plain = rows.iter().map(|row| (row[j] - mean[j]) * (row[k] - mean[k])).sum::<f64>() / n;
            let expected = if j == 5 || k == 5 { 0.0 } else { plain };
            assert!((covariance[j][k] - expected).abs() < 1e-10, "{j} {k}: {} {expected}", covariance[j][k]);
        }
    }
    assert!(covariance[3][4] > 0.5, "{covariance:?}");
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| built(&loaded, settings())).covariance.as_ref(), Some(&covariance));
    }
    let of_weather = built(&loaded, TrainingSettings { features: FeatureSet::Weather, ..settings() });
    let expected: Vec<Vec<f64>> = covariance[3..].iter().map(|row| row[3..].to_vec()).collect();
    assert_eq!(of_weather.covariance, Some(expected));
}
