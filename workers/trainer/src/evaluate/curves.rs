//! ROC and calibration curves, with as few points as a picture needs.

use common::model::{CalibrationBin, RocPoint, logistic};
use std::{cmp::Reverse, collections::BinaryHeap};

/// Maximum number of points of a ROC curve.
pub const ROC_POINTS_MAX: usize = 101;
/// Number of bins of a calibration curve, all of the same width.
pub const CALIBRATION_BINS: u32 = 10;
/// Number of steps along the curve, whose length is 2 (both rates from 0 to 1). Corners closer than a step are merged before the
/// curve is thinned, which bounds memory and changes the area by 4 / `STEPS` at most.
const STEPS: u128 = 10_000;

/// A corner of the curve: how many rides of each class have at least these log-odds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Corner {
    log_odds: f64,
    negatives: u64,
    positives: u64,
}

/// Returns the ROC curve of predictions in falling order of their log-odds; equal ones are one step. Empty if there is one class only.
///
/// The curve has at most [`ROC_POINTS_MAX`] points, from (0, 0) to (1, 1). It leaves out points where the area below the polyline
/// changes least, and balances gains and losses, so that the area stays that of the whole curve. Counts and areas are integers: the
/// order of equal predictions changes no bit.
pub fn roc(falling: impl Iterator<Item = (f64, bool)> + Clone) -> Vec<RocPoint> {
    let (mut all_negatives, mut all_positives) = (0u64, 0u64);
    for (_, service) in falling.clone() {
        *(if service { &mut all_positives } else { &mut all_negatives }) += 1;
    }
    if all_negatives == 0 || all_positives == 0 {
        return Vec::new();
    }
    let corners = thinned(walk(falling, all_negatives, all_positives), ROC_POINTS_MAX);
    let point = |(index, corner): (usize, Corner)| RocPoint {
        threshold: if index == 0 { 1.0 } else { logistic(corner.log_odds) },
        false_positive_rate: corner.negatives as f64 / all_negatives as f64,
        true_positive_rate: corner.positives as f64 / all_positives as f64,
    };
    corners.into_iter().enumerate().map(point).collect()
}

/// Returns the corners of the curve, without those that are less than a step after the corner before.
fn walk(falling: impl Iterator<Item = (f64, bool)>, all_negatives: u64, all_positives: u64) -> Vec<Corner> {
    // Scaled so that both classes contribute the same length, however many rides they have.
    let length = |from: &Corner, to: &Corner| {
        u128::from(to.negatives - from.negatives) * u128::from(all_positives)
            + u128::from(to.positives - from.positives) * u128::from(all_negatives)
    };
    let step = 2 * u128::from(all_negatives) * u128::from(all_positives) / STEPS;
    let mut last = Corner { log_odds: f64::INFINITY, negatives: 0, positives: 0 };
    let mut corners = vec![last];
    let mut here = last;
    let mut rides = falling.peekable();
    while let Some((log_odds, service)) = rides.next() {
        *(if service { &mut here.positives } else { &mut here.negatives }) += 1;
        here.log_odds = log_odds;
        let ends = rides.peek().is_none_or(|(next, _)| *next != log_odds);
        if ends && (rides.peek().is_none() || length(&last, &here) >= step) {
            corners.push(here);
            last = here;
        }
    }
    corners
}

/// Returns twice the area that the polyline gains if `b` is left out between `a` and `c`, in rides of one class times rides of the
/// other.
fn change(a: &Corner, b: &Corner, c: &Corner) -> i128 {
    let across = |from: &Corner, to: &Corner| i128::from(to.negatives) - i128::from(from.negatives);
    let up = |from: &Corner, to: &Corner| i128::from(to.positives) - i128::from(from.positives);
    across(a, b) * up(a, c) - across(a, c) * up(a, b)
}

