//! L2 logistic regression: `linfa-logistic` finds the solution, Newton's method certifies it over all rides.
//!
//! The loss is the *sum* of the rides' losses plus `alpha/2 · ‖w‖²`, over features brought to mean 0 and standard
//! deviation 1; the intercept is free. linfa's L-BFGS stops by a tolerance and does not say whether it got there, so its
//! answer (on an evenly strided sample where there are many rides) is only where Newton's method starts; that one ends when
//! the gradient of the mean loss is below [`GRADIENT_MAX`]. The result is therefore the optimum to within rounding, and
//! does not depend on the sample.
//!
//! With a [`Centre`] the penalty draws all parameters towards another model's, intercept included: partial pooling.
//!
//! Sums run over blocks of fixed size, added up in the order of the rides: the same bits whatever the number of threads.

use crate::{
    newton::{Cancel, Features, Matrix, Optimum, PARAMETERS, Problem, Vector, inverse, newton, over_blocks},
    rows::Rides,
};
use common::features::{FEATURE_COUNT, FEATURES};
use linfa::{Dataset, traits::Fit as _};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

/// A feature whose values differ by less than this, relative to the largest, is constant.
const SPREAD_MIN: f64 = 1e-12;
/// Rides linfa looks at, at most.
const SAMPLE_MAX: usize = 50_000;
/// linfa's tolerance, per ride: it is on the summed gradient.
const SAMPLE_TOLERANCE: f64 = 1e-7;

/// What is fitted, and how.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    /// L2 penalty, not negative.
    pub alpha: f64,
    /// Features with a weight; the others' is 0.
    pub used: [bool; FEATURE_COUNT],
    /// What the penalty draws to, intercept included; without one to 0, with a free intercept.
    pub centre: Option<&'a Centre>,
    /// Standardised parameters to start from instead of linfa's: a solution nearby.
    pub start: Option<Vector>,
    /// Changes the time it takes, not the result.
    pub threads: usize,
    /// Ends it before its time.
    pub cancel: &'a Cancel,
}

/// The model that the penalty of another draws to.
#[derive(Debug, Clone, PartialEq)]
pub struct Centre {
    /// What standardises the features, of either model.
    pub scaler: Scaler,
    /// Standardised.
    pub parameters: Vector,
}

/// A fitted model, oriented to P(service).
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Log-odds at all features 0, original units.
    pub intercept: f64,
    /// Log-odds per original unit, in the order of [`FEATURES`]. A feature that is constant over the rides, and so can tell
    /// nothing, has 0, as has one that is not used.
    pub per_unit: Features,
    /// Weights per standard deviation, then log-odds at the mean of all features.
    pub parameters: Vector,
    /// What the standardised parameters refer to.
    pub scaler: Scaler,
    /// Features with a weight.
    pub free: [bool; FEATURE_COUNT],
    /// Sum over the rides, without the penalty, natural logarithm.
    pub log_likelihood: f64,
    /// Largest absolute component of the gradient of the mean penalised loss, standardised units.
    pub gradient_norm: f64,
    /// Of [`Self::per_unit`] and [`Self::intercept`]: the inverse of the observed information of the penalised likelihood. `None`
    /// when that is singular.
    pub covariance: Option<Matrix>,
}

impl Fit {
    /// Log-odds of service of a ride.
    pub fn log_odds(&self, features: &Features) -> f64 {
        self.intercept + self.per_unit.iter().zip(features).map(|(c, x)| c * x).sum::<f64>()
    }

    /// The same model as a centre for others.
    pub fn centre(&self) -> Centre {
        Centre { scaler: self.scaler.clone(), parameters: self.parameters }
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

/// The covariance of standardised parameters as one of those in original units.
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

/// Why no model can be fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    /// All rides have the same label, or there is none.
    #[error("{services} of {rides} rides to train on ended in a service request: expected some with and some without")]
    OneClassOnly {
        /// Rides to train on.
        rides: usize,
        /// … with a service request.
        services: usize,
    },
    /// Mean and spread of a feature are beyond what a number can hold.
    #[error("{0} has values too large to compute with")]
    OutOfRange(&'static str),
    /// There is no single best solution, or it was not found.
    #[error(
        "no optimum after {steps} steps (gradient {gradient_norm:e}): the features separate the classes, or one is a \
         combination of others; an alpha above 0 makes the solution unique (alpha = {alpha})"
    )]
    NotConverged {
        /// Newton steps taken.
        steps: usize,
        /// Where it stood then.
        gradient_norm: f64,
        /// The penalty it was tried with.
        alpha: f64,
    },
    /// It was ended before its time.
    #[error("cancelled")]
    Cancelled,
}

