//! How good a model is on some rides.

use serde::{Deserialize, Serialize};

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
    /// Area under the precision–recall curve as steps: precision at every threshold, weighted with the recall it adds; absent when
    /// nothing is positive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_precision: Option<f64>,
    /// Mean negative log-likelihood, natural logarithm.
    pub log_loss: f64,
    /// Mean squared error of the probability.
    pub brier: f64,
    /// Where the Brier score comes from, by the bins of [`Self::calibration`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_decomposition: Option<BrierDecomposition>,
    /// Expected calibration error: mean over the rides of |mean probability − share with service| of their bin of
    /// [`Self::calibration`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
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

/// `Brier = reliability − resolution + uncertainty + within_bins` (Murphy 1973; the last term, what the bins blur, Stephenson,
/// Coelho and Jolliffe 2008).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BrierDecomposition {
    /// How far the bins' mean probabilities are from what was; 0 is best.
    pub reliability: f64,
    /// How far the bins' shares are from the share of all; as much as `uncertainty` is best.
    pub resolution: f64,
    /// The share of all, times one minus it: no model has a say in it.
    pub uncertainty: f64,
    /// What the probabilities within a bin tell more than their mean does (below 0), or less.
    pub within_bins: f64,
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
