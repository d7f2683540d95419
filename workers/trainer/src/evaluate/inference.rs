//! Standard errors, tests, evidence and warnings.

use super::collinear::{self, Combinations};
use crate::{
    data::rows::Rides,
    fit::{Cancel, Features, Fit, FitError, Matrix, PARAMETERS, Problem, Recipe, Scaler, fit_scaled, inverse},
};
use common::{
    features::{FEATURE_COUNT, FEATURES, FeatureSet},
    model::{Evidence, Inference, Interval, LikelihoodRatio, Warning, WarningCode},
};
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

/// 97.5th percentile of the standard normal distribution: half the width of a 95 % interval in standard errors.
const Z_95: f64 = 1.959_963_984_540_054;
/// Variance inflation factor above which the weights of features are uncertain.
const INFLATION_MAX: f64 = 10.0;
/// Minimum number of rides of each class per feature; with fewer, intervals and tests are rough.
const EVENTS_PER_FEATURE_MIN: usize = 10;
/// p-value below which a test is evidence that the features predict service requests.
pub const EVIDENCE_P_MAX: f64 = 0.001;

/// Returns standard error, test and odds ratio of each weight, in the order of the features; `None` for a feature without a weight.
pub fn inference(fit: &Fit) -> [Option<Inference>; FEATURE_COUNT] {
    std::array::from_fn(|j| {
        let standard_error = standard_error(fit, j).filter(|_| fit.free[j])?;
        let (weight, feature) = (fit.per_unit[j], FEATURES[j]);
        let z = weight / standard_error;
        let times = |weight: f64| (weight * feature.step).exp().clamp(f64::MIN_POSITIVE, f64::MAX);
        Some(Inference {
            standard_error,
            z,
            p_value: two_sided(z),
            odds_ratio: Interval {
                value: times(weight),
                lower: times(weight - Z_95 * standard_error),
                upper: times(weight + Z_95 * standard_error),
            },
            step: feature.step,
            step_name: feature.step_name.to_owned(),
        })
    })
}

/// Standard error, in original units, of a feature's weight or, at index [`FEATURE_COUNT`], of the intercept.
pub fn standard_error(fit: &Fit, parameter: usize) -> Option<f64> {
    let variance = fit.covariance.as_ref()?[parameter][parameter];
    Some(variance.sqrt()).filter(|error| error.is_finite() && *error > 0.0)
}

/// Maximum [`penalty_share`] of a model with standard errors; above, the penalty and not the rides determines a weight.
pub const PENALTY_SHARE_MAX: f64 = 0.5;

/// Returns the penalty relative to the information that the rides give about a weight, for the weight where this is largest.
pub fn penalty_share(fit: &Fit, alpha: f64) -> f64 {
    let Some(covariance) = &fit.covariance else { return if alpha > 0.0 { f64::INFINITY } else { 0.0 } };
    let share = |j: usize| {
        // In standardised units. The variance of a weight is at most the inverse of its information, penalty included.
        let information = 1.0 / (covariance[j][j] * fit.scaler.std_dev[j].powi(2));
        alpha / (information - alpha).max(f64::MIN_POSITIVE)
    };
    (0..FEATURE_COUNT).filter(|j| fit.free[*j]).map(share).fold(0.0, f64::max)
}

fn two_sided(z: f64) -> f64 {
    2.0 * Normal::standard().sf(z.abs())
}

/// Returns the probability of a chi-square statistic at least as large by chance.
fn chi_square_tail(statistic: f64, degrees_of_freedom: u32) -> f64 {
    ChiSquared::new(f64::from(degrees_of_freedom)).map_or(1.0, |chi_square| chi_square.sf(statistic.max(0.0)))
}

/// Unpenalised models for the tests: with all features used, and with the mileage features among them. A feature that is a linear
/// combination of others has no weight; this does not change the likelihood.
#[derive(Debug, Clone, Default)]
pub struct Nested {
    /// Log-likelihood and number of weights of the model with all features; absent if there is no finite optimum.
    full: Option<(f64, u32)>,
    /// … with mileage only.
    mileage: Option<(f64, u32)>,
    /// Log-likelihood of the model without features.
    none: f64,
}

