//! Rides become one artefact: selection, fit, evidence, metrics; pure, depends on [`data`](crate::data), [`fit`](crate::fit),
//! [`select`](crate::select) and [`evaluate`](crate::evaluate).

use crate::{
    data::{Plan, TrainingData, rows::Rides},
    evaluate::{
        bootstrap::{self, Ranking},
        histogram::histograms,
        inference::{self, Nested},
        metrics,
    },
    fit::{Cancel, Features, Fit, FitError, Scaler},
    select::{SelectedModel, best},
};
use common::{
    features::{FEATURE_COUNT, FEATURES, FeatureSet},
    model::{
        Candidate, Coefficient, Evidence, Gain, HeldOut, Histogram, Interval, Metrics, Model, Quality, Selection,
        TrainingSettings, Warning, WarningCode,
    },
    schema::Described,
};

/// Why the datasets give no model. The champion, if there is one, stays.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No ride with a label has weather.
    #[error("none of {labelled} labelled rides has weather")]
    NoWeather {
        /// Rides with a label.
        labelled: u64,
    },
    /// There are too few rides with a label and weather.
    #[error("{trainable} rides have a label and weather ({rides} rides in all): expected at least {rides_min}")]
    TooFewRides {
        /// Rides with a label and weather, each counted once.
        trainable: u64,
        /// Rides of all datasets.
        rides: u64,
        /// Minimum by the settings.
        rides_min: u64,
    },
    /// The rides would not fit into the memory that this process may use.
    #[error(
        "{trainable} rides have a label and weather: at most {rides_max} fit (trainer.rides_max; up to 100 bytes each)"
    )]
    TooManyRides {
        /// Rides with a label and weather, duplicates included.
        trainable: u64,
        /// Maximum by the settings.
        rides_max: u64,
    },
    /// See [`FitError`].
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The prediction for a ride is not finite.
    #[error("the metrics of the model are not finite: a held-out ride has values too large to compute with")]
    MetricsOutOfRange,
}

/// Reason of [`Refusal::TooManyRides`].
pub const TOO_MANY_RIDES: &str = "too_many_rides";

impl Refusal {
    /// Stable code, as in [`common::message::ModelRejected::reason`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoWeather { .. } => "no_weather",
            Self::TooFewRides { .. } => "too_few_rides",
            Self::TooManyRides { .. } => TOO_MANY_RIDES,
            Self::Fit(FitError::OneClassOnly { .. }) => "one_class_only",
            Self::Fit(FitError::NotConverged { .. }) => "not_converged",
            Self::Fit(FitError::Cancelled) => "cancelled",
            Self::Fit(FitError::OutOfRange(_)) | Self::MetricsOutOfRange => "feature_out_of_range",
        }
    }
}

/// The global model, with the fits that breed models are derived from.
#[derive(Debug, Clone)]
pub struct GlobalModel {
    /// The artefact.
    pub model: Model,
    /// The fit that the artefact describes.
    pub fit: Fit,
    /// The models without one fold of the cross-validation, with the chosen penalty; empty without a cross-validation.
    pub without_fold: Vec<Fit>,
}

