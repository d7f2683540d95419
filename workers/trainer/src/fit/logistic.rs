//! L2 logistic regression: `linfa-logistic` finds a start, Newton's method the optimum over all rides.
//!
//! The loss is the *sum* of the rides' losses plus `alpha/2 · ‖w‖²`, over features of mean 0 and standard deviation 1; the intercept
//! has no penalty. linfa's L-BFGS stops by a tolerance and does not say whether it converged. So its solution, on an evenly strided
//! sample of many rides, is only the start of Newton's method, which ends when the gradient of the mean loss is below
//! [`GRADIENT_MAX`](super::newton::GRADIENT_MAX). The result is the optimum to within rounding and does not depend on the sample.
//!
//! With a [`PriorMean`] the penalty shrinks all parameters, intercept included, towards those of another model: partial pooling.

use super::{
    cancel::Cancel,
    error::FitError,
    matrix::{Features, Matrix, PARAMETERS, Vector, inverse},
    newton::{Optimum, Problem, newton},
    scaler::Scaler,
};
use crate::data::rows::Rides;
use common::features::FEATURE_COUNT;
use linfa::{Dataset, traits::Fit as _};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

/// Maximum number of rides that linfa fits.
const SAMPLE_MAX: usize = 50_000;
/// linfa's tolerance per ride; linfa compares it with the summed gradient.
const SAMPLE_TOLERANCE: f64 = 1e-7;

/// How to fit a model.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    /// L2 penalty, not negative.
    pub alpha: f64,
    /// Features with a weight; the weight of every other feature is 0.
    pub used: [bool; FEATURE_COUNT],
    /// Prior mean that the penalty shrinks towards, intercept included; `None`: towards 0, with an unpenalised intercept.
    pub prior_mean: Option<&'a PriorMean>,
    /// Standardised parameters of a solution nearby, to start from instead of linfa's.
    pub start: Option<Vector>,
    /// Ends the fit early.
    pub cancel: &'a Cancel,
}

/// A model as the prior mean of others.
#[derive(Debug, Clone, PartialEq)]
pub struct PriorMean {
    /// Standardises the features of both models.
    pub scaler: Scaler,
    /// In standardised units.
    pub parameters: Vector,
}

/// A fitted model, oriented to P(service).
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Log-odds at all features 0, original units.
    pub intercept: f64,
    /// Log-odds per original unit, in the order of [`FEATURES`](common::features::FEATURES); 0 for a feature that is constant over
    /// the rides or not used.
    pub per_unit: Features,
    /// Weights per standard deviation, then the log-odds at the mean of all features.
    pub parameters: Vector,
    /// Standardises the features for `parameters`.
    pub scaler: Scaler,
    /// Features with a weight.
    pub free: [bool; FEATURE_COUNT],
    /// Natural logarithm, summed over the rides, without the penalty.
    pub log_likelihood: f64,
    /// Largest absolute component of the gradient of the mean penalised loss, standardised units.
    pub gradient_norm: f64,
    /// Covariance of [`Self::per_unit`] and [`Self::intercept`]: inverse of the observed information of the penalised likelihood.
    /// `None` if that is singular.
    pub covariance: Option<Matrix>,
}

impl Fit {
    /// Log-odds of service of a ride.
    pub fn log_odds(&self, features: &Features) -> f64 {
        self.intercept + self.per_unit.iter().zip(features).map(|(c, x)| c * x).sum::<f64>()
    }

    /// Returns this model as a prior mean.
    pub fn prior_mean(&self) -> PriorMean {
        PriorMean { scaler: self.scaler.clone(), parameters: self.parameters }
    }

    fn new(problem: &Problem<'_>, optimum: Optimum) -> Self {
        let Optimum { parameters, gradient_norm, loss, mut hessian } = optimum;
        let n = problem.rides.len() as f64;
        for row in &mut hessian {
            row.iter_mut().for_each(|value| *value *= n);
        }
        let scaler = problem.scaler.clone();
        let scale = scaler.scale();
        let per_unit: Features = std::array::from_fn(|j| if problem.free[j] { parameters[j] * scale[j] } else { 0.0 });
        let shift: f64 = per_unit.iter().zip(scaler.mean).map(|(weight, mean)| weight * mean).sum();
        Self {
            intercept: parameters[FEATURE_COUNT] - shift,
            per_unit,
            parameters,
            free: problem.free,
            log_likelihood: -loss * n,
            gradient_norm,
            covariance: inverse(&hessian).map(|covariance| in_units(&covariance, &scaler)),
            scaler,
        }
    }
}