impl Nested {
    /// Fits the models, starting from the penalised one.
    ///
    /// # Errors
    /// Fails only if cancelled.
    pub fn fit(rides: &Rides, features: FeatureSet, penalised: &Fit, cancel: &Cancel) -> Result<Self, FitError> {
        let correlations = correlations(rides, penalised, cancel);
        let unpenalised = |used: [bool; FEATURE_COUNT]| {
            let start = Some(penalised.parameters);
            let free = std::array::from_fn(|j| used[j] && penalised.free[j]);
            let Combinations { dependent, .. } = collinear::combinations(&correlations, free);
            let used = std::array::from_fn(|j| free[j] && !dependent[j]);
            let recipe = Recipe { alpha: 0.0, used, prior_mean: None, start, cancel };
            match fit_scaled(rides, &penalised.scaler, &recipe) {
                Ok(fit) => {
                    let weights = fit.free.iter().filter(|free| **free).count();
                    Ok(Some((fit.log_likelihood, u32::try_from(weights).unwrap_or(0))))
                }
                Err(FitError::Cancelled) => Err(FitError::Cancelled),
                Err(_) => Ok(None),
            }
        };
        let (services, n) = (rides.services() as f64, rides.len() as f64);
        let share = services / n;
        Ok(Self {
            full: unpenalised(features.used())?,
            mileage: if features == FeatureSet::All { unpenalised(FeatureSet::Mileage.used())? } else { None },
            none: services * share.ln() + (n - services) * (1.0 - share).ln(),
        })
    }

    /// Tests all features against none.
    pub fn any(&self) -> Option<LikelihoodRatio> {
        likelihood_ratio(self.full?, (self.none, 0))
    }

    /// Tests mileage and weather against mileage.
    pub fn weather(&self) -> Option<LikelihoodRatio> {
        likelihood_ratio(self.full?, self.mileage?)
    }

    /// Returns whether there is no finite optimum without a penalty, even after leaving out combinations of features.
    pub fn diverges(&self) -> bool {
        self.full.is_none()
    }
}

fn likelihood_ratio(full: (f64, u32), smaller: (f64, u32)) -> Option<LikelihoodRatio> {
    let degrees_of_freedom = full.1.checked_sub(smaller.1).filter(|freedom| *freedom > 0)?;
    let statistic = (2.0 * (full.0 - smaller.0)).max(0.0);
    Some(LikelihoodRatio { statistic, degrees_of_freedom, p_value: chi_square_tail(statistic, degrees_of_freedom) })
}

/// Returns the correlations of the features with a weight; lower triangle.
fn correlations(rides: &Rides, fit: &Fit, cancel: &Cancel) -> Matrix {
    let zero = [0.0; PARAMETERS];
    let problem = Problem { rides, scaler: &fit.scaler, free: fit.free, penalty: zero, prior_mean: zero, cancel };
    // At parameters 0 the curvature of every ride is 1/4: the second derivatives are a quarter of the correlations.
    let mut correlations = problem.derivatives(&zero).hessian;
    for (j, row) in correlations.iter_mut().enumerate() {
        if j == FEATURE_COUNT || fit.free[j] {
            row.iter_mut().for_each(|value| *value *= 4.0);
        }
    }
    correlations
}

/// Returns the variance inflation factor of each feature that is not `dependent`, among these features. `None` if the matrix is
/// singular to within rounding.
fn inflation(correlations: &Matrix, dependent: [bool; FEATURE_COUNT]) -> Option<Features> {
    let mut independent = *correlations;
    for j in (0..FEATURE_COUNT).filter(|j| dependent[*j]) {
        independent[j] = [0.0; PARAMETERS];
        independent.iter_mut().for_each(|row| row[j] = 0.0);
        independent[j][j] = 1.0;
    }
    let inverse = inverse(&independent)?;
    Some(std::array::from_fn(|j| inverse[j][j]))
}

