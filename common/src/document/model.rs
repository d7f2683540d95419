//! The model artefact, `models/<model>/<id>/model.json`. It suffices to score rides without this software.
//!
//! `P(service) = 1 / (1 + exp(-(intercept + Σ coefficient·x)))`, with the coefficients in original units.
//!
//! | file | content |
//! |---|---|
//! | this one | the artefact |
//! | [`settings`] | the training settings |
//! | [`evidence`] | how penalty and threshold were selected, and the evidence for the features |
//! | [`metrics`] | the quality of the model on a set of rides |
//! | [`alias`] | which version is the champion, and which the challenger |

pub mod alias;
pub mod evidence;
pub mod metrics;
pub mod settings;

pub use alias::{Alias, AliasName, HISTORY_MAX, Past};
pub use evidence::{
    Candidate, Evidence, Gain, HeldOut, Interval, LikelihoodRatio, Quality, Selection, ThresholdChoice, Warning,
    WarningCode,
};
pub use metrics::{BrierDecomposition, CalibrationBin, Confusion, Metrics, RocPoint};
pub use settings::{Criterion, TrainingSettings};

use crate::features::FEATURES;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// A trained model. A pure function of its dataset manifests and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name of its schema.
    pub schema: String,
    /// Model family, for example `service-request`.
    pub model: String,
    /// Id of this version, 16 hex digits, derived from `datasets`, `settings` and the artefact's schema.
    pub model_id: String,
    /// Version of the trainer that wrote the artefact.
    pub trainer: String,
    /// The training settings.
    pub settings: TrainingSettings,
    /// The training datasets, ordered by batch id.
    pub datasets: Vec<TrainedOn>,
    /// Numbers of rides used and left out.
    pub counts: TrainingCounts,
    /// Breed of a breed model; absent in a global model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breed: Option<String>,
    /// Id of the global model whose coefficients are the prior mean of this breed model; absent if the prior mean is 0.
    #[serde(default, rename = "centre", skip_serializing_if = "Option::is_none")]
    pub prior_mean: Option<String>,
    /// Strength of the L2 penalty: the selected value of [`TrainingSettings::alphas`].
    pub alpha: f64,
    /// Log-odds of service if all features are 0, in original units.
    pub intercept: f64,
    /// Standard error of `intercept`; absent if the information matrix is singular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intercept_standard_error: Option<f64>,
    /// Log-odds of service at the mean of the training rides: the intercept in standardised units.
    pub intercept_standardised: f64,
    /// One coefficient per used feature, in the order of [`FEATURES`].
    pub coefficients: Vec<Coefficient>,
    /// Covariance of the used features over the training rides (denominator n), in original units: the full symmetric matrix, rows
    /// and columns in the order of the coefficients; 0 for a constant feature. Absent in artefacts of earlier trainers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covariance: Option<Vec<Vec<f64>>>,
    /// Smallest probability, 0 to 1, at which the decision is service.
    pub threshold: f64,
    /// Largest absolute component of the gradient of the mean loss at the solution, in standardised units: the proof of
    /// convergence.
    pub gradient_norm: f64,
    /// How penalty and threshold were selected; absent if there was nothing to select.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Evidence that the features predict service; absent in a breed model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Reasons for caution.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Number of training rides by predicted probability: equal bins of 0 to 1, the last of which includes 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicted: Vec<u64>,
    /// Metrics on the training rides.
    pub train: Metrics,
    /// Metrics on the held-out rides; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
}

/// A dataset that a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// Batch id.
    pub batch_id: String,
    /// SHA-256 of the bytes of the dataset's manifest, 64 hex digits.
    pub manifest_sha256: String,
    /// Number of the dataset's revision, from 2; `None` for the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<NonZeroU32>,
}

