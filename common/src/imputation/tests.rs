use super::*;
use crate::{
    features::FEATURES,
    model::{Coefficient, Metrics, TrainingCounts, TrainingSettings},
};
use proptest::prelude::*;

const DISTANCE: usize = 0;
const HEALTH: usize = 1;
const TMIN: usize = 3;
const TMAX: usize = 4;
const PRCP: usize = 5;

/// An artefact with this distribution of all features.
fn model(mean: Features, std_dev: Features, covariance: Option<Vec<Vec<f64>>>) -> Model {
    let coefficient = |j: usize| Coefficient {
        feature: FEATURES[j].name.to_owned(),
        unit: FEATURES[j].unit.to_owned(),
        per_unit: 0.0,
        standardised: 0.0,
        mean: mean[j],
        std_dev: std_dev[j],
        min: 0.0,
        max: 0.0,
        inference: None,
        histogram: None,
    };
    Model {
        schema: String::new(),
        model: String::new(),
        model_id: String::new(),
        trainer: String::new(),
        settings: TrainingSettings::default(),
        datasets: Vec::new(),
        counts: TrainingCounts::default(),
        breed: None,
        prior_mean: None,
        alpha: 0.0,
        intercept: 0.0,
        intercept_standard_error: None,
        intercept_standardised: 0.0,
        coefficients: (0..FEATURE_COUNT).map(coefficient).collect(),
        covariance,
        threshold: 0.5,
        gradient_norm: 0.0,
        selection: None,
        evidence: None,
        warnings: Vec::new(),
        predicted: Vec::new(),
        train: Metrics::default(),
        test: None,
    }
}

fn distribution(mean: Features, std_dev: Features, covariance: Option<Vec<Vec<f64>>>) -> Distribution {
    let model = model(mean, std_dev, covariance);
    Distribution::of(&model, &model.used().unwrap()).unwrap()
}

/// Means and standard deviations like those of rides.
const MEAN: Features = [30.0, 330.0, 300.0, 90.0, 170.0, 45.0];
const STD_DEV: Features = [0.6, 23.0, 60.0, 80.0, 95.0, 120.0];

/// The covariance of `STD_DEV` with these correlations.
fn covariance(correlations: &[(usize, usize, f64)]) -> Vec<Vec<f64>> {
    let mut matrix = vec![vec![0.0; FEATURE_COUNT]; FEATURE_COUNT];
    for (j, row) in matrix.iter_mut().enumerate() {
        row[j] = STD_DEV[j].powi(2);
    }
    for &(j, k, correlation) in correlations {
        matrix[j][k] = correlation * STD_DEV[j] * STD_DEV[k];
        matrix[k][j] = matrix[j][k];
    }
    matrix
}

fn known(features: &[(usize, f64)]) -> Known {
    let mut known = Known::default();
    for &(place, value) in features {
        known.features[place] = Some(value);
    }
    known
}

fn unit(place: usize) -> Features {
    std::array::from_fn(|j| if j == place { 1.0 } else { 0.0 })
}

/// The covariance of random rides: of rank `rides - 1` at most, so often singular.
fn covariance_of(rides: &[Features]) -> (Features, Features, Vec<Vec<f64>>) {
    let n = rides.len() as f64;
    let mean: Features = std::array::from_fn(|j| rides.iter().map(|ride| ride[j]).sum::<f64>() / n);
    let of = |j: usize, k: usize| rides.iter().map(|ride| (ride[j] - mean[j]) * (ride[k] - mean[k])).sum::<f64>() / n;
    let std_dev = std::array::from_fn(|j| of(j, j).sqrt());
    (mean, std_dev, (0..FEATURE_COUNT).map(|j| (0..FEATURE_COUNT).map(|k| of(j, k)).collect()).collect())
}

fn rides() -> impl Strategy<Value = Vec<Features>> {
    let ride = (20.0..40.0, 200.0..400.0, 100.0..500.0, -50.0..150.0, 160.0..300.0, 0.0..500.0);
    let ride = ride.prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f]);
    proptest::collection::vec(ride, 2..12)
}