/// Leaves out corners until at most `max` are left (line simplification of Visvalingam and Whyatt). Each step considers the corner
/// whose removal adds the least area and the one whose removal takes the least away, and leaves out the one that keeps the total
/// difference smaller.
fn thinned(corners: Vec<Corner>, max: usize) -> Vec<Corner> {
    let last = corners.len() - 1;
    let mut before: Vec<usize> = (0..=last).map(|at| at.saturating_sub(1)).collect();
    let mut after: Vec<usize> = (1..=last + 1).collect();
    let mut left_out = vec![false; last + 1];
    let change_at =
        |before: &[usize], after: &[usize], at: usize| change(&corners[before[at]], &corners[at], &corners[after[at]]);
    // Smallest first. An entry whose neighbours have changed since is stale.
    let mut growing: BinaryHeap<Reverse<(u128, usize)>> = BinaryHeap::new();
    let mut shrinking = growing.clone();
    let put = |change: i128, at: usize, growing: &mut BinaryHeap<_>, shrinking: &mut BinaryHeap<_>| {
        (if change >= 0 { growing } else { shrinking }).push(Reverse((change.unsigned_abs(), at)));
    };
    for at in 1..last {
        put(change_at(&before, &after, at), at, &mut growing, &mut shrinking);
    }
    let mut difference = 0i128;
    for _ in max..corners.len() {
        let mut best: Option<(u128, u128, usize, i128)> = None;
        for (heap, grows) in [(&mut growing, true), (&mut shrinking, false)] {
            while let Some(Reverse((size, at))) = heap.peek().copied() {
                let now = if left_out[at] { None } else { Some(change_at(&before, &after, at)) };
                match now.filter(|now| (*now >= 0) == grows && now.unsigned_abs() == size) {
                    Some(now) => {
                        let candidate = ((difference + now).unsigned_abs(), size, at, now);
                        best = Some(best.map_or(candidate, |best| best.min(candidate)));
                        break;
                    }
                    None => drop(heap.pop()),
                }
            }
        }
        let Some((.., at, change)) = best else { break };
        left_out[at] = true;
        difference += change;
        let (previous, next) = (before[at], after[at]);
        (after[previous], before[next]) = (next, previous);
        for neighbour in [previous, next].into_iter().filter(|neighbour| (1..last).contains(neighbour)) {
            put(change_at(&before, &after, neighbour), neighbour, &mut growing, &mut shrinking);
        }
    }
    corners.into_iter().zip(left_out).filter(|(_, left_out)| !left_out).map(|(corner, _)| corner).collect()
}

/// Counts predictions by their probability.
#[derive(Debug, Default)]
pub struct Calibration([Bin; CALIBRATION_BINS as usize]);

#[derive(Debug, Default)]
struct Bin {
    rides: u64,
    services: u64,
    probabilities: f64,
}

impl Calibration {
    /// Adds a prediction.
    pub fn add(&mut self, probability: f64, service: bool) {
        // Compares edges instead of multiplying, so that rounding cannot move a probability on an edge to another bin.
        let number = (1..CALIBRATION_BINS).take_while(|edge| probability >= edge_at(*edge)).count();
        if let Some(bin) = self.0.get_mut(number) {
            bin.rides += 1;
            bin.services += u64::from(service);
            bin.probabilities += probability;
        }
    }

    /// Returns the bins that have rides, in rising order.
    pub fn bins(self) -> Vec<CalibrationBin> {
        let bin = |(number, bin): (u32, Bin)| CalibrationBin {
            from: edge_at(number),
            to: edge_at(number + 1),
            rides: bin.rides,
            mean_probability: bin.probabilities / bin.rides as f64,
            service_share: bin.services as f64 / bin.rides as f64,
        };
        (0..).zip(self.0).filter(|(_, bin)| bin.rides > 0).map(bin).collect()
    }
}

