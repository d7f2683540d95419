//! Bootstrap intervals: a figure computed on many resamples of the same rides.
//!
//! The resamples are the same for every figure and on every machine, so that models are compared on identical resamples.

use crate::fit::{Cancel, softplus};
use common::model::Interval;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;

/// Number of resamples of an interval over this many rides. There are fewer for many rides, where each takes long and the percentiles
/// lie close together.
pub fn resamples(rides: usize) -> u32 {
    if rides <= 50_000 { 400 } else { 200 }
}

/// Predictions for the same rides, sorted once so that any resample of them is evaluated in one pass.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// Indices of the rides by rising log-odds.
    order: Vec<u32>,
    /// Whether the ride at this place of `order` has the same log-odds as the one before it.
    tied: Vec<bool>,
    /// Loss of each ride.
    loss: Vec<f64>,
}

impl Ranking {
    /// Sorts the rides by their log-odds. The loss is the negative log-likelihood.
    pub fn new(log_odds: &[f64], service: &[bool]) -> Self {
        Self::with_loss(log_odds, service, softplus)
    }

    /// Sorts the rides by their log-odds. `loss` maps the log-odds of the wrong class to a loss.
    pub fn with_loss(log_odds: &[f64], service: &[bool], loss: impl Fn(f64) -> f64) -> Self {
        let mut order: Vec<u32> = (0..u32::try_from(log_odds.len()).unwrap_or(u32::MAX)).collect();
        order.sort_unstable_by(|a, b| log_odds[*a as usize].total_cmp(&log_odds[*b as usize]).then(a.cmp(b)));
        let tied = |at: usize| at > 0 && log_odds[order[at] as usize] == log_odds[order[at - 1] as usize];
        let tied = (0..order.len()).map(tied).collect();
        let loss = log_odds.iter().zip(service).map(|(z, service)| loss(if *service { -z } else { *z })).collect();
        Self { order, tied, loss }
    }

    /// Mean loss if ride `i` counts `weights[i]` times.
    pub fn mean_loss(&self, weights: &[u32]) -> f64 {
        let (mut sum, mut count) = (0.0, 0u64);
        for (loss, weight) in self.loss.iter().zip(weights) {
            sum += loss * f64::from(*weight);
            count += u64::from(*weight);
        }
        sum / count as f64
    }

    /// Area under the ROC curve if ride `i` counts `weights[i]` times; ties count half. `None` if there is one class only.
    pub fn roc_auc(&self, weights: &[u32], service: &[bool]) -> Option<f64> {
        // Twice the number of pairs in which the positive ranks higher; the pairs of a run of ties are known only at its end.
        let mut won_twice = 0u128;
        let (mut below, mut positives) = (0u64, 0u64);
        let (mut tied_positives, mut tied_negatives) = (0u64, 0u64);
        for (ride, tied) in self.order.iter().map(|ride| *ride as usize).zip(&self.tied) {
            if !tied {
                won_twice += u128::from(tied_positives) * u128::from(2 * below + tied_negatives);
                positives += tied_positives;
                below += tied_negatives;
                (tied_positives, tied_negatives) = (0, 0);
            }
            *(if service[ride] { &mut tied_positives } else { &mut tied_negatives }) += u64::from(weights[ride]);
        }
        won_twice += u128::from(tied_positives) * u128::from(2 * below + tied_negatives);
        positives += tied_positives;
        below += tied_negatives;
        let pairs = u128::from(positives) * u128::from(below);
        (pairs > 0).then(|| won_twice as f64 / (2 * pairs) as f64)
    }
}