/// Fits a model.
///
/// # Errors
/// See [`FitError`]. With `alpha` above 0 and both classes, or a centre, there is always a unique solution.
pub fn fit(rides: &Rides, recipe: &Recipe<'_>) -> Result<Fit, FitError> {
    let services = rides.services();
    if recipe.centre.is_none() && (services == 0 || services == rides.len()) {
        return Err(FitError::OneClassOnly { rides: rides.len(), services });
    }
    let own;
    let scaler = match recipe.centre {
        Some(centre) => &centre.scaler,
        None => {
            own = Scaler::of(rides, recipe.threads)?;
            &own
        }
    };
    fit_scaled(rides, scaler, recipe)
}

/// The same with features brought to mean 0 and standard deviation 1 by a scaler that is known already.
pub(crate) fn fit_scaled(rides: &Rides, scaler: &Scaler, recipe: &Recipe<'_>) -> Result<Fit, FitError> {
    let Recipe { alpha, used, centre, start, threads, cancel } = recipe;
    let free = std::array::from_fn(|j| used[j] && !scaler.is_constant(j));
    let mut penalty = [*alpha; PARAMETERS];
    if centre.is_none() {
        penalty[FEATURE_COUNT] = 0.0;
    }
    let towards = centre.map_or([0.0; PARAMETERS], |centre| centre.parameters);
    let problem = Problem { rides, scaler, free, penalty, centre: towards, threads: *threads, cancel };
    let start = start.or_else(|| centre.map(|centre| centre.parameters));
    let start = start.or_else(|| linfa_fit(rides, scaler, *alpha)).unwrap_or_else(|| {
        let services = rides.services();
        let mut start = [0.0; PARAMETERS];
        start[FEATURE_COUNT] = (services as f64 / (rides.len() - services) as f64).ln();
        start
    });
    Ok(Fit::new(&problem, newton(&problem, start)?))
}

/// What brings the features to mean 0 and standard deviation 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaler {
    /// Mean.
    pub mean: Features,
    /// Standard deviation, denominator n; 0 for a constant feature.
    pub std_dev: Features,
    /// Smallest value.
    pub min: Features,
    /// Largest value.
    pub max: Features,
}

impl Scaler {
    /// Of these rides.
    ///
    /// # Errors
    /// When a value is beyond what a number can hold.
    pub fn of(rides: &Rides, threads: usize) -> Result<Self, FitError> {
        let n = rides.len() as f64;
        let mut scaler = Self {
            mean: [0.0; FEATURE_COUNT],
            std_dev: [0.0; FEATURE_COUNT],
            min: [f64::INFINITY; FEATURE_COUNT],
            max: [f64::NEG_INFINITY; FEATURE_COUNT],
        };
        let blocks = over_blocks(rides, threads, |features, _| {
            let mut sum = [0.0; FEATURE_COUNT];
            let (mut min, mut max) = ([f64::INFINITY; FEATURE_COUNT], [f64::NEG_INFINITY; FEATURE_COUNT]);
            for row in features {
                for j in 0..FEATURE_COUNT {
                    sum[j] += row[j];
                    min[j] = min[j].min(row[j]);
                    max[j] = max[j].max(row[j]);
                }
            }
            (sum, min, max)
        });
        for (sum, min, max) in blocks {
            for j in 0..FEATURE_COUNT {
                scaler.mean[j] += sum[j] / n;
                scaler.min[j] = scaler.min[j].min(min[j]);
                scaler.max[j] = scaler.max[j].max(max[j]);
            }
        }
        let mean = scaler.mean;
        let blocks = over_blocks(rides, threads, |features, _| {
            let mut squares = [0.0; FEATURE_COUNT];
            for row in features {
                for j in 0..FEATURE_COUNT {
                    squares[j] += (row[j] - mean[j]).powi(2);
                }
            }
            squares
        });
        let mut variance = [0.0; FEATURE_COUNT];
        for squares in blocks {
            for j in 0..FEATURE_COUNT {
                variance[j] += squares[j] / n;
            }
        }
        for j in 0..FEATURE_COUNT {
            let largest = scaler.max[j].abs().max(scaler.min[j].abs());
            if scaler.max[j] - scaler.min[j] > SPREAD_MIN * largest {
                scaler.std_dev[j] = variance[j].sqrt();
            }
            if !scaler.mean[j].is_finite() || !scaler.std_dev[j].is_finite() {
                return Err(FitError::OutOfRange(FEATURES[j].name));
            }
        }
        Ok(scaler)
    }

    /// Whether a feature has one value only.
    pub fn is_constant(&self, feature: usize) -> bool {
        self.std_dev[feature] == 0.0
    }

    /// What to multiply with instead of dividing by the standard deviation: 0 for a constant feature.
    pub(crate) fn scale(&self) -> Features {
        self.std_dev.map(|std_dev| if std_dev == 0.0 { 0.0 } else { 1.0 / std_dev })
    }
}

/// linfa's solution on at most [`SAMPLE_MAX`] rides, in standardised units, oriented to P(service). `None` when it has
/// none to offer, e.g. because the sample is of one class or its line search failed.
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
    // linfa calls the class with more rides positive.
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
