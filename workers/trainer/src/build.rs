//! From rides to an artefact: selection, fit, evidence, metrics.

use crate::{
    bootstrap::{self, Ranked},
    histogram::histograms,
    inference::{self, Nested},
    load::Loaded,
    metrics,
    newton::{Cancel, Features},
    plan::Plan,
    rows::Rides,
    select::{self, CrossValidated},
    train::{Fit, FitError, Recipe, Scaler, fit},
};
use common::{
    features::{FEATURE_COUNT, FEATURES, FeatureSet},
    model::{
        Candidate, Coefficient, Criterion, Evidence, Gain, HeldOut, Histogram, Interval, MODEL_SCHEMA, Metrics, Model,
        Quality, Selection, TrainingSettings, Warning, WarningCode,
    },
};

/// Why no model comes of the present datasets. The champion, if there is one, stays.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There are rides with a label, but none of them has weather.
    #[error("none of {labelled} labelled rides has weather")]
    NoWeather {
        /// Rides with a label.
        labelled: u64,
    },
    /// Too little to learn from.
    #[error("{trainable} rides have a label and weather ({rides} rides in all): expected at least {rides_min}")]
    TooFewRides {
        /// Rides with a label and weather, each counted once.
        trainable: u64,
        /// Rides of all datasets.
        rides: u64,
        /// From the settings.
        rides_min: u64,
    },
    /// More than the memory this process may use.
    #[error(
        "{trainable} rides have a label and weather: at most {rides_max} fit (trainer.rides_max; up to 100 bytes each)"
    )]
    TooManyRides {
        /// Rides with a label and weather, duplicates included.
        trainable: u64,
        /// From the settings.
        rides_max: u64,
    },
    /// See [`FitError`].
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A held-out ride is so far from the others that its prediction is no number.
    #[error("the metrics of the model are no numbers: a held-out ride has values too large to compute with")]
    MetricsOutOfRange,
}

/// See [`Refusal::TooManyRides`].
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

/// A model with what others follow from it.
#[derive(Debug, Clone)]
pub struct Built {
    /// The artefact.
    pub model: Model,
    /// What it was made of.
    pub fit: Fit,
    /// The models without a fold of the cross-validation, with the chosen penalty; empty when there was none.
    pub without_fold: Vec<Fit>,
}

/// Trains the model of all rides.
///
/// # Errors
/// When these rides make no model.
pub fn build(plan: &Plan, loaded: &Loaded, threads: usize, cancel: &Cancel) -> Result<Built, Refusal> {
    let Loaded { train: rides, test, counts, .. } = loaded;
    let settings = &plan.settings;
    let trainable = counts.train + counts.test;
    if trainable == 0 && counts.without_weather > 0 {
        return Err(Refusal::NoWeather { labelled: counts.without_weather });
    }
    if trainable < settings.rides_min || rides.is_empty() {
        return Err(Refusal::TooFewRides { trainable, rides: counts.rides, rides_min: settings.rides_min });
    }
    let selected = Selected::of(rides, settings, settings.features, threads, cancel)?;
    let (fit, threshold) = (&selected.fit, selected.threshold);
    let nested = Nested::fit(rides, settings.features, fit, threads, cancel)?;
    let held_out = held_out(rides, test, settings, fit, threads, cancel)?;
    let mut warnings = inference::warnings(rides, fit, settings.features.used(), &nested, threads, cancel);
    warnings.extend(selected.selection.as_ref().into_iter().flat_map(warnings_of));
    let share = inference::penalty_share(fit, selected.alpha);
    let sure = share <= inference::PENALTY_SHARE_MAX;
    if !sure {
        // Above a hundred times, the figure means nothing more: the rides do not determine combined features at all.
        let size = if share < 100.0 { format!("is {:.0} %", share * 100.0) } else { "is a multiple".to_owned() };
        let why = format!(
            "the penalty {size} of what the rides tell of a weight: weights are drawn far to 0, and no standard errors are given"
        );
        warnings.push(Warning { code: WarningCode::StrongPenalty, why });
    }
    let (histograms, predicted) = histograms(rides, fit, threads);
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
        schema: MODEL_SCHEMA.to_owned(),
        model: plan.model.clone(),
        model_id: plan.model_id.clone(),
        trainer: env!("CARGO_PKG_VERSION").to_owned(),
        settings: settings.clone(),
        datasets: plan.datasets.clone(),
        counts: *counts,
        breed: None,
        centre: None,
        alpha: selected.alpha,
        intercept: fit.intercept,
        intercept_standard_error: inference::standard_error(fit, FEATURE_COUNT).filter(|_| sure),
        intercept_standardised: fit.parameters[FEATURE_COUNT],
        coefficients: coefficients(fit, &fit.scaler, settings.features.used(), &histograms, sure),
        threshold,
        gradient_norm: fit.gradient_norm,
        selection: selected.selection.clone(),
        evidence: Some(Evidence { any: nested.any(), weather: nested.weather(), held_out }),
        warnings,
        predicted,
        train: of_train,
        test: of_test,
    };
    let Selected { fit, without_fold, .. } = selected;
    Ok(Built { model, fit, without_fold })
}

