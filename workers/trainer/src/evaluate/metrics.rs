//! How good predictions are, computed from log-odds, so that nothing overflows and no probability has to be clamped.

use super::curves::{self, Calibration};
use crate::fit::softplus;
use common::model::{BrierDecomposition, CalibrationBin, Confusion, Metrics, logistic};

/// Evaluates predictions, each with its finite log-odds and its label. `None` if there are none.
///
/// A ride is predicted positive if its probability reaches `threshold`, as in the scorer.
pub fn evaluate(predictions: impl IntoIterator<Item = (f64, bool)>, threshold: f64) -> Option<Metrics> {
    let mut confusion = Confusion::default();
    let (mut log_loss, mut squared_error) = (0.0, 0.0);
    let (mut positives, mut negatives) = (Vec::new(), Vec::new());
    let mut calibration = Calibration::default();
    for (log_odds, service) in predictions {
        let cell = match (service, logistic(log_odds) >= threshold) {
            (false, false) => &mut confusion.true_negative,
            (false, true) => &mut confusion.false_positive,
            (true, false) => &mut confusion.false_negative,
            (true, true) => &mut confusion.true_positive,
        };
        *cell += 1;
        calibration.add(logistic(log_odds), service);
        let towards_error = if service { -log_odds } else { log_odds };
        log_loss += softplus(towards_error);
        squared_error += logistic(towards_error).powi(2);
        if service { positives.push(log_odds) } else { negatives.push(log_odds) }
    }
    let rides = positives.len() + negatives.len();
    if rides == 0 {
        return None;
    }
    positives.sort_unstable_by(f64::total_cmp);
    negatives.sort_unstable_by(f64::total_cmp);
    let Confusion { true_negative, false_positive, false_negative, true_positive } = confusion;
    let precision = ratio(true_positive, true_positive + false_positive);
    let recall = ratio(true_positive, true_positive + false_negative);
    let f1 = ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative);
    let (brier, bins) = (squared_error / rides as f64, calibration.bins());
    Some(Metrics {
        rides: rides as u64,
        confusion,
        accuracy: (true_positive + true_negative) as f64 / rides as f64,
        precision,
        recall,
        f1: f1.filter(|_| precision.is_some() && recall.is_some()),
        roc_auc: roc_auc(&positives, &negatives),
        log_loss: log_loss / rides as f64,
        average_precision: average_precision(falling(&positives, &negatives), positives.len()),
        brier,
        brier_decomposition: Some(decomposition(brier, &bins)),
        calibration_error: Some(calibration_error(&bins)),
        roc: curves::roc(falling(&positives, &negatives)),
        calibration: bins,
    })
}

