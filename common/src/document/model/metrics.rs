//! Quality of a model on a set of rides.

use serde::{Deserialize, Serialize};

/// Quality of a model on a set of rides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// Number of rides.
    pub rides: u64,
    /// Decisions at the model's threshold against labels.
    pub confusion: Confusion,
    /// Share of correct decisions: (tp + tn) / all.
    pub accuracy: f64,
    /// tp / (tp + fp); absent if no ride is predicted positive.
    pub precision: Option<f64>,
    /// tp / (tp + fn); absent if no ride is positive.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall; absent if either is.
    pub f1: Option<f64>,
    /// Area under the ROC curve, 0 to 1, ties counted half; absent if all rides have the same label.
    pub roc_auc: Option<f64>,
    /// Average precision, 0 to 1: precision at every threshold, weighted with the increase of recall. Absent if no ride
    /// is positive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_precision: Option<f64>,
    /// Mean negative log-likelihood, natural logarithm.
    pub log_loss: f64,
    /// Mean squared error of the probability.
    pub brier: f64,
    /// Decomposition of the Brier score over the bins of [`Self::calibration`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brier_decomposition: Option<BrierDecomposition>,
    /// Expected calibration error, 0 to 1: |mean probability − share with service| of each bin of
    /// [`Self::calibration`], averaged over the rides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// The ROC curve from (0, 0) to (1, 1), thinned; empty if all rides have the same label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roc: Vec<RocPoint>,
    /// Predicted probability against observed share, by bin; bins without a ride are omitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<CalibrationBin>,
}

/// A point of the ROC curve: the rates at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RocPoint {
    /// Smallest probability at which a ride is predicted positive; 1 at (0, 0), where no ride is.
    pub threshold: f64,
    /// Share of the rides without service that are predicted positive, 0 to 1.
    pub false_positive_rate: f64,
    /// Share of the rides with service that are predicted positive, 0 to 1.
    pub true_positive_rate: f64,
}

/// The rides whose predicted probability is at least `from` and less than `to`; the last bin includes 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CalibrationBin {
    /// Lower end, included.
    pub from: f64,
    /// Upper end, excluded unless it is 1.
    pub to: f64,
    /// Number of rides, at least 1.
    pub rides: u64,
    /// Mean of their predicted probabilities.
    pub mean_probability: f64,
    /// Share of the rides that ended in a service request, 0 to 1.
    pub service_share: f64,
}

/// `Brier = reliability − resolution + uncertainty + within_bins` (Murphy 1973; the last term, for the variation within
/// bins, Stephenson, Coelho and Jolliffe 2008).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BrierDecomposition {
    /// Mean squared distance of the bins' mean probabilities from their observed shares; 0 is best.
    pub reliability: f64,
    /// Mean squared distance of the bins' observed shares from the overall share; best if equal to `uncertainty`.
    pub resolution: f64,
    /// Variance of the labels, `share · (1 − share)`: independent of the model.
    pub uncertainty: f64,
    /// Contribution of the variation within bins: negative if the probabilities within a bin predict better than their
    /// mean.
    pub within_bins: f64,
}

/// Numbers of rides by decision at the threshold and label; positive means service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Confusion {
    /// Rides without service, predicted negative.
    pub true_negative: u64,
    /// Rides without service, predicted positive.
    pub false_positive: u64,
    /// Rides with service, predicted negative.
    pub false_negative: u64,
    /// Rides with service, predicted positive.
    pub true_positive: u64,
}
