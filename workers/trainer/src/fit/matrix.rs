//! Linear algebra with one row per parameter.

use common::features::FEATURE_COUNT;

/// A pivot smaller than this, relative to its diagonal element, is rounding: the matrix is singular.
const PIVOT_MIN: f64 = 1e-12;
/// The weights in the order of the features, then the intercept.
pub const PARAMETERS: usize = FEATURE_COUNT + 1;

/// One value per feature.
pub type Features = [f64; FEATURE_COUNT];
/// One value per parameter.
pub type Vector = [f64; PARAMETERS];
/// One value per pair of parameters.
pub type Matrix = [Vector; PARAMETERS];

/// Returns these values for the first features, and 0 for the others.
#[cfg(test)]
pub(crate) fn padded(values: &[f64]) -> Features {
    std::array::from_fn(|j| values.get(j).copied().unwrap_or(0.0))
}

/// Solves `matrix · x = right` by Cholesky decomposition of the lower triangle; `None` if the matrix is singular.
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

/// Inverts a symmetric, positive definite matrix given by its lower triangle; `None` if it is singular.
pub(crate) fn inverse(matrix: &Matrix) -> Option<Matrix> {
    let mut inverse = [[0.0; PARAMETERS]; PARAMETERS];
    for j in 0..PARAMETERS {
        let mut unit = [0.0; PARAMETERS];
        unit[j] = 1.0;
        inverse[j] = solve(matrix, &unit)?;
    }
    Some(inverse)
}

/// Returns the largest absolute component, or NaN if any component is NaN.
pub(crate) fn largest(vector: &Vector) -> f64 {
    let keep = |largest: f64, value: f64| largest.is_nan() || largest >= value.abs();
    vector.iter().fold(0.0, |largest, value| if keep(largest, *value) { largest } else { value.abs() })
}