/// Merges the predictions of both classes, each in rising order, into one sequence in falling order.
fn falling<'a>(positives: &'a [f64], negatives: &'a [f64]) -> impl Iterator<Item = (f64, bool)> + Clone + 'a {
    let (mut positives, mut negatives) = (positives.iter().rev().peekable(), negatives.iter().rev().peekable());
    std::iter::from_fn(move || {
        let service = match (positives.peek(), negatives.peek()) {
            (Some(positive), Some(negative)) => positive >= negative,
            (positive, _) => positive.is_some(),
        };
        let next = if service { positives.next() } else { negatives.next() };
        next.map(|log_odds| (*log_odds, service))
    })
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Returns the share of pairs (positive, negative) in which the positive has the higher log-odds; ties count half. This is the
/// Mann–Whitney form of the area, exact in integers until the last division. Both slices are in rising order.
fn roc_auc(positives: &[f64], negatives: &[f64]) -> Option<f64> {
    let pairs = positives.len() as u128 * negatives.len() as u128;
    if pairs == 0 {
        return None;
    }
    let (mut below, mut up_to) = (0, 0);
    let mut won_twice = 0u128;
    for positive in positives {
        below += negatives.iter().skip(below).take_while(|negative| *negative < positive).count();
        up_to = up_to.max(below);
        up_to += negatives.iter().skip(up_to).take_while(|negative| *negative <= positive).count();
        won_twice += (below + up_to) as u128;
    }
    Some(won_twice as f64 / (2 * pairs) as f64)
}

/// Sums the precision at every threshold, weighted with the recall it adds. Predictions are in falling order; equal ones are one step.
fn average_precision(falling: impl Iterator<Item = (f64, bool)>, positives: usize) -> Option<f64> {
    let (mut predicted, mut correct, mut correct_before, mut sum) = (0u64, 0u64, 0u64, 0.0);
    let mut rides = falling.peekable();
    while let Some((log_odds, service)) = rides.next() {
        predicted += 1;
        correct += u64::from(service);
        if rides.peek().is_none_or(|(next, _)| *next != log_odds) {
            sum += (correct - correct_before) as f64 * correct as f64 / predicted as f64;
            correct_before = correct;
        }
    }
    (positives > 0).then(|| sum / positives as f64)
}

fn calibration_error(bins: &[CalibrationBin]) -> f64 {
    let rides: u64 = bins.iter().map(|bin| bin.rides).sum();
    let gap = |bin: &CalibrationBin| bin.rides as f64 * (bin.mean_probability - bin.service_share).abs();
    bins.iter().map(gap).sum::<f64>() / rides.max(1) as f64
}

fn decomposition(brier: f64, bins: &[CalibrationBin]) -> BrierDecomposition {
    let rides: u64 = bins.iter().map(|bin| bin.rides).sum();
    let mean = |of: &dyn Fn(&CalibrationBin) -> f64| {
        bins.iter().map(|bin| bin.rides as f64 * of(bin)).sum::<f64>() / rides.max(1) as f64
    };
    let share = mean(&|bin| bin.service_share);
    let reliability = mean(&|bin| (bin.mean_probability - bin.service_share).powi(2));
    let resolution = mean(&|bin| (bin.service_share - share).powi(2));
    let uncertainty = share * (1.0 - share);
    BrierDecomposition {
        reliability,
        resolution,
        uncertainty,
        within_bins: brier - reliability + resolution - uncertainty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        // Of the probabilities 0.9, 0.6, 0.4 and 0.2, the second and the fourth are wrong at a threshold of one half.
        let log_odds = |p: f64| (p / (1.0 - p)).ln();
        let metrics =
            evaluate([(0.9, true), (0.6, false), (0.4, false), (0.2, true)].map(|(p, y)| (log_odds(p), y)), 0.5)
                .unwrap();
        assert_eq!(
            metrics.confusion,
            Confusion { true_negative: 1, false_positive: 1, false_negative: 1, true_positive: 1 }
        );
        assert_eq!(
            (metrics.accuracy, metrics.precision, metrics.recall, metrics.f1),
            (0.5, Some(0.5), Some(0.5), Some(0.5))
        );
        assert_eq!(metrics.roc_auc, Some(0.5));
        let log_loss = -(0.9f64.ln() + 0.4f64.ln() + 0.6f64.ln() + 0.2f64.ln()) / 4.0;
        assert!((metrics.log_loss - log_loss).abs() < 1e-15);
        assert!((metrics.brier - (0.01 + 0.36 + 0.16 + 0.64) / 4.0).abs() < 1e-15);
    }

    #[test]
    fn what_is_not_defined_is_absent() {
        assert_eq!(evaluate([], 0.5), None);
        let metrics = evaluate([(-1.0, false), (-2.0, false)], 0.5).unwrap();
        assert_eq!((metrics.precision, metrics.recall, metrics.f1, metrics.roc_auc), (None, None, None, None));
        let metrics = evaluate([(-1.0, true), (-2.0, false)], 0.5).unwrap();
        assert_eq!((metrics.precision, metrics.recall, metrics.f1), (None, Some(0.0), None));
    }

    #[test]
    fn certain_predictions_cost_much_if_wrong_and_nothing_if_right() {
        let metrics = evaluate([(2_000.0, false), (2_000.0, true), (-2_000.0, false)], 0.5).unwrap();
        assert_eq!((metrics.log_loss, metrics.brier), (2_000.0 / 3.0, 1.0 / 3.0));
    }

    fn predictions() -> impl Strategy<Value = Vec<(f64, bool)>> {
        // There are few distinct scores, so that some are equal.
        let score = prop_oneof![(-4i8..=4).prop_map(|step| f64::from(step) / 2.0), -40.0..40.0, Just(-0.0)];
        proptest::collection::vec((score, any::<bool>()), 1..40)
    }

    proptest! {
        #[test]
        fn agrees_with_the_definitions(predictions in predictions(), threshold in 0.05f64..0.95) {
            let metrics = evaluate(predictions.iter().copied(), threshold).unwrap();
            let count = |service: bool, predicted: bool| {
                predictions.iter().filter(|(z, y)| *y == service && (1.0 / (1.0 + (-z).exp()) >= threshold) == predicted).count() as u64
            };
            let (tp, fp, fne, tn) = (count(true, true), count(false, true), count(true, false), count(false, false));
            prop_assert_eq!(
                metrics.confusion,
                Confusion { true_negative: tn, false_positive: fp, false_negative: fne, true_positive: tp }
            );
            prop_assert_eq!(metrics.rides, tp + fp + fne + tn);
            if let (Some(precision), Some(recall), Some(f1)) = (metrics.precision, metrics.recall, metrics.f1) {
                let expected = if tp == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
                prop_assert!((f1 - expected).abs() < 1e-12);
            }

            let (mut won, mut pairs) = (0.0, 0.0);
            for (a, _) in predictions.iter().filter(|(_, y)| *y) {
                for (b, _) in predictions.iter().filter(|(_, y)| !*y) {
                    pairs += 1.0;
                    won += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                }
            }
            prop_assert_eq!(metrics.roc_auc, (pairs > 0.0).then(|| won / pairs));

            let mut scores: Vec<f64> = predictions.iter().map(|(z, _)| z + 0.0).collect();
            scores.sort_by(|a, b| b.total_cmp(a));
            scores.dedup();
            let (mut recall, mut area) = (0.0, 0.0);
            for score in scores {
                let positive = predictions.iter().filter(|(z, _)| *z >= score);
                let (n, right) = positive.fold((0.0, 0.0), |(n, right), (_, y)| (n + 1.0, right + f64::from(*y)));
                let here = right / (tp + fne) as f64;
                area += (here - recall) * right / n;
                recall = here;
            }
            match metrics.average_precision {
                Some(found) => prop_assert!((found - area).abs() < 1e-12),
                None => prop_assert_eq!(tp + fne, 0),
            }

            let n = predictions.len() as f64;
            let probability = |z: f64| 1.0 / (1.0 + (-z).exp());
            let log_loss: f64 = predictions.iter().map(|(z, y)| -probability(if *y { *z } else { -z }).ln()).sum();
            prop_assert!((metrics.log_loss - log_loss / n).abs() < 1e-9 * (1.0 + log_loss / n));
            let brier: f64 = predictions.iter().map(|(z, y)| (probability(*z) - f64::from(*y)).powi(2)).sum();
            prop_assert!((metrics.brier - brier / n).abs() < 1e-12);

            // Within the bins: variance of the probabilities minus twice their covariance with the label.
            let bin_of = |p: f64| metrics.calibration.iter().find(|bin| bin.from <= p && (p < bin.to || bin.to == 1.0)).unwrap();
            let within: f64 = predictions.iter().map(|(z, y)| {
                let (p, bin) = (probability(*z), bin_of(probability(*z)));
                let (p_off, y_off) = (p - bin.mean_probability, f64::from(*y) - bin.service_share);
                p_off * p_off - 2.0 * p_off * y_off
            }).sum();
            let parts = metrics.brier_decomposition.unwrap();
            prop_assert!((parts.within_bins - within / n).abs() < 1e-9, "{} is not {}", parts.within_bins, within / n);
            let gap: f64 = metrics.calibration.iter().map(|b| b.rides as f64 * (b.mean_probability - b.service_share).abs()).sum();
            prop_assert!((metrics.calibration_error.unwrap() - gap / n).abs() < 1e-12);
        }
    }
}
