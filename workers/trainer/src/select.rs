//! Penalty and threshold by cross-validation among the rides trained on; the rides held out for testing have no say.

use crate::{
    metrics::softplus,
    newton::{Cancel, Vector},
    rows::Rides,
    train::{Fit, FitError, Recipe, fit},
};
use common::{
    features::{FEATURE_COUNT, fold},
    model::{Candidate, Criterion, ThresholdChoice, logistic},
};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

/// Rides a cross-validation uses at most, evenly spread over all: with more of them the choice would be the same.
pub const SELECTION_RIDES_MAX: usize = 100_000;

/// What a cross-validation found.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossValidated {
    /// The penalty with the least log-loss; of equal ones the largest.
    pub alpha: f64,
    /// Every penalty that was tried.
    pub candidates: Vec<Candidate>,
    /// For each ride used, its log-odds by the model with the chosen penalty that was trained without its fold, and whether it
    /// ended in a service request. Empty when none of the candidates could be judged.
    pub predictions: Vec<(f64, bool)>,
    /// Rides used.
    pub rides: usize,
    /// With the chosen penalty, the models without a fold, by its number; empty when none of the candidates could be judged.
    pub without_fold: Vec<Fit>,
}

/// Tries every penalty on every fold, folds side by side.
///
/// # Errors
/// Only when cancelled: what cannot be fitted is no candidate.
pub fn cross_validate(
    rides: &Rides,
    alphas: &[f64],
    folds: u32,
    used: [bool; FEATURE_COUNT],
    threads: usize,
    cancel: &Cancel,
) -> Result<CrossValidated, FitError> {
    let stride = rides.len().div_ceil(SELECTION_RIDES_MAX).max(1);
    let sample: Vec<usize> = (0..rides.len()).step_by(stride).collect();
    // The penalty stands beside the sum of the losses: of fewer rides it is the same penalty when it is less.
    let scale = sample.len() as f64 / rides.len().max(1) as f64;
    let next = AtomicU32::new(0);
    // By fold: for each penalty the model without it and the log-odds of its rides.
    type Predicted = Vec<Option<(Fit, Vec<f64>)>>;
    let done: Mutex<Vec<Option<Predicted>>> = Mutex::new(vec![None; folds as usize]);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= folds || cancel.is_cancelled() {
                return;
            }
            let within = |index: &&usize| fold(rides.spread[**index], folds) == number;
            let (held_out, training): (Vec<&usize>, Vec<&usize>) = sample.iter().partition(within);
            let training = rides.only(training.into_iter().copied());
            let mut start: Option<Vector> = None;
            // From the largest on: each solution is next to the one before.
            let mut predicted: Predicted = alphas
                .iter()
                .rev()
                .map(|alpha| {
                    let recipe = Recipe { alpha: alpha * scale, used, centre: None, start, threads: 1, cancel };
                    let fitted: Fit = fit(&training, &recipe).ok()?;
                    start = Some(fitted.parameters);
                    let log_odds = held_out.iter().map(|index| fitted.log_odds(&rides.features[**index])).collect();
                    Some((fitted, log_odds))
                })
                .collect();
            predicted.reverse();
            done.lock().unwrap_or_else(PoisonError::into_inner)[number as usize] = Some(predicted);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, folds.max(1) as usize) {
            scope.spawn(work);
        }
    });
    if cancel.is_cancelled() {
        return Err(FitError::Cancelled);
    }
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let labels = |number: u32| {
        sample.iter().filter(move |i| fold(rides.spread[**i], folds) == number).map(|i| rides.service[*i])
    };
    let predictions_with = |candidate: usize| -> Option<Vec<(f64, bool)>> {
        let mut predictions = Vec::with_capacity(sample.len());
        for (number, predicted) in (0u32..).zip(&done) {
            let (_, log_odds) = predicted.as_ref()?.get(candidate)?.as_ref()?;
            predictions.extend(log_odds.iter().copied().zip(labels(number)));
        }
        Some(predictions).filter(|predictions| !predictions.is_empty())
    };
    let mean_loss = |predictions: &[(f64, bool)]| {
        let loss: f64 = predictions.iter().map(|(z, service)| softplus(if *service { -z } else { *z })).sum();
        loss / predictions.len() as f64
    };
    let candidates: Vec<Candidate> = alphas
        .iter()
        .enumerate()
        .map(|(index, alpha)| {
            let log_loss = predictions_with(index).map(|predictions| mean_loss(&predictions));
            Candidate { alpha: *alpha, log_loss: log_loss.filter(|loss| loss.is_finite()) }
        })
        .collect();
    let chosen = best(&candidates);
    let predictions = chosen.and_then(predictions_with).unwrap_or_default();
    // Where nothing can be judged, the one in the middle.
    let alpha = alphas.get(chosen.unwrap_or(alphas.len() / 2)).copied().unwrap_or(1.0);
    let fitted = |predicted: &Option<Predicted>| Some(predicted.as_ref()?.get(chosen?)?.as_ref()?.0.clone());
    let without_fold = done.iter().map(fitted).collect::<Option<Vec<Fit>>>().unwrap_or_default();
    Ok(CrossValidated { alpha, candidates, predictions, rides: sample.len(), without_fold })
}

