use super::*;
use crate::{
    data::rows::NO_BREED,
    fit::{blocks::BLOCK_RIDES, matrix::largest, newton::GRADIENT_MAX, padded},
};
use proptest::prelude::*;

/// Fits with every feature, without a prior mean, from linfa's start.
fn fit(rides: &Rides, alpha: f64) -> Result<Fit, FitError> {
    let cancel = Cancel::default();
    super::fit(rides, &Recipe { alpha, used: [true; FEATURE_COUNT], prior_mean: None, start: None, cancel: &cancel })
}

/// Draws rides from known coefficients with a 64-bit linear congruential generator; `shift` changes the share of service requests.
fn drawn(rides: usize, shift: f64) -> Rides {
    let mut state = 0x5_DEEC_E66Du64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut drawn = Rides::default();
    for _ in 0..rides {
        let distance = 29.0 + 2.0 * uniform();
        let healthpoints = 290.0 + 80.0 * uniform();
        let magicpoints = 290.0 + 80.0 * uniform();
        let tmin = -100.0 + 300.0 * uniform();
        let tmax = tmin + 100.0 * uniform();
        let prcp = 200.0 * uniform() * uniform();
        let log_odds =
            -19.2 + 0.75 * distance - 0.011 * magicpoints - 0.004 * tmin - 0.003 * tmax + 0.007 * prcp + shift;
        let service = uniform() < 1.0 / (1.0 + (-log_odds).exp());
        drawn.push(padded(&[distance, healthpoints, magicpoints, tmin, tmax, prcp]), service, 0, NO_BREED);
    }
    drawn
}

fn flipped(rides: &Rides) -> Rides {
    Rides { service: rides.service.iter().map(|service| !service).collect(), ..rides.clone() }
}

/// The weights of the features that [`drawn`] varies, then the intercept.
fn per_unit(fit: &Fit) -> Vec<f64> {
    fit.per_unit[..6].iter().copied().chain([fit.intercept]).collect()
}

fn assert_close(found: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= relative * expected.abs(), "{found} is not {expected}");
    }
}

/// Computed with mpmath at 40 digits, by Newton's method in standardised units, from the same 400 rides:
/// per-unit coefficients, then the intercept.
const REFERENCE: [(f64, f64, usize, [f64; 7]); 4] = [
    (
        0.0,
        1.0,
        170,
        [
            0.6108254609244128,
            -0.004962014948036795,
            -0.008169015383640735,
            -0.0006631740072777442,
            -0.0060813650413453,
            0.007012599314903538,
            -14.049705844471589,
        ],
    ),
    (
        0.0,
        0.0,
        170,
        [
            0.617580359044425,
            -0.004972279036465525,
            -0.00826451625820301,
            -2.9641208038159304e-05,
            -0.006724485733998687,
            0.00710962039177074,
            -14.191697816730313,
        ],
    ),
    (
        1.5,
        1.0,
        278,
        [
            0.6675076774410208,
            0.0007921639810290757,
            -0.010927004300400098,
            -0.002978037111431966,
            -0.0026733440796597634,
            0.004612921205298346,
            -15.565839955149366,
        ],
    ),
    (
        1.5,
        0.0,
        278,
        [
            0.6775483465022847,
            0.0008030654951638664,
            -0.01105774962967087,
            -0.0030228857314009397,
            -0.0026757619258146316,
            0.004680854740959216,
            -15.82615578901509,
        ],
    ),
];

#[test]
fn fits_agree_with_an_independent_solution_whichever_class_is_larger() {
    for (shift, alpha, services, expected) in REFERENCE {
        let rides = drawn(400, shift);
        assert_eq!(rides.services(), services);
        let fit = fit(&rides, alpha).unwrap();
        assert_close(&per_unit(&fit), &expected, 1e-9);
        assert!(fit.gradient_norm < GRADIENT_MAX);
    }
}

#[test]
fn linfas_start_has_the_right_sign_whichever_class_is_larger() {
    for (shift, alpha, _, expected) in REFERENCE {
        let rides = drawn(400, shift);
        let scaler = Scaler::of(&rides).unwrap();
        let found = linfa_fit(&rides, &scaler, alpha).unwrap();
        // -0.00003 per unit is below linfa's tolerance.
        let scale = scaler.scale();
        let weights: Vec<f64> = (0..6).map(|j| found[j] * scale[j]).collect();
        let shift: f64 = weights.iter().zip(scaler.mean).map(|(weight, mean)| weight * mean).sum();
        let found = [weights, vec![found[FEATURE_COUNT] - shift]].concat();
        let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs().max(1e-3)).fold(0.0, f64::max);
        assert!(error < 1e-4, "{found:?} is not {expected:?}");
    }
}

#[test]
fn exchanging_the_labels_exchanges_the_signs() {
    let rides = drawn(1_000, 0.0);
    let there = per_unit(&fit(&rides, 1.0).unwrap());
    let back: Vec<f64> = per_unit(&fit(&flipped(&rides), 1.0).unwrap()).iter().map(|value| -value).collect();
    assert_close(&there, &back, 1e-7);
}

