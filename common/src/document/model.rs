//! The model artefact, `models/<model>/<id>/model.json`: everything needed to score without this software.
//!
//! `P(service) = 1 / (1 + exp(-(intercept + Σ coefficient·x)))`, with the coefficients in original units.
//!
//! | file | what |
//! |---|---|
//! | this one | the artefact |
//! | [`evidence`] | how it was selected, and what speaks for it |
//! | [`metrics`] | how good it is on some rides |
//! | [`alias`] | which version is the champion, which the challenger |

pub mod alias;
pub mod evidence;
pub mod metrics;
pub mod settings;

pub use alias::{ALIAS_SCHEMA, Alias, AliasName, HISTORY_MAX, Past};
pub use evidence::{
    Candidate, Evidence, Gain, HeldOut, Interval, LikelihoodRatio, Quality, Selection, ThresholdChoice, Warning,
    WarningCode,
};
pub use metrics::{BrierDecomposition, CalibrationBin, Confusion, Metrics, RocPoint};
pub use settings::{Criterion, TrainingSettings};

use crate::features::FEATURES;
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
    /// The breed whose rides alone it was trained on; absent: on those of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breed: Option<String>,
    /// Id of the model of all rides whose coefficients are the centre of this one's penalty; absent: the centre is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centre: Option<String>,
    /// L2 penalty it was trained with: the chosen one of [`TrainingSettings::alphas`].
    pub alpha: f64,
    /// Log-odds of service at all features 0, original units.
    pub intercept: f64,
    /// Its standard error; absent when the information matrix is singular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intercept_standard_error: Option<f64>,
    /// Log-odds at the training mean: the intercept in standardised units.
    pub intercept_standardised: f64,
    /// One per feature it uses, in the order of [`super::features::FEATURES`].
    pub coefficients: Vec<Coefficient>,
    /// Probability from which on the decision is service.
    pub threshold: f64,
    /// Largest absolute gradient component of the mean loss at the solution, standardised units: the certificate of
    /// convergence.
    pub gradient_norm: f64,
    /// How penalty and threshold were chosen; absent when there was nothing to choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// What speaks for the features; absent in a model of one breed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What to be wary of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// How many of the rides it was trained on it gives which probability: equal parts of 0 … 1, the last one including 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicted: Vec<u64>,
    /// On the rides it was trained on.
    pub train: Metrics,
    /// On the rides held out; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
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
    /// [`crate::ride`].
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
    /// weight is 0, or that of the model of all rides in a model of a breed.
    pub std_dev: f64,
    /// Smallest value trained on.
    pub min: f64,
    /// Largest value trained on.
    pub max: f64,
    /// How sure the weight is; absent for a constant feature, when the information matrix is singular, and where the penalty rather
    /// than the rides decides: under a strong one, and in models of breeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference: Option<Inference>,
    /// What values it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
}

/// How sure a weight is. From the observed information of the penalised likelihood at the solution; without a penalty these are
/// the classical (Wald) figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inference {
    /// Standard error of [`Coefficient::per_unit`].
    pub standard_error: f64,
    /// Weight over standard error.
    pub z: f64,
    /// Two-sided: how likely a |z| as large were without any effect.
    pub p_value: f64,
    /// What the odds of service are multiplied by when the feature grows by [`Self::step`], with its 95 % interval.
    pub odds_ratio: Interval,
    /// Units in a natural step, as in 100 tenths of °C.
    pub step: f64,
    /// The same in words, as in 10 °C.
    pub step_name: String,
}

/// How many values lie between which edges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Strictly rising. A value belongs to the bin of the largest edge that is not above it; below the first edge is a bin, too.
    pub edges: Vec<f64>,
    /// Rides by bin: one more than edges.
    pub rides: Vec<u64>,
    /// … of which ended in a service request.
    pub services: Vec<u64>,
    /// Mean value by bin; 0 in a bin without rides.
    pub mean: Vec<f64>,
    /// Mean probability by the model, by bin; 0 in a bin without rides.
    pub mean_probability: Vec<f64>,
}

impl Histogram {
    /// The bin of a value: the number of edges that are not above it.
    pub fn bin(&self, value: f64) -> usize {
        self.edges.partition_point(|edge| *edge <= value)
    }
}

impl Model {
    /// Log-odds of service for the features it uses, in the order of its coefficients, original units.
    pub fn log_odds(&self, features: &[f64]) -> f64 {
        self.intercept + self.coefficients.iter().zip(features).map(|(c, x)| c.per_unit * x).sum::<f64>()
    }

    /// Where the features it uses stand in [`FEATURES`]; `None` when it uses one that is not there, or has them in another order.
    pub fn used(&self) -> Option<Vec<usize>> {
        let position = |c: &Coefficient| FEATURES.iter().position(|f| f.name == c.feature && f.unit == c.unit);
        let used: Vec<usize> = self.coefficients.iter().map(position).collect::<Option<_>>()?;
        used.is_sorted_by(|a, b| a < b).then_some(used)
    }

    /// Probability of service for the features it uses, in the order of its coefficients, original units.
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
