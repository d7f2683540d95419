//! L2 logistic regression: `linfa-logistic` finds the solution, Newton's method certifies it over all rides.
//!
//! The loss is the *sum* of the rides' losses plus `alpha/2 · ‖w‖²`, over features brought to mean 0 and standard
//! deviation 1; the intercept is free. linfa's L-BFGS stops by a tolerance and does not say whether it got there, so its
//! answer (on an evenly strided sample where there are many rides) is only where Newton's method starts; that one ends when
//! the gradient of the mean loss is below [`GRADIENT_MAX`]. The result is therefore the optimum to within rounding, and
//! does not depend on the sample.
//!
//! Sums run over blocks of fixed size, added up in the order of the rides: the same bits whatever the number of threads.

use crate::{metrics::softplus, rows::Rides};
use common::contract::{
    features::{FEATURE_COUNT, FEATURES},
    model::Coefficient,
};
use linfa::{Dataset, traits::Fit as _};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

/// Largest absolute component of the gradient of the mean penalised loss at a solution, standardised units.
pub const GRADIENT_MAX: f64 = 1e-9;

/// A solution is only one if Newton's next step would move no parameter by more than this, relative to the largest. When
/// classes can be separated and nothing is penalised, the gradient vanishes on the way to infinity, the steps do not.
const STEP_MAX: f64 = 1e-6;
const STEPS_MAX: usize = 100;
const HALVINGS_MAX: usize = 40;
/// A pivot this small, relative to its diagonal element, is rounding: the matrix is singular.
const PIVOT_MIN: f64 = 1e-12;
/// A feature whose values differ by less than this, relative to the largest, is constant.
const SPREAD_MIN: f64 = 1e-12;
/// Rides linfa looks at, at most.
const SAMPLE_MAX: usize = 50_000;
/// linfa's tolerance, per ride: it is on the summed gradient.
const SAMPLE_TOLERANCE: f64 = 1e-7;
const BLOCK: usize = 16_384;
/// The weights in the order of the features, then the intercept.
const PARAMETERS: usize = FEATURE_COUNT + 1;

type Features = [f64; FEATURE_COUNT];
type Vector = [f64; PARAMETERS];
type Matrix = [Vector; PARAMETERS];

/// A fitted model, oriented to P(service).
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Log-odds at all features 0, original units.
    pub intercept: f64,
    /// Log-odds at the mean of all features.
    pub intercept_standardised: f64,
    /// In the order of [`FEATURES`]. A feature that is constant over the rides has standard deviation 0 and weight 0: it
    /// can tell nothing.
    pub coefficients: Vec<Coefficient>,
    /// Largest absolute component of the gradient of the mean penalised loss, standardised units.
    pub gradient_norm: f64,
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
}

/// Fits a model. `alpha` is not negative; `threads` changes the time it takes, not the result.
///
/// # Errors
/// See [`FitError`]. With `alpha` above 0 and both classes there is always a unique solution.
pub fn fit(rides: &Rides, alpha: f64, threads: usize) -> Result<Fit, FitError> {
    let services = rides.services();
    if services == 0 || services == rides.len() {
        return Err(FitError::OneClassOnly { rides: rides.len(), services });
    }
    let scaler = Scaler::of(rides, threads)?;
    let start = linfa_fit(rides, &scaler, alpha).unwrap_or_else(|| {
        let mut start = [0.0; PARAMETERS];
        start[FEATURE_COUNT] = (services as f64 / (rides.len() - services) as f64).ln();
        start
    });
    let problem = Problem { rides, scaler: &scaler, alpha, threads };
    let (parameters, gradient_norm) = newton(&problem, start)?;
    Ok(scaler.unstandardise(&parameters, gradient_norm))
}

/// What brings the features to mean 0 and standard deviation 1.
#[derive(Debug, Clone, PartialEq)]
struct Scaler {
    mean: Features,
    /// Denominator n; 0 for a constant feature.
    std_dev: Features,
    min: Features,
    max: Features,
}

