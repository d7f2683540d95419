//! How a model is trained.

use crate::features::FeatureSet;
use serde::{Deserialize, Serialize};

/// How a model is trained: with its datasets, all that its id follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingSettings {
    /// Which features it is made of.
    pub features: FeatureSet,
    /// Candidates for the L2 penalty `alpha/2 · ‖w‖²` on the standardised coefficients, beside the *sum* of the losses; the
    /// intercept is free. Rising. Of several the one with the least cross-validated log-loss is taken.
    pub alphas: Vec<f64>,
    /// Parts of the cross-validation.
    pub folds: u32,
    /// How [`Model::threshold`](super::Model::threshold) is chosen.
    pub threshold: Criterion,
    /// Fewer trainable rides than this are refused.
    pub rides_min: u64,
    /// A breed with at least so many rides to train on gets a model of its own; absent: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breed_rides_min: Option<u64>,
}

/// By what the probability from which on the decision is service is chosen, on predictions for rides that were held out in the
/// cross-validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Criterion {
    /// Not at all: it is given.
    Fixed {
        /// From which on the decision is service.
        probability: f64,
    },
    /// Most right decisions.
    Accuracy,
    /// Largest harmonic mean of precision and recall.
    F1,
    /// Largest F-measure.
    Fbeta {
        /// How many times as much recall counts as precision.
        beta: f64,
    },
    /// Largest precision among those that reach a recall.
    PrecisionAtRecall {
        /// At least this share of the rides with service is to be found.
        recall_min: f64,
    },
    /// Largest recall among those that reach a precision.
    RecallAtPrecision {
        /// At least this share of the rides said to need service is to do so.
        precision_min: f64,
    },
    /// Least cost.
    Cost {
        /// Of a service made ready in vain.
        false_positive: f64,
        /// Of a service that was not made ready.
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
