//! Newton's method over all rides: the exact optimum of the penalised likelihood, with its certificate and its curvature.

use crate::{
    metrics::softplus,
    rows::Rides,
    train::{FitError, Scaler},
};
use common::features::FEATURE_COUNT;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Largest absolute component of the gradient of the mean penalised loss at a solution, standardised units.
pub const GRADIENT_MAX: f64 = 1e-9;

/// A solution is only one if Newton's next step would move no parameter by more than this, relative to the largest. When
/// classes can be separated and nothing is penalised, the gradient vanishes on the way to infinity, the steps do not.
const STEP_MAX: f64 = 1e-6;
const STEPS_MAX: usize = 100;
const HALVINGS_MAX: usize = 40;
/// A pivot this small, relative to its diagonal element, is rounding: the matrix is singular.
const PIVOT_MIN: f64 = 1e-12;
pub(crate) const BLOCK: usize = 16_384;
/// The weights in the order of the features, then the intercept.
pub const PARAMETERS: usize = FEATURE_COUNT + 1;

/// One value per feature.
pub type Features = [f64; FEATURE_COUNT];
/// One value per parameter.
pub type Vector = [f64; PARAMETERS];
/// One value per pair of parameters.
pub type Matrix = [Vector; PARAMETERS];

/// Ends a computation before its time, from another thread.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// From now on every computation that knows this ends as soon as it looks: at its next pass over the rides.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is so.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is minimised: the mean loss of the rides plus `Σ penalty/2 · (parameter − centre)²` over their number.
pub(crate) struct Problem<'a> {
    pub(crate) rides: &'a Rides,
    pub(crate) scaler: &'a Scaler,
    /// Which features have a weight; the others' is 0.
    pub(crate) free: [bool; FEATURE_COUNT],
    pub(crate) penalty: Vector,
    pub(crate) centre: Vector,
    pub(crate) threads: usize,
    pub(crate) cancel: &'a Cancel,
}

/// Where Newton's method ended.
#[derive(Debug, Clone)]
pub(crate) struct Optimum {
    pub(crate) parameters: Vector,
    pub(crate) gradient_norm: f64,
    /// Mean loss without penalty.
    pub(crate) loss: f64,
    /// Second derivatives of the mean penalised loss, the lower triangle.
    pub(crate) hessian: Matrix,
}

/// Mean penalised loss with its first and second derivatives. Of the matrix only the lower triangle is filled.
#[derive(Debug, Clone)]
pub(crate) struct Derivatives {
    loss: f64,
    /// What of the loss is penalty.
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
        for (j, parameter) in parameters.iter().enumerate() {
            let (ridge, away) = (self.penalty[j] / n, parameter - self.centre[j]);
            mean.penalty += 0.5 * ridge * away.powi(2);
            mean.gradient[j] += ridge * away;
            mean.hessian[j][j] += ridge;
        }
        mean.loss += mean.penalty;
        for j in (0..FEATURE_COUNT).filter(|j| !self.free[*j]) {
            // Its column is all zeros; without a penalty nothing else would hold its weight at 0.
            mean.gradient[j] = 0.0;
            mean.hessian[j][j] = 1.0;
        }
        mean
    }

    /// What to multiply with instead of dividing by the standard deviation: 0 for a feature without a weight.
    fn scale(&self) -> Features {
        let scale = self.scaler.scale();
        std::array::from_fn(|j| if self.free[j] { scale[j] } else { 0.0 })
    }
}

/// Newton's method with halved steps where a whole one would not descend.
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
        // Next to the solution losses differ by rounding only; there the gradient tells.
        if there.loss <= here.loss || there.gradient_norm() < here.gradient_norm() {
            return Some((candidate, there));
        }
        length /= 2.0;
    }
    None
}

/// Solves `matrix · x = right` by Cholesky's decomposition of the lower triangle; `None` when it is singular.
pub(crate) fn solve(matrix: &Matrix, right: &Vector) -> Option<Vector> {
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

/// The inverse of a symmetric, positive definite matrix given by its lower triangle; `None` when it is singular.
pub(crate) fn inverse(matrix: &Matrix) -> Option<Matrix> {
    let mut inverse = [[0.0; PARAMETERS]; PARAMETERS];
    for j in 0..PARAMETERS {
        let mut unit = [0.0; PARAMETERS];
        unit[j] = 1.0;
        inverse[j] = solve(matrix, &unit)?;
    }
    Some(inverse)
}

/// The largest absolute component; NaN when one is.
pub(crate) fn largest(vector: &Vector) -> f64 {
    let keep = |largest: f64, value: f64| largest.is_nan() || largest >= value.abs();
    vector.iter().fold(0.0, |largest, value| if keep(largest, *value) { largest } else { value.abs() })
}

/// What `work` makes of each block of rides, in the order of the rides; the blocks are dealt out to `threads`.
pub(crate) fn over_blocks<T: Send>(
    rides: &Rides,
    threads: usize,
    work: impl Fn(&[Features], &[bool]) -> T + Sync,
) -> Vec<T> {
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