fn some_known() -> impl Strategy<Value = [Option<f64>; FEATURE_COUNT]> {
    let value = |low: f64, high: f64| proptest::option::of(low..high);
    (
        value(0.0, 60.0),
        value(0.0, 500.0),
        value(0.0, 900.0),
        value(-90.0, 150.0),
        value(150.0, 400.0),
        value(0.0, 900.0),
    )
        .prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f])
}

/// Compares with the numbers of a calculation by hand: 170 + 0.9·95·(1 σ), and 95²·(1 − 0.81).
#[test]
fn two_features_follow_the_closed_form() {
    let distribution = distribution(MEAN, STD_DEV, Some(covariance(&[(TMIN, TMAX, 0.9)])));
    let conditional = distribution.given(&known(&[(TMIN, MEAN[TMIN] + STD_DEV[TMIN])]));
    assert!((conditional.mean[TMAX] - 255.5).abs() < 1e-9, "{conditional:?}");
    assert!((conditional.variance(&unit(TMAX)) - 1_714.75).abs() < 1e-6, "{conditional:?}");
    assert!((conditional.mean[PRCP] - MEAN[PRCP]).abs() < 1e-12);
    assert!((conditional.variance(&unit(PRCP)) - STD_DEV[PRCP].powi(2)).abs() < 1e-6);
}

/// The mean temperature moves both temperatures by their regression on it, and leaves the uncertainty of their difference.
#[test]
fn a_mean_temperature_is_kept_and_informs_both_temperatures() {
    let distribution = distribution(MEAN, STD_DEV, Some(covariance(&[(TMIN, TMAX, 0.9)])));
    let tavg = 210.0;
    let conditional = distribution.given(&Known { tavg: Some(tavg), ..known(&[]) });
    let (low, high) = (conditional.mean[TMIN], conditional.mean[TMAX]);
    assert!(((low + high) / 2.0 - tavg).abs() < 1e-9, "{low} {high}");
    let (a, b, both) = (STD_DEV[TMIN].powi(2), STD_DEV[TMAX].powi(2), 0.9 * STD_DEV[TMIN] * STD_DEV[TMAX]);
    let of_mean = (a + b + 2.0 * both) / 4.0;
    let expected = MEAN[TMIN] + (a + both) / 2.0 / of_mean * (tavg - 130.0);
    assert!((low - expected).abs() < 1e-9, "{low} {expected}");
    let mut average = [0.0; FEATURE_COUNT];
    (average[TMIN], average[TMAX]) = (0.5, 0.5);
    assert!(conditional.variance(&average) < 1e-6, "the mean is certain");
    assert!(conditional.variance(&unit(TMIN)) > 1.0, "each of the two is not");
}

/// A model of an earlier trainer has no covariance: a missing feature takes its mean, with its variance.
#[test]
fn without_a_covariance_a_missing_feature_takes_its_mean() {
    let conditional = distribution(MEAN, STD_DEV, None).given(&known(&[(TMIN, 500.0), (DISTANCE, 31.0)]));
    assert_eq!((conditional.mean[HEALTH], conditional.mean[DISTANCE]), (MEAN[HEALTH], 31.0));
    assert!((conditional.variance(&unit(HEALTH)) - STD_DEV[HEALTH].powi(2)).abs() < 1e-9);
    assert_eq!(conditional.variance(&unit(DISTANCE)), 0.0);
}

/// A constant feature is certain, says nothing about others, and contradicts nothing; of two equal features either says all.
#[test]
fn constant_and_equal_features_need_no_care() {
    let mut std_dev = STD_DEV;
    std_dev[HEALTH] = 0.0;
    let equal = covariance(&[(DISTANCE, 2, 1.0), (HEALTH, PRCP, 0.7)]);
    let distribution = distribution(MEAN, std_dev, Some(equal));
    let conditional = distribution.given(&known(&[(DISTANCE, 30.6), (2, 360.0), (HEALTH, 1e9)]));
    assert_eq!((conditional.mean[HEALTH], conditional.mean[PRCP]), (1e9, MEAN[PRCP]));
    assert_eq!(distribution.given(&known(&[(PRCP, 9.0)])).mean[HEALTH], MEAN[HEALTH]);
    let contradictory = distribution.given(&known(&[(DISTANCE, 29.4), (2, 900.0)]));
    assert_eq!((contradictory.mean[DISTANCE], contradictory.mean[2]), (29.4, 900.0));
    let from_equal = distribution.given(&known(&[(DISTANCE, 30.6)]));
    assert!((from_equal.mean[2] - 360.0).abs() < 1e-9 && from_equal.variance(&unit(2)) < 1e-6, "{from_equal:?}");
}

