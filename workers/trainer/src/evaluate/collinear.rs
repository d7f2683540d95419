//! Features that are linear combinations of each other.

use crate::fit::Matrix;
use common::features::FEATURE_COUNT;

/// Maximum residual share of the variance of a feature that other features determine.
const RESIDUAL_MAX: f64 = 1e-9;
/// Minimum weight, in standardised units, of a feature that belongs to a combination.
const WEIGHT_MIN: f64 = 1e-6;

/// Features that are linear combinations of each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Combinations {
    /// Members of each combination, in the order of the features.
    pub(crate) groups: Vec<Vec<usize>>,
    /// Features that the others determine: without them there is no combination.
    pub(crate) dependent: [bool; FEATURE_COUNT],
}

/// Finds the linear combinations among the features that are `used`.
///
/// `correlations` holds the correlations of the features in its lower triangle.
/// Gauss–Jordan elimination with diagonal pivoting: a column without a pivot is a combination of those with one.
pub(crate) fn combinations(correlations: &Matrix, used: [bool; FEATURE_COUNT]) -> Combinations {
    let entry = |i: usize, j: usize| correlations[i.max(j)][i.min(j)];
    let mut reduced: [[f64; FEATURE_COUNT]; FEATURE_COUNT] =
        std::array::from_fn(|i| std::array::from_fn(|j| if used[i] && used[j] { entry(i, j) } else { 0.0 }));
    let mut is_pivot = [false; FEATURE_COUNT];
    loop {
        let open = (0..FEATURE_COUNT).filter(|j| used[*j] && !is_pivot[*j]);
        let largest = open.max_by(|a, b| reduced[*a][*a].total_cmp(&reduced[*b][*b]));
        let Some(pivot) = largest.filter(|j| reduced[*j][*j] > RESIDUAL_MAX) else { break };
        is_pivot[pivot] = true;
        let diagonal = reduced[pivot][pivot];
        reduced[pivot].iter_mut().for_each(|value| *value /= diagonal);
        let row = reduced[pivot];
        for (_, other) in reduced.iter_mut().enumerate().filter(|(i, _)| *i != pivot) {
            let factor = other[pivot];
            other.iter_mut().zip(row).for_each(|(value, of_pivot)| *value -= factor * of_pivot);
        }
    }
    let mut combinations = Combinations::default();
    for dependent in (0..FEATURE_COUNT).filter(|j| used[*j] && !is_pivot[*j]) {
        let others = (0..FEATURE_COUNT).filter(|i| is_pivot[*i] && reduced[*i][dependent].abs() > WEIGHT_MIN);
        let mut group: Vec<usize> = others.chain([dependent]).collect();
        combinations.groups.retain(|known| {
            let apart = known.iter().all(|member| !group.contains(member));
            if !apart {
                group.extend(known);
            }
            apart
        });
        group.sort_unstable();
        group.dedup();
        // A feature without variance is constant, not a combination.
        if group.len() > 1 {
            combinations.dependent[dependent] = true;
            combinations.groups.push(group);
        }
    }
    combinations.groups.sort_unstable();
    combinations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::PARAMETERS;
    use proptest::prelude::*;

    /// The features that the tests use: the first ones.
    type Columns = [f64; 6];

    fn only_columns(used: impl Fn(usize) -> bool) -> [bool; FEATURE_COUNT] {
        std::array::from_fn(|j| j < 6 && used(j))
    }

    /// Returns the correlations of columns that `combine` computes from independent ones.
    fn correlations(seed: u64, combine: impl Fn(Columns) -> Columns) -> Matrix {
        let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let rows: Vec<Columns> = (0..500).map(|_| combine(std::array::from_fn(|_| uniform()))).collect();
        let n = rows.len() as f64;
        let mean: Columns = std::array::from_fn(|j| rows.iter().map(|row| row[j]).sum::<f64>() / n);
        let covariance =
            |i: usize, j: usize| rows.iter().map(|row| (row[i] - mean[i]) * (row[j] - mean[j])).sum::<f64>() / n;
        let mut matrix = [[0.0; PARAMETERS]; PARAMETERS];
        for (i, row) in matrix.iter_mut().enumerate().take(mean.len()) {
            for (j, value) in row.iter_mut().enumerate().take(i + 1) {
                *value = covariance(i, j) / (covariance(i, i) * covariance(j, j)).sqrt();
            }
        }
        matrix
    }

    #[test]
    fn exactly_the_combinations_are_found() {
        let all = only_columns(|_| true);
        type Case<'a> = (&'a dyn Fn(Columns) -> Columns, &'a [&'a [usize]]);
        let cases: [Case<'_>; 6] = [
            (&|x| x, &[]),
            (&|[a, b, _, d, e, f]| [a, b, 10.0 * a, d, e, f], &[&[0, 2]]),
            (&|[a, b, c, d, _, f]| [a, b, c, d, 2.0 * d - 7.0, f], &[&[3, 4]]),
            (&|[a, b, c, d, e, _]| [a, b, c, d, e, a + b - 3.0 * d], &[&[0, 1, 3, 5]]),
            (&|[a, b, _, d, _, f]| [a, b, 10.0 * a, d, -d, f], &[&[0, 2], &[3, 4]]),
            (&|[a, b, _, _, e, f]| [a, b, 2.0 * a, 3.0 * a, e, f], &[&[0, 2, 3]]),
        ];
        for (case, (combine, expected)) in cases.into_iter().enumerate() {
            for seed in 0..20 {
                let matrix = correlations(seed, combine);
                let found = combinations(&matrix, all);
                assert_eq!(found.groups, expected, "case {case}, seed {seed}");
                let left = only_columns(|j| !found.dependent[j]);
                assert_eq!(combinations(&matrix, left), Combinations::default(), "case {case}, seed {seed}");
            }
        }
        let unused = only_columns(|j| j != 2);
        let pair = correlations(1, |[a, b, _, d, e, f]| [a, b, 10.0 * a, d, e, f]);
        assert_eq!(combinations(&pair, unused), Combinations::default(), "an unused feature is in no combination");
    }

    proptest! {
        #[test]
        fn correlated_features_are_no_combination(seed in 0u64..1_000, noise in 0.01f64..1.0) {
            let matrix = correlations(seed, |[a, b, c, d, e, f]| [a, b, a + noise * c, d, e, f]);
            prop_assert_eq!(combinations(&matrix, only_columns(|_| true)), Combinations::default());
        }
    }
}
