//! The penalty is chosen by cross-validation among the rides to train on; held-out rides are never used.

use crate::{
    data::rows::Rides,
    fit::{Cancel, Fit, FitError, Recipe, Vector, fit, log_loss},
};
use common::{
    features::{FEATURE_COUNT, fold},
    model::Candidate,
};
use rayon::prelude::*;

/// Maximum number of rides in a cross-validation, evenly spread over all: more of them would not change the choice.
pub const SELECTION_RIDES_MAX: usize = 100_000;

/// The result of a cross-validation.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossValidation {
    /// The penalty with the least log-loss; among equal ones the largest.
    pub alpha: f64,
    /// Every penalty that was tried.
    pub candidates: Vec<Candidate>,
    /// For each ride used, its log-odds by the model with the chosen penalty that was trained without the fold of the ride, and its
    /// label. Empty if no candidate could be evaluated.
    pub predictions: Vec<(f64, bool)>,
    /// Number of rides used.
    pub rides: usize,
    /// The models with the chosen penalty, each trained without one fold, by the number of that fold. Empty if no candidate could be
    /// evaluated.
    pub without_fold: Vec<Fit>,
}

/// Evaluates every penalty on every fold.
///
/// # Errors
/// Fails only if cancelled: a penalty with which no model can be fitted has no log-loss.
pub fn cross_validate(
    rides: &Rides,
    alphas: &[f64],
    folds: u32,
    used: [bool; FEATURE_COUNT],
    cancel: &Cancel,
) -> Result<CrossValidation, FitError> {
    let stride = rides.len().div_ceil(SELECTION_RIDES_MAX).max(1);
    let folds = Folds { rides, sample: (0..rides.len()).step_by(stride).collect(), count: folds };
    let numbers: Vec<u32> = (0..folds.count).collect();
    let models: Vec<FoldModels> =
        numbers.par_iter().map(|number| folds.models_without(*number, alphas, used, cancel)).collect();
    if cancel.is_cancelled() {
        return Err(FitError::Cancelled);
    }
    let candidates: Vec<Candidate> = alphas
        .iter()
        .enumerate()
        .map(|(index, alpha)| {
            let log_loss = folds.predictions(&models, index).map(|predictions| {
                predictions.iter().map(|(z, service)| log_loss(*z, *service)).sum::<f64>() / predictions.len() as f64
            });
            Candidate { alpha: *alpha, log_loss: log_loss.filter(|loss| loss.is_finite()) }
        })
        .collect();
    let chosen = best(&candidates);
    let predictions = chosen.and_then(|chosen| folds.predictions(&models, chosen)).unwrap_or_default();
    // If no candidate could be evaluated, the one in the middle.
    let alpha = alphas.get(chosen.unwrap_or(alphas.len() / 2)).copied().unwrap_or(1.0);
    let model = |models: FoldModels| Some(models.into_iter().nth(chosen?)??.0);
    let without_fold = models.into_iter().map(model).collect::<Option<Vec<Fit>>>().unwrap_or_default();
    Ok(CrossValidation { alpha, candidates, predictions, rides: folds.sample.len(), without_fold })
}

/// For each penalty the model trained without a fold, and its log-odds for the rides of that fold.
type FoldModels = Vec<Option<(Fit, Vec<f64>)>>;

/// A sample of rides, divided into folds.
struct Folds<'a> {
    rides: &'a Rides,
    sample: Vec<usize>,
    count: u32,
}

impl Folds<'_> {
    fn models_without(&self, number: u32, alphas: &[f64], used: [bool; FEATURE_COUNT], cancel: &Cancel) -> FoldModels {
        let (held_out, training): (Vec<usize>, Vec<usize>) =
            self.sample.iter().partition(|index| self.fold_of(**index) == number);
        let training = self.rides.only(training.into_iter());
        // The penalty stands beside the sum of the losses: it shrinks with the number of rides.
        let scale = self.sample.len() as f64 / self.rides.len().max(1) as f64;
        let mut start: Option<Vector> = None;
        // From the largest penalty on: each solution is near the one before.
        let mut models: FoldModels = alphas
            .iter()
            .rev()
            .map(|alpha| {
                let recipe = Recipe { alpha: alpha * scale, used, prior_mean: None, start, cancel };
                let model: Fit = fit(&training, &recipe).ok()?;
                start = Some(model.parameters);
                let log_odds = held_out.iter().map(|index| model.log_odds(&self.rides.features[*index])).collect();
                Some((model, log_odds))
            })
            .collect();
        models.reverse();
        models
    }

    fn fold_of(&self, index: usize) -> u32 {
        fold(self.rides.spread[index], self.count)
    }

    /// Returns log-odds and label of each ride with one penalty; `None` if a model is missing or there are no rides.
    fn predictions(&self, models: &[FoldModels], candidate: usize) -> Option<Vec<(f64, bool)>> {
        let mut predictions = Vec::with_capacity(self.sample.len());
        for (number, models) in (0u32..).zip(models) {
            let (_, log_odds) = models.get(candidate)?.as_ref()?;
            let of_fold = self.sample.iter().filter(|index| self.fold_of(**index) == number);
            predictions.extend(log_odds.iter().copied().zip(of_fold.map(|index| self.rides.service[*index])));
        }
        Some(predictions).filter(|predictions| !predictions.is_empty())
    }
}

/// Returns the index of the candidate with the least log-loss; among equal ones the last.
pub fn best(candidates: &[Candidate]) -> Option<usize> {
    let with_loss = candidates.iter().enumerate().filter_map(|(index, candidate)| Some((index, candidate.log_loss?)));
    with_loss.rev().min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_candidates_the_largest_penalty_is_chosen() {
        let candidate = |alpha, log_loss| Candidate { alpha, log_loss };
        assert_eq!(best(&[candidate(1.0, Some(0.5)), candidate(2.0, Some(0.5)), candidate(3.0, None)]), Some(1));
        assert_eq!(best(&[candidate(1.0, Some(0.4)), candidate(2.0, Some(0.5))]), Some(0));
        assert_eq!(best(&[candidate(1.0, None)]), None);
    }
}