/// What is assumed is possible, however far from the training rides the known values are.
#[test]
fn an_assumed_value_is_possible() {
    let distribution = distribution(
        MEAN,
        STD_DEV,
        Some(covariance(&[(TMIN, TMAX, 0.9), (TMIN, PRCP, 0.5), (TMAX, PRCP, 0.5), (DISTANCE, HEALTH, 0.9)])),
    );
    let cold = distribution.given(&known(&[(TMIN, -900.0), (HEALTH, -1e6)]));
    assert_eq!((cold.mean[PRCP], cold.mean[DISTANCE]), (0.0, 0.0));
    let hot = distribution.given(&known(&[(TMIN, 690.0)]));
    assert!((690.0..=700.0).contains(&hot.mean[TMAX]), "{hot:?}");
    for tavg in [-1_000.0, -700.0, 130.0, 699.0, 700.0] {
        let day = distribution.given(&Known { tavg: Some(tavg), ..known(&[]) });
        assert!(day.mean[TMIN] <= day.mean[TMAX] && day.mean[TMIN] >= -1_000.0 && day.mean[TMAX] <= 700.0, "{day:?}");
        assert!(((day.mean[TMIN] + day.mean[TMAX]) / 2.0 - tavg).abs() < 1e-9, "{day:?}");
    }
}

#[test]
fn an_unusable_covariance_is_refused() {
    for broken in
        [vec![], vec![vec![1.0; FEATURE_COUNT]; 2], vec![vec![1.0; 2]; FEATURE_COUNT], vec![vec![f64::NAN; 6]; 6]]
    {
        let model = model(MEAN, STD_DEV, Some(broken));
        assert_eq!(Distribution::of(&model, &model.used().unwrap()), Err(UnusableCovariance));
    }
}

/// Compares with Simpson's rule over 4,000 intervals.
#[test]
fn the_expectation_of_the_probability_is_exact() {
    for log_odds in [-9.0, -1.5, 0.0, 0.3, 4.0] {
        for (std_dev, accuracy) in [(0.01, 1e-12), (0.7, 1e-12), (3.0, 1e-10), (5.0, 1e-6), (10.0, 1e-3)] {
            const INTERVALS: i32 = 4_000;
            let step = 24.0 / f64::from(INTERVALS);
            let simpson = (0..=INTERVALS).map(|node| {
                let u = -12.0 + f64::from(node) * step;
                let factor = if node == 0 || node == INTERVALS { 1.0 } else { f64::from(2 + 2 * (node % 2)) };
                factor * step / 3.0 * logistic(log_odds + std_dev * u) * (-0.5 * u * u).exp()
            });
            let expected = simpson.sum::<f64>() / (2.0 * std::f64::consts::PI).sqrt();
            let actual = Uncertain { log_odds, std_dev }.probability();
            assert!((actual - expected).abs() < accuracy, "{log_odds} ± {std_dev}: {actual} {expected}");
        }
    }
}