/// Trains the global model.
///
/// # Errors
/// See [`Refusal`].
pub fn build(plan: &Plan, data: &TrainingData, cancel: &Cancel) -> Result<GlobalModel, Refusal> {
    let TrainingData { train: rides, test, counts, .. } = data;
    let settings = &plan.settings;
    let trainable = counts.train + counts.test;
    if trainable == 0 && counts.without_weather > 0 {
        return Err(Refusal::NoWeather { labelled: counts.without_weather });
    }
    if trainable < settings.rides_min || rides.is_empty() {
        return Err(Refusal::TooFewRides { trainable, rides: counts.rides, rides_min: settings.rides_min });
    }
    let selected = SelectedModel::of(rides, settings, settings.features, cancel)?;
    let (fit, threshold) = (&selected.fit, selected.threshold);
    let nested = Nested::fit(rides, settings.features, fit, cancel)?;
    let held_out = held_out(rides, test, settings, fit, cancel)?;
    let mut warnings = inference::warnings(rides, fit, settings.features.used(), &nested, cancel);
    warnings.extend(selected.selection.as_ref().into_iter().flat_map(warnings_of));
    let strong_penalty = strong_penalty(inference::penalty_share(fit, selected.alpha));
    let has_errors = strong_penalty.is_none();
    warnings.extend(strong_penalty);
    let (histograms, predicted) = histograms(rides, fit);
    let (of_train, of_test) = (quality(fit, rides, threshold), quality(fit, test, threshold));
    let finite = |metrics: &Metrics| metrics.log_loss.is_finite() && metrics.brier.is_finite();
    let of_train = of_train.filter(finite).ok_or(Refusal::MetricsOutOfRange)?;
    if of_test.as_ref().is_some_and(|metrics| !finite(metrics)) {
        return Err(Refusal::MetricsOutOfRange);
    }
    if cancel.is_cancelled() {
        return Err(FitError::Cancelled.into());
    }
    let model = Model {
        schema: Model::SCHEMA.name.to_owned(),
        model: plan.model.clone(),
        model_id: plan.model_id.clone(),
        trainer: env!("CARGO_PKG_VERSION").to_owned(),
        settings: settings.clone(),
        datasets: plan.datasets.clone(),
        counts: *counts,
        breed: None,
        prior_mean: None,
        alpha: selected.alpha,
        intercept: fit.intercept,
        intercept_standard_error: inference::standard_error(fit, FEATURE_COUNT).filter(|_| has_errors),
        intercept_standardised: fit.parameters[FEATURE_COUNT],
        coefficients: coefficients(fit, &fit.scaler, settings.features.used(), &histograms, has_errors),
        covariance: Some(covariance(rides, &fit.scaler, settings.features.used())),
        threshold,
        gradient_norm: fit.gradient_norm,
        selection: selected.selection.clone(),
        evidence: Some(Evidence { any: nested.any(), weather: nested.weather(), held_out }),
        warnings,
        predicted,
        train: of_train,
        test: of_test,
    };
    let SelectedModel { fit, without_fold, .. } = selected;
    Ok(GlobalModel { model, fit, without_fold })
}

/// Returns a warning if the penalty and not the rides determines a weight; see [`inference::penalty_share`].
fn strong_penalty(share: f64) -> Option<Warning> {
    if share <= inference::PENALTY_SHARE_MAX {
        return None;
    }
    // Above a hundred times the exact figure means nothing: the rides do not determine combined features at all.
    let size = if share < 100.0 { format!("is {:.0} %", share * 100.0) } else { "is a multiple".to_owned() };
    let why = format!(
        "the penalty {size} of the information that the rides give about a weight: it shrinks the weights far towards 0, and there \
         are no standard errors"
    );
    Some(Warning { code: WarningCode::StrongPenalty, why })
}

fn warnings_of(selection: &Selection) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let best = best(&selection.candidates);
    if let Some(Candidate { alpha, .. }) = best.filter(|best| *best > 0).and_then(|best| selection.candidates.get(best))
        && best == Some(selection.candidates.len() - 1)
    {
        let why = format!("the largest penalty tried ({alpha}) was the best: the features predict little");
        warnings.push(Warning { code: WarningCode::LargestPenalty, why });
    }
    if !selection.threshold.reached {
        let why = "no threshold meets the constraint of its criterion; the nearest one was chosen".to_owned();
        warnings.push(Warning { code: WarningCode::ThresholdUnreached, why });
    }
    warnings
}

/// Describes the features used. `scaler` is that of the rides trained on.
pub(crate) fn coefficients(
    fit: &Fit,
    scaler: &Scaler,
    used: [bool; FEATURE_COUNT],
    histograms: &[Histogram; FEATURE_COUNT],
    has_errors: bool,
) -> Vec<Coefficient> {
    let mut inference = inference::inference(fit);
    let coefficient = |j: usize| Coefficient {
        feature: FEATURES[j].name.to_owned(),
        unit: FEATURES[j].unit.to_owned(),
        per_unit: fit.per_unit[j],
        standardised: fit.per_unit[j] * scaler.std_dev[j],
        mean: scaler.mean[j],
        std_dev: scaler.std_dev[j],
        min: scaler.min[j],
        max: scaler.max[j],
        inference: inference[j].take().filter(|_| has_errors),
        histogram: Some(histograms[j].clone()),
    };
    (0..FEATURE_COUNT).filter(|j| used[*j]).map(coefficient).collect()
}