/// Numbers of rides used and left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TrainingCounts {
    /// Rides in all datasets.
    pub rides: u64,
    /// Left out because they have no label.
    pub unlabelled: u64,
    /// Labelled rides left out because they have no weather.
    pub without_weather: u64,
    /// Labelled rides with weather left out because a value is impossible; only in datasets older than the check.
    #[serde(default)]
    pub out_of_range: u64,
    /// Left out because a batch with a smaller id contains the same ride id, with label and weather.
    pub duplicates: u64,
    /// Rides that the model was trained on.
    pub train: u64,
    /// Training rides that ended in a service request.
    pub train_service: u64,
    /// Held-out rides.
    pub test: u64,
    /// Held-out rides that ended in a service request.
    pub test_service: u64,
}

/// The coefficient of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coefficient {
    /// Name of the feature.
    pub feature: String,
    /// Unit of the feature.
    pub unit: String,
    /// Log-odds per unit of the feature.
    pub per_unit: f64,
    /// Log-odds per standard deviation of the feature.
    pub standardised: f64,
    /// Mean over the training rides, in original units.
    pub mean: f64,
    /// Standard deviation over the training rides (denominator n), in original units. 0 for a constant feature; its
    /// coefficient is then 0, or in a breed model that of the global model.
    pub std_dev: f64,
    /// Smallest value among the training rides.
    pub min: f64,
    /// Largest value among the training rides.
    pub max: f64,
    /// Uncertainty of the coefficient. Absent for a constant feature, for a singular information matrix, and where the
    /// penalty outweighs the data: under a strong penalty and in breed models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference: Option<Inference>,
    /// Distribution of the feature over the training rides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
}

/// Uncertainty of a coefficient, from the observed information of the penalised likelihood at the solution. Without a
/// penalty these are the Wald statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inference {
    /// Standard error of [`Coefficient::per_unit`].
    pub standard_error: f64,
    /// Coefficient divided by its standard error.
    pub z: f64,
    /// Two-sided p-value: probability of a |z| at least as large if the coefficient were 0.
    pub p_value: f64,
    /// Factor by which the odds of service change when the feature grows by [`Self::step`], with its 95 % interval.
    pub odds_ratio: Interval,
    /// Size of a natural step in units of the feature, for example 100 tenths of °C.
    pub step: f64,
    /// The step in words, for example 10 °C.
    pub step_name: String,
}

/// Distribution of a feature over the training rides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Edges between bins, strictly ascending. A value belongs to the bin of the largest edge that does not exceed it;
    /// values below the first edge have a bin of their own.
    pub edges: Vec<f64>,
    /// Number of rides by bin; one bin more than edges.
    pub rides: Vec<u64>,
    /// Number of these rides that ended in a service request, by bin.
    pub services: Vec<u64>,
    /// Mean value of the feature by bin; 0 in a bin without rides.
    pub mean: Vec<f64>,
    /// Mean predicted probability by bin; 0 in a bin without rides.
    pub mean_probability: Vec<f64>,
}

impl Histogram {
    /// Returns the bin of a value: the number of edges that do not exceed it.
    pub fn bin(&self, value: f64) -> usize {
        self.edges.partition_point(|edge| *edge <= value)
    }
}

impl Model {
    /// Returns the log-odds of service. `features` holds the used features in the order of the coefficients, in
    /// original units.
    pub fn log_odds(&self, features: &[f64]) -> f64 {
        self.intercept + self.coefficients.iter().zip(features).map(|(c, x)| c.per_unit * x).sum::<f64>()
    }

    /// Returns the positions of the used features in [`FEATURES`]; `None` if a feature is unknown or the order differs.
    pub fn used(&self) -> Option<Vec<usize>> {
        let position = |c: &Coefficient| FEATURES.iter().position(|f| f.name == c.feature && f.unit == c.unit);
        let used: Vec<usize> = self.coefficients.iter().map(position).collect::<Option<_>>()?;
        used.is_sorted_by(|a, b| a < b).then_some(used)
    }

    /// Returns the probability of service, 0 to 1. `features` is as for [`Self::log_odds`].
    pub fn probability(&self, features: &[f64]) -> f64 {
        logistic(self.log_odds(features))
    }
}

/// Returns `1 / (1 + exp(-z))` without overflow.
pub fn logistic(z: f64) -> f64 {
    if z >= 0.0 {
        1.0 / (1.0 + (-z).exp())
    } else {
        let e = z.exp();
        e / (1.0 + e)
    }
}