proptest! {
    /// The order of the observations changes nothing: conditioning on all at once is conditioning on one after the other.
    #[test]
    fn the_order_of_the_features_changes_nothing(rides in rides(), values in some_known(), turn in 1..FEATURE_COUNT) {
        let (mean, std_dev, covariance) = covariance_of(&rides);
        let straight = distribution(mean, std_dev, Some(covariance)).conditioned(&Known { features: values, tavg: None });
        // The same features, turned: the result must be the same, turned.
        let from = |j: usize| (j + turn) % FEATURE_COUNT;
        let (mean, std_dev, covariance) = covariance_of(
            &rides.iter().map(|ride| std::array::from_fn(|j| ride[from(j)])).collect::<Vec<Features>>(),
        );
        let turned = Known { features: std::array::from_fn(|j| values[from(j)]), tavg: None };
        let turned = distribution(mean, std_dev, Some(covariance)).conditioned(&turned);
        // With few rides the covariance is singular, and known values contradict it: which of them counts depends on the order.
        prop_assume!(rides.len() > FEATURE_COUNT + 2);
        for j in 0..FEATURE_COUNT {
            let scale = 1.0 + turned.mean[j].abs();
            prop_assert!((turned.mean[j] - straight.mean[from(j)]).abs() < 1e-5 * scale, "{turned:?} {straight:?}");
            let (a, b) = (turned.variance(&unit(j)), straight.variance(&unit(from(j))));
            prop_assert!((a - b).abs() < 1e-5 * (1.0 + a), "{} {}", a, b);
        }
    }

    /// More known features never make another one less certain, and a known one is certain and exact.
    #[test]
    fn knowledge_never_adds_uncertainty(rides in rides(), values in some_known(), more in 0..FEATURE_COUNT) {
        let (mean, std_dev, covariance) = covariance_of(&rides);
        let distribution = distribution(mean, std_dev, Some(covariance));
        let less = Known { features: std::array::from_fn(|j| values[j].filter(|_| j != more)), tavg: None };
        let (with, without) = (distribution.given(&Known { features: values, tavg: None }), distribution.given(&less));
        for j in 0..FEATURE_COUNT {
            let (a, b) = (with.variance(&unit(j)), without.variance(&unit(j)));
            prop_assert!(a <= b + 1e-6 * std_dev[j].powi(2), "{}: {} {}", j, a, b);
            if let Some(value) = values[j] {
                prop_assert_eq!(with.mean[j], value);
                prop_assert!(a <= 1e-6 * std_dev[j].powi(2), "{}: {}", j, a);
            }
        }
    }

    /// Whatever the artefact and the ride: numbers, never NaN, and the probability within its interval.
    #[test]
    fn every_result_is_a_number(
        mean in prop::array::uniform6(any::<f64>().prop_filter("finite", |x| x.is_finite())),
        std_dev in prop::array::uniform6(prop_oneof![Just(0.0), 0.0..1e9, any::<f64>().prop_filter("finite", |x| x.is_finite())]),
        matrix in prop::array::uniform6(prop::array::uniform6(prop_oneof![-2.0..2.0, -1e300..1e300])),
        values in prop::array::uniform6(proptest::option::of(any::<f64>().prop_filter("finite", |x| x.is_finite()))),
        tavg in proptest::option::of(-1_000.0..700.0), weights in prop::array::uniform6(-1e3..1e3), log_odds in -50.0..50.0,
    ) {
        let covariance = matrix.iter().map(|row| row.to_vec()).collect();
        let conditional = distribution(mean, std_dev, Some(covariance)).given(&Known { features: values, tavg });
        prop_assert!(conditional.mean.iter().all(|value| value.is_finite()), "{conditional:?}");
        let variance = conditional.variance(&weights);
        prop_assert!(variance >= 0.0, "{}", variance);
        let uncertain = Uncertain { log_odds, std_dev: variance.sqrt() };
        let (probability, (low, high)) = (uncertain.probability(), uncertain.interval());
        prop_assert!(0.0 <= low && low <= probability && probability <= high && high <= 1.0, "{low} {probability} {high}");
        prop_assert!(low <= logistic(log_odds) && logistic(log_odds) <= high, "{low} {log_odds} {high}");
    }

    /// Uncertainty draws the probability towards one half, and complements stay complements.
    #[test]
    fn uncertainty_draws_towards_one_half(log_odds in -30.0..30.0, std_dev in 0.0..20.0) {
        let probability = Uncertain { log_odds, std_dev }.probability();
        prop_assert!((probability - 0.5).abs() <= (logistic(log_odds) - 0.5).abs() + 1e-12);
        let complement = Uncertain { log_odds: -log_odds, std_dev }.probability();
        prop_assert!((probability + complement - 1.0).abs() < 1e-12);
        prop_assert_eq!(Uncertain { log_odds, std_dev: 0.0 }.probability().to_bits(), logistic(log_odds).to_bits());
    }
}