/// Returns the covariance of the features used, in the order of [`coefficients`]. `scaler` is that of these rides.
pub(crate) fn covariance(rides: &Rides, scaler: &Scaler, used: [bool; FEATURE_COUNT]) -> Vec<Vec<f64>> {
    let of_used = |row: Features| row.into_iter().zip(used).filter(|(_, used)| *used).map(|(value, _)| value).collect();
    let rows = scaler.covariance(rides).into_iter().zip(used).filter(|(_, used)| *used);
    rows.map(|(row, _)| of_used(row)).collect()
}

/// Evaluates a fit on these rides; `None` if there are none.
pub(crate) fn quality(fit: &Fit, rides: &Rides, threshold: f64) -> Option<Metrics> {
    let predictions = rides.features.iter().map(|row| fit.log_odds(row)).zip(rides.service.iter().copied());
    metrics::evaluate(predictions, threshold)
}

/// Compares the model on held-out rides with one of mileage only and with no features; `None` unless both classes are held out.
fn held_out(
    rides: &Rides,
    test: &Rides,
    settings: &TrainingSettings,
    fit: &Fit,
    cancel: &Cancel,
) -> Result<Option<HeldOut>, FitError> {
    if test.services() == 0 || test.services() == test.len() {
        return Ok(None);
    }
    let ranking = |fit: &Fit| {
        let log_odds: Vec<f64> = test.features.iter().map(|row: &Features| fit.log_odds(row)).collect();
        Ranking::new(&log_odds, &test.service)
    };
    let mileage = match settings.features {
        FeatureSet::All => Some(ranking(&SelectedModel::of(rides, settings, FeatureSet::Mileage, cancel)?.fit)),
        FeatureSet::Mileage | FeatureSet::Weather => None,
    };
    let model = ranking(fit);
    let share = rides.services() as f64 / rides.len() as f64;
    let base_rate = Ranking::new(&vec![(share / (1.0 - share)).ln(); test.len()], &test.service);
    let figures = |weights: &[u32]| {
        let (loss, auc) = (model.mean_loss(weights), model.roc_auc(weights, &test.service)?);
        let base = base_rate.mean_loss(weights);
        let (other_loss, other_auc) = match &mileage {
            Some(mileage) => (mileage.mean_loss(weights), mileage.roc_auc(weights, &test.service)?),
            None => (loss, auc),
        };
        Some([loss, auc, base - loss, auc - 0.5, other_loss, other_auc, other_loss - loss, auc - other_auc])
    };
    let intervals: Option<[Interval; 8]> = bootstrap::intervals(test.len(), cancel, figures);
    if cancel.is_cancelled() {
        return Err(FitError::Cancelled);
    }
    let Some([log_loss, roc_auc, over_base, over_chance, of_mileage, auc_of_mileage, over_mileage, auc_over_mileage]) =
        intervals
    else {
        return Ok(None);
    };
    let has_mileage = mileage.is_some();
    Ok(Some(HeldOut {
        rides: test.len() as u64,
        bootstraps: bootstrap::resamples(test.len()),
        base_rate_log_loss: base_rate.mean_loss(&vec![1; test.len()]),
        model: Quality { log_loss, roc_auc },
        over_base_rate: Gain { log_loss: over_base, roc_auc: over_chance },
        mileage: has_mileage.then_some(Quality { log_loss: of_mileage, roc_auc: auc_of_mileage }),
        over_mileage: has_mileage.then_some(Gain { log_loss: over_mileage, roc_auc: auc_over_mileage }),
    }))
}

#[cfg(test)]
mod tests;