impl Scaler {
    fn of(rides: &Rides, threads: usize) -> Result<Self, FitError> {
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

    fn is_constant(&self, feature: usize) -> bool {
        self.std_dev[feature] == 0.0
    }

    /// What to multiply with instead of dividing by the standard deviation: 0 for a constant feature.
    fn scale(&self) -> Features {
        self.std_dev.map(|std_dev| if std_dev == 0.0 { 0.0 } else { 1.0 / std_dev })
    }

    fn unstandardise(&self, parameters: &Vector, gradient_norm: f64) -> Fit {
        let mut intercept = parameters[FEATURE_COUNT];
        let mut coefficients = Vec::with_capacity(FEATURE_COUNT);
        for (j, feature) in FEATURES.iter().enumerate() {
            let standardised = if self.is_constant(j) { 0.0 } else { parameters[j] };
            let per_unit = if self.is_constant(j) { 0.0 } else { standardised / self.std_dev[j] };
            intercept -= per_unit * self.mean[j];
            coefficients.push(Coefficient {
                feature: feature.name.to_owned(),
                unit: feature.unit.to_owned(),
                per_unit,
                standardised,
                mean: self.mean[j],
                std_dev: self.std_dev[j],
                min: self.min[j],
                max: self.max[j],
            });
        }
        Fit { intercept, intercept_standardised: parameters[FEATURE_COUNT], coefficients, gradient_norm }
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

struct Problem<'a> {
    rides: &'a Rides,
    scaler: &'a Scaler,
    alpha: f64,
    threads: usize,
}

/// Mean penalised loss with its first and second derivatives. Of the matrix only the lower triangle is filled.
#[derive(Debug, Clone)]
struct Derivatives {
    loss: f64,
    gradient: Vector,
    hessian: Matrix,
}

impl Derivatives {
    const ZERO: Self = Self { loss: 0.0, gradient: [0.0; PARAMETERS], hessian: [[0.0; PARAMETERS]; PARAMETERS] };

    fn gradient_norm(&self) -> f64 {
        largest(&self.gradient)
    }
}

impl Problem<'_> {
    fn derivatives(&self, parameters: &Vector) -> Derivatives {
        let (mean, scale) = (self.scaler.mean, self.scaler.scale());
        let blocks = over_blocks(self.rides, self.threads, |features, service| {
            let mut sums = Derivatives::ZERO;
            for (row, service) in features.iter().zip(service) {
                let mut x = [1.0; PARAMETERS];
                let mut log_odds = parameters[FEATURE_COUNT];
                for j in 0..FEATURE_COUNT {
                    x[j] = (row[j] - mean[j]) * scale[j];
                    log_odds += parameters[j] * x[j];
                }
                // Each of p and 1 - p from the small exponential, so that neither loses its digits near 0.
                let small = (-log_odds.abs()).exp();
                let (major, minor) = (1.0 / (1.0 + small), small / (1.0 + small));
                let (p, not_p) = if log_odds >= 0.0 { (major, minor) } else { (minor, major) };
                sums.loss += softplus(if *service { -log_odds } else { log_odds });
                let residual = if *service { -not_p } else { p };
                let curvature = p * not_p;
                for j in 0..PARAMETERS {
                    sums.gradient[j] += residual * x[j];
                    let weighted = curvature * x[j];
                    for (sum, other) in sums.hessian[j][..=j].iter_mut().zip(&x) {
                        *sum += weighted * other;
                    }
                }
            }
            sums
        });
        let n = self.rides.len() as f64;
        let mut mean = Derivatives::ZERO;
        for block in blocks {
            mean.loss += block.loss / n;
            for j in 0..PARAMETERS {
                mean.gradient[j] += block.gradient[j] / n;
                for k in 0..=j {
                    mean.hessian[j][k] += block.hessian[j][k] / n;
                }
            }
        }
        let ridge = self.alpha / n;
        for (j, weight) in parameters.iter().enumerate().take(FEATURE_COUNT) {
            mean.loss += 0.5 * ridge * weight.powi(2);
            mean.gradient[j] += ridge * weight;
            mean.hessian[j][j] += ridge;
            if self.scaler.is_constant(j) {
                // Its column is all zeros; without a penalty nothing else would hold its weight at 0.
                mean.hessian[j][j] = 1.0;
            }
        }
        mean
    }
}

/// Newton's method with halved steps where a whole one would not descend. The solution and its gradient's norm.
fn newton(problem: &Problem<'_>, start: Vector) -> Result<(Vector, f64), FitError> {
    let mut at = start;
    for j in (0..FEATURE_COUNT).filter(|j| problem.scaler.is_constant(*j)) {
        at[j] = 0.0;
    }
    let mut here = problem.derivatives(&at);
    let mut steps = 0;
    let not_converged = |steps, here: &Derivatives| FitError::NotConverged {
        steps,
        gradient_norm: here.gradient_norm(),
        alpha: problem.alpha,
    };
    loop {
        let Some(step) = solve(&here.hessian, &here.gradient) else {
            return Err(not_converged(steps, &here));
        };
        if here.gradient_norm() < GRADIENT_MAX && largest(&step) <= STEP_MAX * (1.0 + largest(&at)) {
            return Ok((at, here.gradient_norm()));
        }
        if steps == STEPS_MAX {
            return Err(not_converged(steps, &here));
        }
        steps += 1;
        (at, here) = descend(problem, &at, &step, &here).ok_or_else(|| not_converged(steps, &here))?;
    }
}

fn descend(problem: &Problem<'_>, at: &Vector, step: &Vector, here: &Derivatives) -> Option<(Vector, Derivatives)> {
    let mut length = 1.0;
    for _ in 0..HALVINGS_MAX {
        let candidate: Vector = std::array::from_fn(|j| at[j] - length * step[j]);
        let there = problem.derivatives(&candidate);
        // Next to the solution losses differ by rounding only; there the gradient tells.
        if there.loss <= here.loss || there.gradient_norm() < here.gradient_norm() {
            return Some((candidate, there));
        }
        length /= 2.0;
    }
    None
}

/// Solves `matrix · x = right` by Cholesky's decomposition of the lower triangle; `None` when it is singular.
fn solve(matrix: &Matrix, right: &Vector) -> Option<Vector> {
    let mut lower = [[0.0; PARAMETERS]; PARAMETERS];
    for j in 0..PARAMETERS {
        for k in 0..=j {
            let rest = matrix[j][k] - (0..k).map(|i| lower[j][i] * lower[k][i]).sum::<f64>();
            lower[j][k] = if k < j {
                rest / lower[k][k]
            } else if rest > PIVOT_MIN * matrix[j][j] {
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    let mut x = *right;
    for j in 0..PARAMETERS {
        x[j] = (x[j] - (0..j).map(|k| lower[j][k] * x[k]).sum::<f64>()) / lower[j][j];
    }
    for j in (0..PARAMETERS).rev() {
        x[j] = (x[j] - (j + 1..PARAMETERS).map(|k| lower[k][j] * x[k]).sum::<f64>()) / lower[j][j];
    }
    x.iter().all(|value| value.is_finite()).then_some(x)
}

/// The largest absolute component; NaN when one is.
fn largest(vector: &Vector) -> f64 {
    let keep = |largest: f64, value: f64| largest.is_nan() || largest >= value.abs();
    vector.iter().fold(0.0, |largest, value| if keep(largest, *value) { largest } else { value.abs() })
}

/// What `work` makes of each block of rides, in the order of the rides; the blocks are dealt out to `threads`.
fn over_blocks<T: Send>(rides: &Rides, threads: usize, work: impl Fn(&[Features], &[bool]) -> T + Sync) -> Vec<T> {
    let blocks: Vec<_> = rides.features.chunks(BLOCK).zip(rides.service.chunks(BLOCK)).collect();
    let threads = threads.clamp(1, blocks.len().max(1));
    if threads == 1 {
        return blocks.into_iter().map(|(features, service)| work(features, service)).collect();
    }
    let share = blocks.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let (blocks, work) = (&blocks, &work);
        let running: Vec<_> = blocks
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().map(|(x, y)| work(x, y)).collect::<Vec<_>>()))
            .collect();
        let joined =
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    })
}

#[cfg(test)]
mod tests;