/// Returns the figures that `statistic` computes on all rides, each with the interval between the 2.5th and the 97.5th percentile
/// over [`resamples`] with replacement. Leaves out resamples on which `statistic` is undefined. `None` if it is undefined on all rides
/// or on more than half of the resamples, or if cancelled.
pub fn intervals<const K: usize>(
    rides: usize,
    cancel: &Cancel,
    statistic: impl Fn(&[u32]) -> Option<[f64; K]> + Sync,
) -> Option<[Interval; K]> {
    let whole = statistic(&vec![1; rides])?;
    let resamples = resamples(rides);
    let on_resample = |weights: &mut Vec<u32>, resample: u32| {
        if cancel.is_cancelled() {
            return None;
        }
        weights.fill(0);
        let mut random = Pcg64Mcg::seed_from_u64(u64::from(resample));
        for _ in 0..rides {
            weights[random.random_range(0..rides)] += 1;
        }
        statistic(weights)
    };
    let figures: Vec<[f64; K]> =
        (0..resamples).into_par_iter().map_init(|| vec![0; rides], on_resample).flatten_iter().collect();
    if cancel.is_cancelled() || figures.len() * 2 < resamples as usize {
        return None;
    }
    Some(std::array::from_fn(|k| {
        let mut values: Vec<f64> = figures.iter().map(|figures| figures[k]).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        Interval { value: whole[k], lower: at(0.025), upper: at(0.975) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::metrics::evaluate;
    use proptest::prelude::*;

    fn predictions() -> impl Strategy<Value = Vec<(f64, bool, u32)>> {
        let score = prop_oneof![(-4i8..=4).prop_map(|step| f64::from(step) / 2.0), -8.0..8.0, Just(-0.0)];
        proptest::collection::vec((score, any::<bool>(), 0u32..4), 1..40)
    }

    proptest! {
        /// A ride with weight 2 counts as two rides.
        #[test]
        fn weights_are_repetitions(predictions in predictions()) {
            let log_odds: Vec<f64> = predictions.iter().map(|(z, ..)| *z).collect();
            let service: Vec<bool> = predictions.iter().map(|(_, y, _)| *y).collect();
            let weights: Vec<u32> = predictions.iter().map(|(.., w)| *w).collect();
            let ranking = Ranking::new(&log_odds, &service);
            let repeated = predictions.iter().flat_map(|(z, y, w)| std::iter::repeat_n((*z, *y), *w as usize));
            if let Some(metrics) = evaluate(repeated, 0.5) {
                prop_assert_eq!(ranking.roc_auc(&weights, &service), metrics.roc_auc);
                prop_assert!((ranking.mean_loss(&weights) - metrics.log_loss).abs() < 1e-12 * (1.0 + metrics.log_loss));
            }
        }
    }

    /// The interval of a mean agrees with the central limit theorem, and is the same on any number of threads.
    #[test]
    fn the_interval_of_a_mean_agrees_with_the_central_limit_theorem() {
        let n = 2_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(i % 100) / 100.0).collect();
        let mean = |weights: &[u32]| {
            Some([values.iter().zip(weights).map(|(v, w)| v * f64::from(*w)).sum::<f64>() / f64::from(n)])
        };
        let on = |threads: usize| {
            let cores = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            cores.install(|| intervals(n as usize, &Cancel::default(), mean).unwrap())
        };
        let ([one], [four]) = (on(1), on(4));
        assert_eq!(one, four);
        let standard_error = (1.0f64 / 12.0 / f64::from(n)).sqrt();
        assert!((one.value - 0.495).abs() < 1e-12);
        for (end, sign) in [(one.lower, -1.0), (one.upper, 1.0)] {
            assert!((end - (0.495 + sign * 1.96 * standard_error)).abs() < 0.25 * standard_error, "{one:?}");
        }
    }

    #[test]
    fn an_undefined_statistic_has_no_interval() {
        let cancel = Cancel::default();
        let ranking = Ranking::new(&[0.0, 1.0], &[true, true]);
        assert_eq!(intervals(2, &cancel, |weights| Some([ranking.roc_auc(weights, &[true, true])?])), None);
        cancel.cancel();
        assert_eq!(intervals(2, &cancel, |weights| Some([ranking.mean_loss(weights)])), None);
    }
}
