//! The settings of the training.

use crate::features::FeatureSet;
use serde::{Deserialize, Serialize};

/// The settings of the training. Together with the datasets they determine the model id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingSettings {
    /// Features that the model uses.
    pub features: FeatureSet,
    /// Candidates for `alpha`, ascending. The L2 penalty `alpha/2 · ‖w‖²` on the standardised coefficients, without the
    /// intercept, is added to the *sum* of the losses. The candidate with the smallest cross-validated log-loss is
    /// selected.
    pub alphas: Vec<f64>,
    /// Number of folds of the cross-validation.
    pub folds: u32,
    /// Criterion that selects [`Model::threshold`](super::Model::threshold).
    pub threshold: Criterion,
    /// Minimum number of trainable rides; with fewer, training is refused.
    pub rides_min: u64,
    /// Minimum number of training rides of a breed that gets a breed model; absent: no breed does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breed_rides_min: Option<u64>,
}

/// Criterion that selects the threshold, evaluated on the predictions for the left-out folds of the cross-validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Criterion {
    /// A fixed threshold.
    Fixed {
        /// The threshold, 0 to 1.
        probability: f64,
    },
    /// Largest share of correct decisions.
    Accuracy,
    /// Largest harmonic mean of precision and recall.
    F1,
    /// Largest F-measure.
    Fbeta {
        /// Weight of recall relative to precision.
        beta: f64,
    },
    /// Largest precision among the thresholds with a minimum recall.
    PrecisionAtRecall {
        /// Minimum recall, 0 to 1: share of the rides with service that are predicted positive.
        recall_min: f64,
    },
    /// Largest recall among the thresholds with a minimum precision.
    RecallAtPrecision {
        /// Minimum precision, 0 to 1: share of the rides predicted positive that end in a service request.
        precision_min: f64,
    },
    /// Smallest mean cost.
    Cost {
        /// Cost of a service that was prepared in vain.
        false_positive: f64,
        /// Cost of a service that was needed but not prepared.
        false_negative: f64,
    },
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self {
            features: FeatureSet::All,
            alphas: vec![0.1, 1.0, 10.0, 100.0, 1000.0],
            folds: 5,
            threshold: Criterion::Accuracy,
            rides_min: 100,
            breed_rides_min: Some(200),
        }
    }
}
