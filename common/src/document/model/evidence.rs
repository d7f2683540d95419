//! How penalty and threshold were selected, and the evidence for the features.

use super::settings::Criterion;
use serde::{Deserialize, Serialize};

/// An estimate with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end of the interval.
    pub lower: f64,
    /// Upper end of the interval.
    pub upper: f64,
}

/// How penalty and threshold were selected: by cross-validation on the training rides, without the held-out rides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Number of folds; [`crate::features::fold`] returns the fold of a ride.
    pub folds: u32,
    /// Number of rides used: all training rides, or an evenly spread sample if there are very many.
    pub rides: u64,
    /// The penalties tried, ascending.
    pub candidates: Vec<Candidate>,
    /// How the threshold was selected.
    pub threshold: ThresholdChoice,
}

/// A penalty that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Candidate {
    /// Strength of the L2 penalty.
    pub alpha: f64,
    /// Cross-validated mean log-loss: each ride is predicted by the model trained without its fold. Absent if one of
    /// these models could not be trained.
    pub log_loss: Option<f64>,
}

/// How the threshold was selected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThresholdChoice {
    /// The criterion that was optimised.
    pub criterion: Criterion,
    /// Value of the criterion at the threshold: a share, 0 to 1, or the mean cost per ride. Absent if the criterion is
    /// undefined there.
    pub value: Option<f64>,
    /// Whether some threshold satisfies the criterion; if not, the nearest one was selected.
    pub reached: bool,
}

/// Evidence that the features, and the weather in particular, predict service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// All features against none, on the training rides; absent if an unpenalised model cannot be fitted.
    pub any: Option<LikelihoodRatio>,
    /// Mileage and weather against mileage alone, on the training rides; absent as for `any`, and if the model does not
    /// use both.
    pub weather: Option<LikelihoodRatio>,
    /// Comparisons on the held-out rides; absent if there are none, or all have the same label.
    pub held_out: Option<HeldOut>,
}

/// A likelihood-ratio test of nested models without a penalty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LikelihoodRatio {
    /// Twice the difference of the log-likelihoods.
    pub statistic: f64,
    /// Number of coefficients that the smaller model lacks.
    pub degrees_of_freedom: u32,
    /// Probability of a statistic at least as large if these coefficients were all 0 (chi-square).
    pub p_value: f64,
}

/// Comparison of models on rides that none of them was trained on, with bootstrap intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Number of held-out rides.
    pub rides: u64,
    /// Number of bootstrap resamples, the same for every estimate. The ends of an interval are the 2.5th and 97.5th
    /// percentiles.
    pub bootstraps: u32,
    /// Log-loss of a constant prediction: the share of service among the training rides.
    pub base_rate_log_loss: f64,
    /// Quality of the model.
    pub model: Quality,
    /// Improvement of the model over the constant prediction.
    pub over_base_rate: Gain,
    /// Quality of a model of mileage alone, its penalty selected in the same way; absent if the model does not use both
    /// mileage and weather.
    pub mileage: Option<Quality>,
    /// Improvement of the model over mileage alone; absent as for `mileage`.
    pub over_mileage: Option<Gain>,
}

/// Quality of a model on a set of rides.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Mean negative log-likelihood, natural logarithm.
    pub log_loss: Interval,
    /// Area under the ROC curve, 0 to 1.
    pub roc_auc: Interval,
}

/// Improvement of one model over another; positive is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Decrease of the mean log-loss.
    pub log_loss: Interval,
    /// Increase of the area under the ROC curve.
    pub roc_auc: Interval,
}

/// A reason for caution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable code.
    pub code: WarningCode,
    /// The reason in words, with its numbers.
    pub why: String,
}

/// Kinds of reasons for caution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    /// A feature has the same value in all rides, so it predicts nothing.
    ConstantFeature,
    /// Features are (nearly) linear combinations of each other, so their coefficients cannot be distinguished.
    Collinearity,
    /// The features separate the classes completely or nearly: without a penalty there is no finite optimum.
    Separation,
    /// One class has so few rides that intervals and tests are inaccurate.
    FewEvents,
    /// The largest penalty tried was the best: the features predict little.
    LargestPenalty,
    /// The penalty outweighs the data: coefficients are shrunk far towards 0, and standard errors would be meaningless.
    StrongPenalty,
    /// No threshold satisfies the criterion.
    ThresholdUnreached,
}
