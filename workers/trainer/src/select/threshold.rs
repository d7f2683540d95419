//! The threshold is chosen by a criterion.

use common::model::{Criterion, ThresholdChoice, logistic};

/// The outcome of a threshold.
#[derive(Debug, Clone, Copy)]
struct Cut {
    true_positive: u64,
    false_positive: u64,
    positives: u64,
    negatives: u64,
}

impl Cut {
    fn recall(&self) -> Option<f64> {
        (self.positives > 0).then(|| self.true_positive as f64 / self.positives as f64)
    }

    fn precision(&self) -> Option<f64> {
        let predicted = self.true_positive + self.false_positive;
        (predicted > 0).then(|| self.true_positive as f64 / predicted as f64)
    }

    fn f_measure(&self, beta: f64) -> Option<f64> {
        let (tp, fp, missed) =
            (self.true_positive as f64, self.false_positive as f64, (self.positives - self.true_positive) as f64);
        let weighted = (1.0 + beta * beta) * tp + beta * beta * missed + fp;
        (weighted > 0.0).then(|| (1.0 + beta * beta) * tp / weighted)
    }

    /// Returns whether the constraint of the criterion is met, and the quantity to maximise.
    fn worth(&self, criterion: Criterion) -> Option<(bool, f64)> {
        let all = (self.positives + self.negatives) as f64;
        let correct = self.true_positive + self.negatives - self.false_positive;
        match criterion {
            Criterion::Fixed { .. } | Criterion::Accuracy => Some((true, correct as f64 / all)),
            Criterion::F1 => Some((true, self.f_measure(1.0)?)),
            Criterion::Fbeta { beta } => Some((true, self.f_measure(beta)?)),
            Criterion::PrecisionAtRecall { recall_min } => match self.recall()? {
                recall if recall >= recall_min => Some((true, self.precision()?)),
                recall => Some((false, recall)),
            },
            Criterion::RecallAtPrecision { precision_min } => match self.precision()? {
                precision if precision >= precision_min => Some((true, self.recall()?)),
                precision => Some((false, precision)),
            },
            Criterion::Cost { false_positive, false_negative } => {
                let missed = (self.positives - self.true_positive) as f64;
                Some((true, -(false_positive * self.false_positive as f64 + false_negative * missed) / all))
            }
        }
    }

    /// Returns the value of the criterion, for people.
    fn value(&self, criterion: Criterion) -> Option<f64> {
        match criterion {
            Criterion::PrecisionAtRecall { .. } => self.precision(),
            Criterion::RecallAtPrecision { .. } => self.recall(),
            Criterion::Cost { .. } => self.worth(criterion).map(|(_, worth)| 0.0 - worth),
            _ => self.worth(criterion).map(|(_, worth)| worth),
        }
    }
}