/// Returns the warnings about a fit.
pub fn warnings(
    rides: &Rides,
    fit: &Fit,
    used: [bool; FEATURE_COUNT],
    nested: &Nested,
    cancel: &Cancel,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code, why: String| warnings.push(Warning { code, why });
    let names = |chosen: &dyn Fn(usize) -> bool| {
        let chosen: Vec<&str> = (0..FEATURE_COUNT).filter(|j| chosen(*j)).map(|j| FEATURES[j].name).collect();
        chosen.join(", ")
    };
    if (0..FEATURE_COUNT).any(|j| used[j] && fit.scaler.is_constant(j)) {
        let which = names(&|j| used[j] && fit.scaler.is_constant(j));
        warn(WarningCode::ConstantFeature, format!("one value only, so no weight: {which}"));
    }
    let correlations = correlations(rides, fit, cancel);
    let Combinations { groups, dependent } = collinear::combinations(&correlations, fit.free);
    for group in &groups {
        let why = format!(
            "each of these is a combination of the others: {}; only the penalty determines their weights",
            names(&|j| group.contains(&j))
        );
        warn(WarningCode::Collinearity, why);
    }
    let factors = inflation(&correlations, dependent).unwrap_or([1.0; FEATURE_COUNT]);
    let largest = factors.iter().copied().fold(0.0, f64::max);
    if largest > INFLATION_MAX {
        let which = names(&|j| factors[j] > INFLATION_MAX);
        let why = format!(
            "the effects of {which} are hard to separate (variance inflation up to {largest:.1}; above {INFLATION_MAX} is high)"
        );
        warn(WarningCode::Collinearity, why);
    }
    if nested.diverges() {
        let why = "the features separate rides with a service request from those without, or nearly so: without a penalty the \
                   weights would grow without limit; standard errors and p-values mean little here";
        warn(WarningCode::Separation, why.to_owned());
    }
    let features = fit.free.iter().filter(|free| **free).count();
    let fewest = rides.services().min(rides.len() - rides.services());
    if fewest < EVENTS_PER_FEATURE_MIN * features {
        let why = format!(
            "{fewest} rides of the rarer class for {features} features (fewer than {EVENTS_PER_FEATURE_MIN} each): intervals \
             and tests are rough"
        );
        warn(WarningCode::FewEvents, why);
    }
    warnings
}

/// Returns why there is no evidence that the features of a model predict service requests; `None` if there is evidence.
pub fn without_evidence(evidence: &Evidence) -> Option<String> {
    if let Some(test) = &evidence.any
        && test.p_value >= EVIDENCE_P_MAX
    {
        return Some(format!(
            "no evidence that the features predict service requests: the likelihood-ratio test has p = {:.3} (evidence: below {EVIDENCE_P_MAX})",
            test.p_value
        ));
    }
    let gain = evidence.held_out.as_ref()?.over_base_rate.log_loss;
    (gain.value <= 0.0).then(|| {
        format!(
            "on held-out rides it is no better than always predicting the share of service requests (log-loss worse by {:.5})",
            -gain.value
        )
    })
}

/// Returns the scaler of these rides, or `fallback` if it is not finite.
pub(crate) fn scaler_of(rides: &Rides, fallback: &Scaler) -> Scaler {
    Scaler::of(rides).unwrap_or_else(|_| fallback.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from R: `pchisq(…, lower.tail = FALSE)` and `2 * pnorm(-|z|)`.
    #[test]
    fn tail_probabilities_agree_with_r() {
        for (statistic, freedom, expected) in [
            (3.841_458_820_694_124, 1, 0.05),
            (7.814_727_903_251_179, 3, 0.05),
            (15.404_19, 3, 0.001_501_879),
            (0.0, 3, 1.0),
            (16.811_893_829_770_93, 6, 0.01),
        ] {
            let tail = chi_square_tail(statistic, freedom);
            assert!((tail - expected).abs() < 1e-7, "{statistic} {freedom}: {tail}");
        }
        for (z, expected) in [(1.959_963_984_540_054, 0.05), (-2.575_829_303_548_9, 0.01), (0.0, 1.0)] {
            assert!((two_sided(z) - expected).abs() < 1e-9);
        }
        assert!(two_sided(30.0) > 0.0 && two_sided(30.0) < 1e-190);
    }
}