#[test]
fn a_fit_is_the_optimum_over_all_rides_beyond_linfas_sample() {
    let rides = drawn(SAMPLE_MAX + 1, 0.5);
    let fit = fit(&rides, 1.0).unwrap();
    assert!(fit.gradient_norm < GRADIENT_MAX);
    assert!(gradient_norm(&rides, &fit, 1.0) < 2.0 * GRADIENT_MAX);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let rides = drawn(3 * BLOCK_RIDES + 7, 0.0);
    let on = |threads: usize| {
        let cores = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        cores.install(|| fit(&rides, 1.0).unwrap())
    };
    let alone = on(1);
    for threads in [2, 3, 64] {
        assert_eq!(on(threads), alone, "{threads} threads");
    }
}

#[test]
fn a_constant_feature_has_no_weight() {
    for alpha in [0.0, 1.0] {
        for value in [0.0, 0.1, -3.0e7] {
            let mut rides = drawn(500, 0.0);
            rides.features.iter_mut().for_each(|row| row[1] = value);
            let fit = fit(&rides, alpha).unwrap();
            assert_eq!(
                (fit.per_unit[1], fit.parameters[1], fit.scaler.std_dev[1], fit.free[1]),
                (0.0, 0.0, 0.0, false)
            );
            assert!(fit.per_unit.iter().all(|weight| weight.is_finite()));
        }
    }
}

#[test]
fn collinear_features_share_their_weight_under_a_penalty_and_have_no_optimum_without() {
    let mut rides = drawn(500, 0.0);
    rides.features.iter_mut().for_each(|row| row[4] = 2.0 * row[3] + 5.0);
    let shared = fit(&rides, 1.0).unwrap();
    assert_close(&[shared.parameters[4]], &[shared.parameters[3]], 1e-6);
    assert!(matches!(fit(&rides, 0.0), Err(FitError::NotConverged { .. })));
}

#[test]
fn separable_classes_have_an_optimum_only_under_a_penalty() {
    let mut complete = drawn(500, 0.0);
    complete.service = complete.features.iter().map(|row| row[0] > 30.0).collect();
    let mut but_for_ties = complete.clone();
    for (index, (row, service)) in but_for_ties.features.iter_mut().zip(&mut but_for_ties.service).enumerate() {
        if index % 5 == 0 {
            (row[0], *service) = (30.0, index % 2 == 0);
        }
        row[1..].fill(0.0);
    }
    for rides in [&complete, &but_for_ties] {
        assert!(matches!(fit(rides, 0.0), Err(FitError::NotConverged { .. })));
        for alpha in [1e-6, 1.0] {
            assert!(fit(rides, alpha).unwrap().per_unit[0] > 0.0);
        }
    }
}

#[test]
fn one_class_has_no_fit() {
    for service in [false, true] {
        let mut rides = drawn(300, 0.0);
        rides.service.fill(service);
        let services = if service { 300 } else { 0 };
        assert_eq!(fit(&rides, 1.0), Err(FitError::OneClassOnly { rides: 300, services }));
    }
    assert_eq!(fit(&Rides::default(), 1.0), Err(FitError::OneClassOnly { rides: 0, services: 0 }));
}

#[test]
fn overflowing_values_name_their_feature() {
    let mut rides = drawn(300, 0.0);
    rides.features[7][2] = f64::MAX;
    assert_eq!(fit(&rides, 1.0), Err(FitError::OutOfRange("magicpoints")));
}

/// Computes the norm of the gradient by its definition, in standardised units.
fn gradient_norm(rides: &Rides, fit: &Fit, alpha: f64) -> f64 {
    let n = rides.len() as f64;
    let mut gradient = [0.0; PARAMETERS];
    for (row, service) in rides.features.iter().zip(&rides.service) {
        let residual = 1.0 / (1.0 + (-fit.log_odds(row)).exp()) - f64::from(*service);
        for j in (0..FEATURE_COUNT).filter(|j| fit.free[*j]) {
            gradient[j] += residual * (row[j] - fit.scaler.mean[j]) / fit.scaler.std_dev[j] / n;
        }
        gradient[FEATURE_COUNT] += residual / n;
    }
    for (slot, weight) in gradient.iter_mut().zip(fit.parameters).take(FEATURE_COUNT) {
        *slot += alpha / n * weight;
    }
    largest(&gradient)
}

proptest! {
    #[test]
    fn with_a_penalty_every_mixed_sample_has_its_optimum(
        rows in proptest::collection::vec((proptest::array::uniform6(-3i8..=3), any::<bool>()), 2..60),
        alpha in prop_oneof![Just(1.0), 1e-4f64..100.0], offset in -1_000.0f64..1_000.0,
    ) {
        let mut rides = Rides::default();
        for (row, service) in rows {
            rides.push(padded(&row.map(|value| f64::from(value) * 7.5 + offset)), service, 0, NO_BREED);
        }
        let services = rides.services();
        match fit(&rides, alpha) {
            Ok(fit) => prop_assert!(gradient_norm(&rides, &fit, alpha) < 1e-8),
            Err(error) => {
                prop_assert_eq!(&error, &FitError::OneClassOnly { rides: rides.len(), services });
                prop_assert!(services == 0 || services == rides.len());
            }
        }
    }
}