/// Returns the probability from which on a ride counts as a service request, chosen on these predictions (log-odds and label). It lies
/// half-way between two predictions; among equally good ones, the nearest to one half. Without predictions, one half.
pub fn threshold(criterion: Criterion, mut predictions: Vec<(f64, bool)>) -> (f64, ThresholdChoice) {
    predictions.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let positives = predictions.iter().filter(|(_, service)| *service).count() as u64;
    let negatives = predictions.len() as u64 - positives;
    let mut cut = Cut { true_positive: 0, false_positive: 0, positives, negatives };
    let mut best: Option<((bool, f64), f64, Cut)> = None;
    let mut consider = |above: f64, below: f64, cut: Cut| {
        let half_way = f64::midpoint(above, below);
        // Between two equal probabilities there is no other.
        let at = if half_way > below { half_way } else { above };
        let Some(worth) = cut.worth(criterion) else { return };
        let better = best.as_ref().is_none_or(|(known, known_at, _)| match worth.partial_cmp(known) {
            Some(std::cmp::Ordering::Equal) => (at - 0.5).abs() < (known_at - 0.5).abs(),
            ordering => ordering == Some(std::cmp::Ordering::Greater),
        });
        if better {
            best = Some((worth, at, cut));
        }
    };
    if let Criterion::Fixed { probability } = criterion {
        for (_, service) in predictions.iter().filter(|(z, _)| logistic(*z) >= probability) {
            *(if *service { &mut cut.true_positive } else { &mut cut.false_positive }) += 1;
        }
        let value = (positives + negatives > 0).then(|| cut.value(criterion)).flatten();
        return (probability, ThresholdChoice { criterion, value, reached: true });
    }
    if !predictions.is_empty() {
        let first = predictions.first().map_or(1.0, |(z, _)| logistic(*z));
        consider(1.0, first, cut);
    }
    let mut rides = predictions.iter().peekable();
    while let Some((log_odds, service)) = rides.next() {
        *(if *service { &mut cut.true_positive } else { &mut cut.false_positive }) += 1;
        let here = logistic(*log_odds);
        let below = rides.peek().map_or(0.0, |(next, _)| logistic(*next));
        if below < here || rides.peek().is_none() {
            consider(here, below, cut);
        }
    }
    match best {
        Some(((reached, _), at, cut)) => {
            (at.clamp(0.0, 1.0), ThresholdChoice { criterion, value: cut.value(criterion), reached })
        }
        None => (0.5, ThresholdChoice { criterion, value: None, reached: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CRITERIA: [Criterion; 6] = [
        Criterion::Accuracy,
        Criterion::F1,
        Criterion::Fbeta { beta: 2.0 },
        Criterion::PrecisionAtRecall { recall_min: 0.8 },
        Criterion::RecallAtPrecision { precision_min: 0.7 },
        Criterion::Cost { false_positive: 1.0, false_negative: 5.0 },
    ];

    fn cut_at(predictions: &[(f64, bool)], threshold: f64) -> Cut {
        let count = |service: bool, predicted: bool| {
            predictions.iter().filter(|(z, y)| *y == service && (logistic(*z) >= threshold) >= predicted).count() as u64
        };
        Cut {
            true_positive: count(true, true),
            false_positive: count(false, true),
            positives: count(true, false),
            negatives: count(false, false),
        }
    }

    /// For calibrated predictions, the cheapest threshold is the cost of a false positive over the sum of both costs.
    #[test]
    fn known_thresholds() {
        // At each probability p of 0.05, 0.15, …, a share p of 100 rides ends in a service request.
        let log_odds = |p: f64| (p / (1.0 - p)).ln();
        let calibrated: Vec<(f64, bool)> = (0..10)
            .flat_map(|tenth| {
                let p = f64::from(tenth) / 10.0 + 0.05;
                (0..100).map(move |ride| (log_odds(p), f64::from(ride) + 0.5 < p * 100.0))
            })
            .collect();
        let chosen = |criterion| threshold(criterion, calibrated.clone());
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
        close(chosen(Criterion::Accuracy).0, 0.5);
        close(chosen(Criterion::Cost { false_positive: 1.0, false_negative: 4.0 }).0, 0.2);
        close(chosen(Criterion::Cost { false_positive: 9.0, false_negative: 1.0 }).0, 0.9);
        let (at, choice) = chosen(Criterion::RecallAtPrecision { precision_min: 0.9 });
        close(at, 0.8);
        assert_eq!((choice.reached, choice.value), (true, Some(180.0 / 500.0)));
        let (at, choice) = chosen(Criterion::RecallAtPrecision { precision_min: 0.97 });
        close(at, 0.9);
        assert_eq!((choice.reached, choice.value), (false, Some(95.0 / 500.0)));
        let (at, choice) = chosen(Criterion::Fixed { probability: 0.3 });
        // Below 0.3, 5 + 15 + 25 of 300 rides are false negatives; above, 65 + 55 + … + 5 of 700 are false positives.
        assert_eq!((at, choice.value), (0.3, Some(1.0 - (45.0 + 245.0) / 1000.0)));
        assert_eq!(threshold(Criterion::F1, Vec::new()).0, 0.5);
    }

    proptest! {
        /// No other threshold is better by the criterion, and the value belongs to the threshold.
        #[test]
        fn no_threshold_is_better(
            predictions in proptest::collection::vec(((-8i8..=8).prop_map(|z| f64::from(z) / 2.0), any::<bool>()), 1..60)
        ) {
            for criterion in CRITERIA {
                let (at, choice) = threshold(criterion, predictions.clone());
                let chosen = cut_at(&predictions, at);
                prop_assert_eq!(choice.value, if choice.value.is_some() { chosen.value(criterion) } else { None });
                for other in (0..=400).map(|step| f64::from(step) / 400.0) {
                    let other = cut_at(&predictions, other).worth(criterion);
                    prop_assert!(other.is_none() || other <= chosen.worth(criterion), "{criterion:?} {at}");
                }
            }
        }
    }
}
