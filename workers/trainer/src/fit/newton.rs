//! Newton's method over all rides: finds the optimum of the penalised likelihood, its gradient and its curvature.

use super::{
    blocks::over_blocks,
    cancel::Cancel,
    error::FitError,
    loss::log_loss,
    matrix::{Features, Matrix, PARAMETERS, Vector, largest, solve},
    scaler::Scaler,
};
use crate::data::rows::Rides;
use common::features::FEATURE_COUNT;

/// Largest absolute component of the gradient of the mean penalised loss at a solution, standardised units.
pub const GRADIENT_MAX: f64 = 1e-9;

/// Maximum length of Newton's next step at a solution, relative to the largest parameter. If the features separate the classes and
/// there is no penalty, the gradient vanishes on the way to infinity but the steps do not.
const STEP_MAX: f64 = 1e-6;
const STEPS_MAX: usize = 100;
const HALVINGS_MAX: usize = 40;

/// The objective to minimise: the mean over the rides of their loss plus `Σ penalty/2 · (parameter − prior mean)²`.
pub(crate) struct Problem<'a> {
    pub(crate) rides: &'a Rides,
    pub(crate) scaler: &'a Scaler,
    /// Features with a weight; the weight of every other feature is 0.
    pub(crate) free: [bool; FEATURE_COUNT],
    pub(crate) penalty: Vector,
    pub(crate) prior_mean: Vector,
    pub(crate) cancel: &'a Cancel,
}

/// The minimum of a [`Problem`].
#[derive(Debug, Clone)]
pub(crate) struct Optimum {
    pub(crate) parameters: Vector,
    pub(crate) gradient_norm: f64,
    /// Mean loss without penalty.
    pub(crate) loss: f64,
    /// Second derivatives of the mean penalised loss; lower triangle.
    pub(crate) hessian: Matrix,
}

/// Mean penalised loss with its first and second derivatives. Of the matrix only the lower triangle is filled.
#[derive(Debug, Clone)]
pub(crate) struct Derivatives {
    loss: f64,
    /// The part of `loss` that the penalty contributes.
    penalty: f64,
    gradient: Vector,
    pub(crate) hessian: Matrix,
}

impl Derivatives {
    const ZERO: Self =
        Self { loss: 0.0, penalty: 0.0, gradient: [0.0; PARAMETERS], hessian: [[0.0; PARAMETERS]; PARAMETERS] };

    fn gradient_norm(&self) -> f64 {
        largest(&self.gradient)
    }
}

impl Problem<'_> {
    pub(crate) fn derivatives(&self, parameters: &Vector) -> Derivatives {
        let (mean, scale) = (self.scaler.mean, self.scale());
        let blocks = over_blocks(self.rides, |features, service| {
            let mut sums = Derivatives::ZERO;
            for (row, service) in features.iter().zip(service) {
                let mut x = [1.0; PARAMETERS];
                let mut log_odds = parameters[FEATURE_COUNT];
                for j in 0..FEATURE_COUNT {
                    x[j] = (row[j] - mean[j]) * scale[j];
                    log_odds += parameters[j] * x[j];
                }
                // Both p and 1 - p come from the small exponential, so that neither loses digits near 0.
                let small = (-log_odds.abs()).exp();
                let (major, minor) = (1.0 / (1.0 + small), small / (1.0 + small));
                let (p, not_p) = if log_odds >= 0.0 { (major, minor) } else { (minor, major) };
                sums.loss += log_loss(log_odds, *service);
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
        for (j, parameter) in parameters.iter().enumerate() {
            let (ridge, away) = (self.penalty[j] / n, parameter - self.prior_mean[j]);
            mean.penalty += 0.5 * ridge * away.powi(2);
            mean.gradient[j] += ridge * away;
            mean.hessian[j][j] += ridge;
        }
        mean.loss += mean.penalty;
        for j in (0..FEATURE_COUNT).filter(|j| !self.free[*j]) {
            // The column of such a feature is all zeros: without a penalty nothing else holds its weight at 0.
            mean.gradient[j] = 0.0;
            mean.hessian[j][j] = 1.0;
        }
        mean
    }

    /// Inverse of each standard deviation; 0 for a feature without a weight.
    fn scale(&self) -> Features {
        let scale = self.scaler.scale();
        std::array::from_fn(|j| if self.free[j] { scale[j] } else { 0.0 })
    }
}

/// Newton's method; halves a step that does not descend.
pub(crate) fn newton(problem: &Problem<'_>, start: Vector) -> Result<Optimum, FitError> {
    let mut at = start;
    for j in (0..FEATURE_COUNT).filter(|j| !problem.free[*j]) {
        at[j] = 0.0;
    }
    let mut here = problem.derivatives(&at);
    let mut steps = 0;
    let not_converged = |steps, here: &Derivatives| FitError::NotConverged {
        steps,
        gradient_norm: here.gradient_norm(),
        alpha: problem.penalty[0],
    };
    loop {
        if problem.cancel.is_cancelled() {
            return Err(FitError::Cancelled);
        }
        let Some(step) = solve(&here.hessian, &here.gradient) else {
            return Err(not_converged(steps, &here));
        };
        if here.gradient_norm() < GRADIENT_MAX && largest(&step) <= STEP_MAX * (1.0 + largest(&at)) {
            let Derivatives { loss, penalty, hessian, .. } = here;
            return Ok(Optimum { parameters: at, gradient_norm: here.gradient_norm(), loss: loss - penalty, hessian });
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
        if problem.cancel.is_cancelled() {
            break;
        }
        let candidate: Vector = std::array::from_fn(|j| at[j] - length * step[j]);
        let there = problem.derivatives(&candidate);
        // Next to the solution, losses differ by rounding only: compare gradients there.
        if there.loss <= here.loss || there.gradient_norm() < here.gradient_norm() {
            return Some((candidate, there));
        }
        length /= 2.0;
    }
    None
}