/// The candidate with the least log-loss; of equal ones the last.
pub fn best(candidates: &[Candidate]) -> Option<usize> {
    let judged = candidates.iter().enumerate().filter_map(|(index, candidate)| Some((index, candidate.log_loss?)));
    judged.rev().min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

/// What comes of a threshold.
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
        let said = self.true_positive + self.false_positive;
        (said > 0).then(|| self.true_positive as f64 / said as f64)
    }

    fn f_measure(&self, beta: f64) -> Option<f64> {
        let (tp, fp, missed) =
            (self.true_positive as f64, self.false_positive as f64, (self.positives - self.true_positive) as f64);
        let weighted = (1.0 + beta * beta) * tp + beta * beta * missed + fp;
        (weighted > 0.0).then(|| (1.0 + beta * beta) * tp / weighted)
    }

    /// Whether the criterion's demand is met, and what is to be as large as possible.
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

    /// What the criterion comes to, as told to people.
    fn value(&self, criterion: Criterion) -> Option<f64> {
        match criterion {
            Criterion::PrecisionAtRecall { .. } => self.precision(),
            Criterion::RecallAtPrecision { .. } => self.recall(),
            Criterion::Cost { .. } => self.worth(criterion).map(|(_, worth)| 0.0 - worth),
            _ => self.worth(criterion).map(|(_, worth)| worth),
        }
    }
}

/// The probability from which on the decision is service, chosen on these predictions (log-odds and truth), half-way between two of
/// them. Of equally good ones the nearest to one half. Without predictions, one half.
pub fn threshold(criterion: Criterion, mut predictions: Vec<(f64, bool)>) -> (f64, ThresholdChoice) {
    predictions.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let positives = predictions.iter().filter(|(_, service)| *service).count() as u64;
    let negatives = predictions.len() as u64 - positives;
    let mut cut = Cut { true_positive: 0, false_positive: 0, positives, negatives };
    let mut best: Option<((bool, f64), f64, Cut)> = None;
    let mut consider = |above: f64, below: f64, cut: Cut| {
        let half_way = f64::midpoint(above, below);
        // Between two neighbours of the same probability there is nothing.
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
        let count = |service: bool, said: bool| {
            predictions.iter().filter(|(z, y)| *y == service && (logistic(*z) >= threshold) >= said).count() as u64
        };
        Cut {
            true_positive: count(true, true),
            false_positive: count(false, true),
            positives: count(true, false),
            negatives: count(false, false),
        }
    }

    /// The cheapest threshold for calibrated predictions is cost of a false alarm over that of both mistakes.
    #[test]
    fn known_thresholds() {
        // At each probability p of 0.05, 0.15, … a share p of 100 rides with service.
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
        // Below 0.3: 5 + 15 + 25 of 300 rides missed; above: the others' 65 + 55 + … + 5 of 700 said in vain.
        assert_eq!((at, choice.value), (0.3, Some(1.0 - (45.0 + 245.0) / 1000.0)));
        assert_eq!(threshold(Criterion::F1, Vec::new()).0, 0.5);
    }

    proptest! {
        /// No other threshold is better by the criterion, and the value is what the threshold gives.
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

    #[test]
    fn of_equal_candidates_the_largest_penalty_is_taken() {
        let candidate = |alpha, log_loss| Candidate { alpha, log_loss };
        assert_eq!(best(&[candidate(1.0, Some(0.5)), candidate(2.0, Some(0.5)), candidate(3.0, None)]), Some(1));
        assert_eq!(best(&[candidate(1.0, Some(0.4)), candidate(2.0, Some(0.5))]), Some(0));
        assert_eq!(best(&[candidate(1.0, None)]), None);
    }
}