fn edge_at(number: u32) -> f64 {
    f64::from(number) / f64::from(CALIBRATION_BINS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::metrics::evaluate;
    use proptest::prelude::*;

    /// Returns the area below a polyline.
    fn area(roc: &[RocPoint]) -> f64 {
        let trapezium = |pair: &[RocPoint]| {
            (pair[1].false_positive_rate - pair[0].false_positive_rate)
                * (pair[1].true_positive_rate + pair[0].true_positive_rate)
                / 2.0
        };
        roc.windows(2).map(trapezium).sum()
    }

    fn check(predictions: &[(f64, bool)]) -> Result<(), TestCaseError> {
        let metrics = evaluate(predictions.iter().copied(), 0.5).unwrap();
        let Some(roc_auc) = metrics.roc_auc else {
            prop_assert!(metrics.roc.is_empty());
            return Ok(());
        };
        let roc = &metrics.roc;
        let (first, last) = (roc.first().unwrap(), roc.last().unwrap());
        prop_assert_eq!((first.threshold, first.false_positive_rate, first.true_positive_rate), (1.0, 0.0, 0.0));
        prop_assert_eq!((last.false_positive_rate, last.true_positive_rate), (1.0, 1.0));
        prop_assert!(roc.len() <= ROC_POINTS_MAX);
        prop_assert!((area(roc) - roc_auc).abs() < 0.002, "{} points, {} for {}", roc.len(), area(roc), roc_auc);
        prop_assert!(roc.is_sorted_by(|a, b| a.threshold >= b.threshold
            && a.false_positive_rate <= b.false_positive_rate
            && a.true_positive_rate <= b.true_positive_rate
            && (a.false_positive_rate, a.true_positive_rate) != (b.false_positive_rate, b.true_positive_rate)));
        Ok(())
    }

    /// Every point agrees with its threshold. With few predictions, no corner is left out and the area is exact.
    #[test]
    fn few_predictions_keep_every_corner() {
        let log_odds = |p: f64| (p / (1.0 - p)).ln();
        let predictions =
            [(0.9, true), (0.8, false), (0.8, true), (0.4, true), (0.2, false)].map(|(p, y)| (log_odds(p), y));
        let roc = evaluate(predictions, 0.5).unwrap().roc;
        let points: Vec<_> = roc.iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).collect();
        assert_eq!(points, [(0.0, 0.0), (0.0, 1.0 / 3.0), (0.5, 2.0 / 3.0), (0.5, 1.0), (1.0, 1.0)]);
        for (point, threshold) in roc.iter().zip([1.0, 0.9, 0.8, 0.4, 0.2]) {
            assert!((point.threshold - threshold).abs() < 1e-15, "{point:?}");
        }
    }

    /// Shapes: staircases, where every corner matters; a hook, where one edge is most of the curve; good and bad models over very many
    /// rides.
    #[test]
    fn thinning_keeps_the_area_of_any_shape() {
        let staircase = |steps: u32, wide: u32| {
            let ride = move |at: u32| (-f64::from(at), (at / wide).is_multiple_of(2));
            (0..2 * steps * wide).map(ride).collect::<Vec<_>>()
        };
        let mut shapes: Vec<Vec<(f64, bool)>> =
            [(60, 1), (101, 3), (150, 2), (400, 1), (3_000, 1), (70, 50)].map(|(s, w)| staircase(s, w)).to_vec();
        let mut hook = staircase(60, 1);
        hook.extend((0..20_000).map(|at| (-1_000.0, at % 9 == 0)));
        hook.extend(staircase(70, 1).into_iter().map(|(z, y)| (z - 2_000.0, y)));
        shapes.push(hook);
        // Fractional parts of multiples of the golden ratio are evenly spread without randomness.
        let spread = |at: u32| (f64::from(at) * 0.618_033_988_749_895).fract();
        for skill in [0.0, 1.0, 4.0, -2.0] {
            let ride = |at: u32| {
                (8.0 * spread(at) - 4.0, spread(at.wrapping_mul(7919)) < logistic(skill * (8.0 * spread(at) - 4.0)))
            };
            shapes.push((0..200_000).map(ride).collect());
        }
        for shape in shapes {
            check(&shape).unwrap();
        }
    }

    #[test]
    fn an_edge_belongs_to_the_bin_that_begins_with_it() {
        let mut calibration = Calibration::default();
        for (probability, service) in [(0.0, false), (0.3, true), (0.3, false), (0.35, true), (1.0, true)] {
            calibration.add(probability, service);
        }
        let bins: Vec<_> =
            calibration.bins().iter().map(|bin| (bin.from, bin.to, bin.rides, bin.service_share)).collect();
        assert_eq!(bins, [(0.0, 0.1, 1, 0.0), (0.3, 0.4, 3, 2.0 / 3.0), (0.9, 1.0, 1, 1.0)]);
    }

    fn predictions() -> impl Strategy<Value = Vec<(f64, bool)>> {
        let score = prop_oneof![
            (-40i8..=40).prop_map(|step| f64::from(step) / 4.0),
            -6.0..6.0,
            (-800.0..800.0).prop_map(|z: f64| z),
            Just(-0.0),
        ];
        proptest::collection::vec((score, any::<bool>()), 1..1_500)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn thinning_keeps_the_area_of_random_curves(predictions in predictions()) {
            check(&predictions)?;
        }

        #[test]
        fn the_curve_is_independent_of_the_order_of_rides(predictions in predictions()) {
            let reversed: Vec<_> = predictions.iter().rev().copied().collect();
            prop_assert_eq!(evaluate(predictions, 0.5).unwrap().roc, evaluate(reversed, 0.5).unwrap().roc);
        }

        #[test]
        fn bins_account_for_every_ride(predictions in predictions()) {
            let bins = evaluate(predictions.iter().copied(), 0.5).unwrap().calibration;
            prop_assert!(bins.iter().all(|bin| bin.rides > 0) && bins.is_sorted_by(|a, b| a.to <= b.from));
            prop_assert_eq!(bins.iter().map(|bin| bin.rides).sum::<u64>(), predictions.len() as u64);
            for bin in bins {
                let inside = |p: f64| bin.from <= p && (p < bin.to || bin.to == 1.0);
                let here: Vec<_> =
                    predictions.iter().map(|(z, y)| (logistic(*z), *y)).filter(|(p, _)| inside(*p)).collect();
                prop_assert_eq!(here.len() as u64, bin.rides);
                let n = here.len() as f64;
                let mean = here.iter().map(|(p, _)| p).sum::<f64>() / n;
                prop_assert!((bin.mean_probability - mean).abs() < 1e-12);
                prop_assert_eq!(bin.service_share, here.iter().filter(|(_, y)| *y).count() as f64 / n);
            }
        }
    }
}
