//! Bootstrap intervals: the same figure on many resamples of the same rides.
//!
//! The resamples are the same for every figure and on every machine, so that differences between models are those of one and the
//! same resample.

use crate::{metrics::softplus, newton::Cancel};
use common::model::Interval;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Resamples behind an interval of a figure of so many rides: fewer where each takes long, and the percentiles lie close together.
pub fn resamples(rides: usize) -> u32 {
    if rides <= 50_000 { 400 } else { 200 }
}

/// Predictions for the same rides, ranked once so that any resample of them is judged in one pass.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// Rides by rising log-odds.
    order: Vec<u32>,
    /// Whether the ride at this place has the log-odds of the one before it.
    tied: Vec<bool>,
    /// Of each ride: its negative log-likelihood, or another loss.
    loss: Vec<f64>,
}

impl Ranked {
    /// Ranks the log-odds of each ride; its loss is the negative log-likelihood.
    pub fn new(log_odds: &[f64], service: &[bool]) -> Self {
        Self::with_loss(log_odds, service, softplus)
    }

    /// The same with another loss, of the log-odds for what did not happen.
    pub fn with_loss(log_odds: &[f64], service: &[bool], loss: impl Fn(f64) -> f64) -> Self {
        let mut order: Vec<u32> = (0..u32::try_from(log_odds.len()).unwrap_or(u32::MAX)).collect();
        order.sort_unstable_by(|a, b| log_odds[*a as usize].total_cmp(&log_odds[*b as usize]).then(a.cmp(b)));
        let tied = |at: usize| at > 0 && log_odds[order[at] as usize] == log_odds[order[at - 1] as usize];
        let tied = (0..order.len()).map(tied).collect();
        let loss = log_odds.iter().zip(service).map(|(z, service)| loss(if *service { -z } else { *z })).collect();
        Self { order, tied, loss }
    }

    /// Mean loss when ride `i` counts `weights[i]` times.
    pub fn mean_loss(&self, weights: &[u32]) -> f64 {
        let (mut sum, mut count) = (0.0, 0u64);
        for (loss, weight) in self.loss.iter().zip(weights) {
            sum += loss * f64::from(*weight);
            count += u64::from(*weight);
        }
        sum / count as f64
    }

    /// Area under the ROC curve, ties counted half, when ride `i` counts `weights[i]` times; `None` with one class only.
    pub fn roc_auc(&self, weights: &[u32], service: &[bool]) -> Option<f64> {
        // Twice the pairs (positive, negative) won; those of a run of ties are known only at its end.
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

/// The figures of `statistic` on all rides, each with the interval between the 2.5th and the 97.5th percentile of those on
/// [`resamples`] with replacement. Resamples on which it has no answer are left out; `None` when it has none on all rides,
/// on fewer than half of the resamples, or when cancelled.
pub fn intervals<const K: usize>(
    rides: usize,
    threads: usize,
    cancel: &Cancel,
    statistic: impl Fn(&[u32]) -> Option<[f64; K]> + Sync,
) -> Option<[Interval; K]> {
    let whole = statistic(&vec![1; rides])?;
    let resamples = resamples(rides) as usize;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut weights = vec![0u32; rides];
        let mut found = Vec::new();
        loop {
            let resample = next.fetch_add(1, Ordering::Relaxed);
            if resample >= resamples || cancel.is_cancelled() {
                return found;
            }
            weights.fill(0);
            let mut random = Pcg64Mcg::seed_from_u64(resample as u64);
            for _ in 0..rides {
                weights[random.random_range(0..rides)] += 1;
            }
            found.extend(statistic(&weights));
        }
    };
    let found: Vec<[f64; K]> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let joined = running.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    });
    if cancel.is_cancelled() || found.len() * 2 < resamples {
        return None;
    }
    Some(std::array::from_fn(|k| {
        let mut values: Vec<f64> = found.iter().map(|figures| figures[k]).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        Interval { value: whole[k], lower: at(0.025), upper: at(0.975) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::evaluate;
    use proptest::prelude::*;

    fn predictions() -> impl Strategy<Value = Vec<(f64, bool, u32)>> {
        let score = prop_oneof![(-4i8..=4).prop_map(|step| f64::from(step) / 2.0), -8.0..8.0, Just(-0.0)];
        proptest::collection::vec((score, any::<bool>(), 0u32..4), 1..40)
    }

    proptest! {
        /// A ride that counts twice is as good as two of them.
        #[test]
        fn weights_are_repetitions(predictions in predictions()) {
            let log_odds: Vec<f64> = predictions.iter().map(|(z, ..)| *z).collect();
            let service: Vec<bool> = predictions.iter().map(|(_, y, _)| *y).collect();
            let weights: Vec<u32> = predictions.iter().map(|(.., w)| *w).collect();
            let ranked = Ranked::new(&log_odds, &service);
            let repeated = predictions.iter().flat_map(|(z, y, w)| std::iter::repeat_n((*z, *y), *w as usize));
            if let Some(metrics) = evaluate(repeated, 0.5) {
                prop_assert_eq!(ranked.roc_auc(&weights, &service), metrics.roc_auc);
                prop_assert!((ranked.mean_loss(&weights) - metrics.log_loss).abs() < 1e-12 * (1.0 + metrics.log_loss));
            }
        }
    }

    /// The interval of a mean is the one the central limit theorem gives, the same on any number of threads.
    #[test]
    fn the_interval_of_a_mean_is_the_textbooks() {
        let n = 2_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(i % 100) / 100.0).collect();
        let mean = |weights: &[u32]| {
            Some([values.iter().zip(weights).map(|(v, w)| v * f64::from(*w)).sum::<f64>() / f64::from(n)])
        };
        let [one] = intervals(n as usize, 1, &Cancel::default(), mean).unwrap();
        let [four] = intervals(n as usize, 4, &Cancel::default(), mean).unwrap();
        assert_eq!(one, four);
        let standard_error = (1.0f64 / 12.0 / f64::from(n)).sqrt();
        assert!((one.value - 0.495).abs() < 1e-12);
        for (end, sign) in [(one.lower, -1.0), (one.upper, 1.0)] {
            assert!((end - (0.495 + sign * 1.96 * standard_error)).abs() < 0.25 * standard_error, "{one:?}");
        }
    }

    #[test]
    fn what_has_no_answer_has_no_interval() {
        let cancel = Cancel::default();
        let ranked = Ranked::new(&[0.0, 1.0], &[true, true]);
        assert_eq!(intervals(2, 2, &cancel, |weights| Some([ranked.roc_auc(weights, &[true, true])?])), None);
        cancel.cancel();
        assert_eq!(intervals(2, 2, &cancel, |weights| Some([ranked.mean_loss(weights)])), None);
    }
}