/// A fit with the penalty and the threshold that were chosen for it.
struct Selected {
    alpha: f64,
    threshold: f64,
    selection: Option<Selection>,
    fit: Fit,
    without_fold: Vec<Fit>,
}

impl Selected {
    fn of(
        rides: &Rides,
        settings: &TrainingSettings,
        features: FeatureSet,
        threads: usize,
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
            let CrossValidated { alpha, candidates, predictions, rides, without_fold } =
                select::cross_validate(rides, &settings.alphas, settings.folds, used, threads, cancel)?;
            let (probability, threshold) = select::threshold(settings.threshold, predictions);
            let selection = Selection { folds: settings.folds, rides: rides as u64, candidates, threshold };
            (alpha, probability, Some(selection), without_fold)
        };
        let recipe = Recipe { alpha, used, centre: None, start: None, threads, cancel };
        Ok(Self { alpha, threshold, selection, fit: fit(rides, &recipe)?, without_fold })
    }
}

fn warnings_of(selection: &Selection) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let best = select::best(&selection.candidates);
    if let Some(Candidate { alpha, .. }) = best.filter(|best| *best > 0).and_then(|best| selection.candidates.get(best))
        && best == Some(selection.candidates.len() - 1)
    {
        let why = format!("the largest penalty tried ({alpha}) did best: the features tell little");
        warnings.push(Warning { code: WarningCode::LargestPenalty, why });
    }
    if !selection.threshold.reached {
        let why = "no threshold reaches what its criterion asks for; the nearest one was taken".to_owned();
        warnings.push(Warning { code: WarningCode::ThresholdUnreached, why });
    }
    warnings
}

/// What the artefact says of the features used. `scaler` is that of the rides trained on; `sure`, whether standard errors mean anything.
pub(crate) fn coefficients(
    fit: &Fit,
    scaler: &Scaler,
    used: [bool; FEATURE_COUNT],
    histograms: &[Histogram; FEATURE_COUNT],
    sure: bool,
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
        inference: inference[j].take().filter(|_| sure),
        histogram: Some(histograms[j].clone()),
    };
    (0..FEATURE_COUNT).filter(|j| used[*j]).map(coefficient).collect()
}

/// How good a fit is on some rides; `None` without any.
pub(crate) fn quality(fit: &Fit, rides: &Rides, threshold: f64) -> Option<Metrics> {
    let predictions = rides.features.iter().map(|row| fit.log_odds(row)).zip(rides.service.iter().copied());
    metrics::evaluate(predictions, threshold)
}

fn held_out(
    rides: &Rides,
    test: &Rides,
    settings: &TrainingSettings,
    fit: &Fit,
    threads: usize,
    cancel: &Cancel,
) -> Result<Option<HeldOut>, FitError> {
    if test.services() == 0 || test.services() == test.len() {
        return Ok(None);
    }
    let ranked = |fit: &Fit| {
        let log_odds: Vec<f64> = test.features.iter().map(|row: &Features| fit.log_odds(row)).collect();
        Ranked::new(&log_odds, &test.service)
    };
    let mileage = match settings.features {
        FeatureSet::All => Some(ranked(&Selected::of(rides, settings, FeatureSet::Mileage, threads, cancel)?.fit)),
        FeatureSet::Mileage | FeatureSet::Weather => None,
    };
    let model = ranked(fit);
    let share = rides.services() as f64 / rides.len() as f64;
    let base_rate = Ranked::new(&vec![(share / (1.0 - share)).ln(); test.len()], &test.service);
    let figures = |weights: &[u32]| {
        let (loss, auc) = (model.mean_loss(weights), model.roc_auc(weights, &test.service)?);
        let base = base_rate.mean_loss(weights);
        let (other_loss, other_auc) = match &mileage {
            Some(mileage) => (mileage.mean_loss(weights), mileage.roc_auc(weights, &test.service)?),
            None => (loss, auc),
        };
        Some([loss, auc, base - loss, auc - 0.5, other_loss, other_auc, other_loss - loss, auc - other_auc])
    };
    let found: Option<[Interval; 8]> = bootstrap::intervals(test.len(), threads, cancel, figures);
    if cancel.is_cancelled() {
        return Err(FitError::Cancelled);
    }
    let Some([log_loss, roc_auc, over_base, over_chance, of_mileage, auc_of_mileage, over_mileage, auc_over_mileage]) =
        found
    else {
        return Ok(None);
    };
    let both = mileage.is_some();
    Ok(Some(HeldOut {
        rides: test.len() as u64,
        bootstraps: bootstrap::resamples(test.len()),
        base_rate_log_loss: base_rate.mean_loss(&vec![1; test.len()]),
        model: Quality { log_loss, roc_auc },
        over_base_rate: Gain { log_loss: over_base, roc_auc: over_chance },
        mileage: both.then_some(Quality { log_loss: of_mileage, roc_auc: auc_of_mileage }),
        over_mileage: both.then_some(Gain { log_loss: over_mileage, roc_auc: auc_over_mileage }),
    }))
}

#[cfg(test)]
mod tests;
