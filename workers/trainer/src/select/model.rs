//! A model with the penalty and the threshold that were chosen for it.

use super::{
    cross_validation::{CrossValidation, cross_validate},
    threshold::threshold,
};
use crate::{
    data::rows::Rides,
    fit::{Cancel, Fit, FitError, Recipe, fit},
};
use common::{
    features::FeatureSet,
    model::{Criterion, Selection, TrainingSettings},
};

/// A model with the penalty and the threshold that were chosen for it.
pub(crate) struct SelectedModel {
    /// The L2 penalty.
    pub(crate) alpha: f64,
    /// Probability from which on a ride counts as a service request.
    pub(crate) threshold: f64,
    /// Absent if the settings left nothing to choose.
    pub(crate) selection: Option<Selection>,
    pub(crate) fit: Fit,
    /// The models without one fold of the cross-validation, with the chosen penalty; empty without a cross-validation.
    pub(crate) without_fold: Vec<Fit>,
}

impl SelectedModel {
    /// Chooses penalty and threshold by the settings, then fits the model on all rides.
    pub(crate) fn of(
        rides: &Rides,
        settings: &TrainingSettings,
        features: FeatureSet,
        cancel: &Cancel,
    ) -> Result<Self, FitError> {
        let used = features.used();
        let (alpha, threshold, selection, without_fold) = if let Criterion::Fixed { probability } = settings.threshold
            && let [alpha] = settings.alphas[..]
            && settings.breed_rides_min.is_none()
        {
            (alpha, probability, None, Vec::new())
        } else {
            let services = rides.services();
            if services == 0 || services == rides.len() {
                return Err(FitError::OneClassOnly { rides: rides.len(), services });
            }
            let CrossValidation { alpha, candidates, predictions, rides, without_fold } =
                cross_validate(rides, &settings.alphas, settings.folds, used, cancel)?;
            let (probability, threshold) = threshold(settings.threshold, predictions);
            let selection = Selection { folds: settings.folds, rides: rides as u64, candidates, threshold };
            (alpha, probability, Some(selection), without_fold)
        };
        let recipe = Recipe { alpha, used, prior_mean: None, start: None, cancel };
        Ok(Self { alpha, threshold, selection, fit: fit(rides, &recipe)?, without_fold })
    }
}
