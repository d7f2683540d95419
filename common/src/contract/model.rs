//! The model artefact, `models/<model>/<id>/model.json`: everything needed to score without this software.
//!
//! `P(service) = 1 / (1 + exp(-(intercept + Σ coefficient·x)))`, with the coefficients in original units.

use serde::{Deserialize, Serialize};

/// Name of the artefact's schema.
pub const MODEL_SCHEMA: &str = "model.v1";

/// A trained model. A pure function of its dataset manifests and settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// `model.v1`.
    pub schema: String,
    /// Model family.
    pub model: String,
    /// Derived from `datasets`, `settings` and the artefact's schema: 16 hex digits.
    pub model_id: String,
    /// Version of the trainer that wrote it.
    pub trainer: String,
    /// How it was trained.
    pub settings: TrainingSettings,
    /// What it was trained on, by batch id.
    pub datasets: Vec<TrainedOn>,
    /// How many rides went where.
    pub counts: TrainingCounts,
    /// Log-odds of service at all features 0, original units.
    pub intercept: f64,
    /// Log-odds at the training mean: the intercept in standardised units.
    pub intercept_standardised: f64,
    /// One per feature, in the order of [`super::features::FEATURES`].
    pub coefficients: Vec<Coefficient>,
    /// Probability from which on the decision is service.
    pub threshold: f64,
    /// Largest absolute gradient component of the mean loss at the solution, standardised units: the certificate of
    /// convergence.
    pub gradient_norm: f64,
    /// On the rides it was trained on.
    pub train: Metrics,
    /// On the rides held out; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
}

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingSettings {
    /// L2 penalty `alpha/2 · ‖w‖²` on the standardised coefficients, beside the *sum* of the losses; the intercept is free.
    pub alpha: f64,
    /// See [`Model::threshold`].
    pub threshold: f64,
    /// Fewer trainable rides than this are refused.
    pub rides_min: u64,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self { alpha: 1.0, threshold: 0.5, rides_min: 100 }
    }
}

/// A dataset a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// The batch.
    pub batch_id: String,
    /// SHA-256 of its manifest's bytes.
    pub manifest_sha256: String,
}

/// How many rides went where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingCounts {
    /// Rides of all datasets.
    pub rides: u64,
    /// Left out: no label.
    pub unlabelled: u64,
    /// Left out: no weather (of the labelled ones).
    pub without_weather: u64,
    /// Left out: labelled and with weather, but with a value no ride can have, in a dataset older than the bounds of
    /// [`crate::contract::ride`].
    #[serde(default)]
    pub out_of_range: u64,
    /// Left out: the same ride id stands, with label and weather, in a batch with a smaller id.
    pub duplicates: u64,
    /// Trained on.
    pub train: u64,
    /// … of which ended in a service request.
    pub train_service: u64,
    /// Held out.
    pub test: u64,
    /// … of which ended in a service request.
    pub test_service: u64,
}

/// One feature's weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coefficient {
    /// Feature.
    pub feature: String,
    /// Unit of the feature.
    pub unit: String,
    /// Log-odds per original unit.
    pub per_unit: f64,
    /// Log-odds per standard deviation.
    pub standardised: f64,
    /// Mean over the training rides, original units.
    pub mean: f64,
    /// Standard deviation over the training rides (denominator n), original units; 0 for a constant feature, whose
    /// weight is 0.
    pub std_dev: f64,
    /// Smallest value trained on.
    pub min: f64,
    /// Largest value trained on.
    pub max: f64,
}

/// How good a model is on some rides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Rides.
    pub rides: u64,
    /// At the threshold.
    pub confusion: Confusion,
    /// (tp + tn) / all.
    pub accuracy: f64,
    /// tp / (tp + fp); absent when nothing was predicted positive.
    pub precision: Option<f64>,
    /// tp / (tp + fn); absent when nothing is positive.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall; absent when either is.
    pub f1: Option<f64>,
    /// Area under the ROC curve, ties counted half; absent with one class only.
    pub roc_auc: Option<f64>,
    /// Mean negative log-likelihood, natural logarithm.
    pub log_loss: f64,
    /// Mean squared error of the probability.
    pub brier: f64,
    /// The ROC curve from (0, 0) to (1, 1), thinned; empty with one class only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roc: Vec<RocPoint>,
    /// What was said against what was, by probability; bins without a ride are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<CalibrationBin>,
}

/// A point of the ROC curve: what comes of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Probability from which on a ride counts as service; 1 at (0, 0), where none does.
    pub threshold: f64,
    /// Share of the rides without service that count as service, 0 … 1.
    pub false_positive_rate: f64,
    /// Share of the rides with service that count as service, 0 … 1.
    pub true_positive_rate: f64,
}

/// The rides whose probability lies from `from` up to, but not including, `to`; the last bin includes 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Lower end.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Rides in it, at least one.
    pub rides: u64,
    /// Mean of their probabilities.
    pub mean_probability: f64,
    /// Share of them that ended in a service request.
    pub service_share: f64,
}

/// Predictions against truth at the threshold; positive means service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Confusion {
    pub true_negative: u64,
    pub false_positive: u64,
    pub false_negative: u64,
    pub true_positive: u64,
}

/// `champion.json`: the alias scorers follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Champion {
    /// `champion.v1`.
    pub schema: String,
    /// Model family.
    pub model: String,
    /// The champion.
    pub model_id: String,
    /// Path of its artefact.
    pub object: String,
    /// Champions before it, oldest first.
    pub history: Vec<String>,
}

/// Name of the champion file's schema.
pub const CHAMPION_SCHEMA: &str = "champion.v1";

impl Model {
    /// Log-odds of service for features in the order of [`super::features::FEATURES`], original units.
    pub fn log_odds(&self, features: &[f64]) -> f64 {
        self.intercept + self.coefficients.iter().zip(features).map(|(c, x)| c.per_unit * x).sum::<f64>()
    }

    /// Probability of service for features in the order of [`super::features::FEATURES`], original units.
    pub fn probability(&self, features: &[f64]) -> f64 {
        logistic(self.log_odds(features))
    }
}

/// `1 / (1 + exp(-z))`, without overflow at either end.
pub fn logistic(z: f64) -> f64 {
    if z >= 0.0 {
        1.0 / (1.0 + (-z).exp())
    } else {
        let e = z.exp();
        e / (1.0 + e)
    }
}