/// Converts a covariance of standardised parameters to original units.
fn in_units(covariance: &Matrix, scaler: &Scaler) -> Matrix {
    let scale = scaler.scale();
    let mut to_units = [[0.0; PARAMETERS]; PARAMETERS];
    for j in 0..FEATURE_COUNT {
        to_units[j][j] = scale[j];
        to_units[FEATURE_COUNT][j] = -scale[j] * scaler.mean[j];
    }
    to_units[FEATURE_COUNT][FEATURE_COUNT] = 1.0;
    let half: Matrix = std::array::from_fn(|i| {
        std::array::from_fn(|k| (0..PARAMETERS).map(|j| to_units[i][j] * covariance[j][k]).sum())
    });
    std::array::from_fn(|i| std::array::from_fn(|k| (0..PARAMETERS).map(|j| half[i][j] * to_units[k][j]).sum()))
}

/// Fits a model.
///
/// # Errors
/// See [`FitError`]. With both classes or a prior mean, an `alpha` above 0 makes the solution unique.
pub fn fit(rides: &Rides, recipe: &Recipe<'_>) -> Result<Fit, FitError> {
    let services = rides.services();
    if recipe.prior_mean.is_none() && (services == 0 || services == rides.len()) {
        return Err(FitError::OneClassOnly { rides: rides.len(), services });
    }
    let own_scaler;
    let scaler = match recipe.prior_mean {
        Some(prior_mean) => &prior_mean.scaler,
        None => {
            own_scaler = Scaler::of(rides)?;
            &own_scaler
        }
    };
    fit_scaled(rides, scaler, recipe)
}

/// Fits a model with this scaler.
pub(crate) fn fit_scaled(rides: &Rides, scaler: &Scaler, recipe: &Recipe<'_>) -> Result<Fit, FitError> {
    let Recipe { alpha, used, prior_mean, start, cancel } = recipe;
    let free = std::array::from_fn(|j| used[j] && !scaler.is_constant(j));
    let mut penalty = [*alpha; PARAMETERS];
    if prior_mean.is_none() {
        penalty[FEATURE_COUNT] = 0.0;
    }
    let prior_mean = prior_mean.map(|prior_mean| prior_mean.parameters);
    let problem = Problem { rides, scaler, free, penalty, prior_mean: prior_mean.unwrap_or([0.0; PARAMETERS]), cancel };
    let start = start.or(prior_mean);
    let start = start.or_else(|| linfa_fit(rides, scaler, *alpha)).unwrap_or_else(|| {
        let services = rides.services();
        let mut start = [0.0; PARAMETERS];
        start[FEATURE_COUNT] = (services as f64 / (rides.len() - services) as f64).ln();
        start
    });
    Ok(Fit::new(&problem, newton(&problem, start)?))
}

/// Returns linfa's solution on at most [`SAMPLE_MAX`] rides, in standardised units, oriented to P(service). `None` if linfa fails,
/// for example because the sample has one class only.
fn linfa_fit(rides: &Rides, scaler: &Scaler, alpha: f64) -> Option<Vector> {
    let stride = rides.len().div_ceil(SAMPLE_MAX).max(1);
    let scale = scaler.scale();
    let sample: Vec<f64> = rides
        .features
        .iter()
        .step_by(stride)
        .flat_map(|row| std::array::from_fn::<_, FEATURE_COUNT, _>(|j| (row[j] - scaler.mean[j]) * scale[j]))
        .collect();
    let labels: Array1<bool> = rides.service.iter().step_by(stride).copied().collect();
    let n = labels.len();
    let dataset = Dataset::new(Array2::from_shape_vec((n, FEATURE_COUNT), sample).ok()?, labels);
    let fitted = LogisticRegression::default()
        .alpha(alpha * n as f64 / rides.len() as f64)
        .with_intercept(true)
        .gradient_tolerance(SAMPLE_TOLERANCE * n as f64)
        .fit(&dataset)
        .ok()?;
    // linfa takes the class with more rides as positive.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let mut parameters = [sign * fitted.intercept(); PARAMETERS];
    for (parameter, weight) in parameters.iter_mut().zip(fitted.params()) {
        *parameter = sign * weight;
    }
    parameters.iter().all(|parameter| parameter.is_finite()).then_some(parameters)
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
