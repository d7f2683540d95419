//! How a model was selected, and what speaks for its features.

use super::settings::Criterion;
use serde::{Deserialize, Serialize};

/// A figure with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The figure.
    pub value: f64,
    /// Lower end of its 95 % interval.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// How penalty and threshold were chosen: by cross-validation among the rides trained on, the rides held out having no say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Parts; a ride's is [`crate::features::fold`].
    pub folds: u32,
    /// Rides it was done with: all, or evenly spread ones of them where there are very many.
    pub rides: u64,
    /// By rising penalty.
    pub candidates: Vec<Candidate>,
    /// The threshold.
    pub threshold: ThresholdChoice,
}

/// A penalty that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// L2 penalty.
    pub alpha: f64,
    /// Mean log-loss of the rides, each predicted by the model trained without its fold; absent when one of those could not be
    /// trained.
    pub log_loss: Option<f64>,
}

/// How the threshold was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThresholdChoice {
    /// By what.
    pub criterion: Criterion,
    /// What the criterion comes to at the threshold: a share, or the mean cost of a ride. Absent where the criterion has no value
    /// there.
    pub value: Option<f64>,
    /// Whether what the criterion asks for can be had; if not, the threshold that comes nearest to it was taken.
    pub reached: bool,
}

/// Whether the features tell anything, and whether the weather does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// All features against none, on the rides trained on; absent when an unpenalised model cannot be fitted.
    pub any: Option<LikelihoodRatio>,
    /// Mileage and weather against mileage alone, likewise; absent as well in a model that is not of both.
    pub weather: Option<LikelihoodRatio>,
    /// On the rides held out; absent without any, or with one class only.
    pub held_out: Option<HeldOut>,
}

/// A likelihood-ratio test of nested models without penalty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LikelihoodRatio {
    /// Twice the difference of the log-likelihoods.
    pub statistic: f64,
    /// Coefficients the smaller model lacks.
    pub degrees_of_freedom: u32,
    /// How likely a statistic as large were if those coefficients were all 0: chi-square.
    pub p_value: f64,
}

/// Models against each other on rides none of them has seen, with bootstrap intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Rides.
    pub rides: u64,
    /// Resamples behind each interval, the same ones for every figure: ends are the 2.5th and 97.5th percentiles.
    pub bootstraps: u32,
    /// Log-loss of saying the share of service among the rides trained on, every time.
    pub base_rate_log_loss: f64,
    /// The model.
    pub model: Quality,
    /// How much better the model is than the base rate: positive is better.
    pub over_base_rate: Gain,
    /// A model of mileage alone, its penalty chosen in the same way; absent in a model that is not of both.
    pub mileage: Option<Quality>,
    /// How much better mileage and weather are than mileage alone: positive is better.
    pub over_mileage: Option<Gain>,
}

/// How good a model is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Mean negative log-likelihood, natural logarithm.
    pub log_loss: Interval,
    /// Area under the ROC curve.
    pub roc_auc: Interval,
}

/// How much better one is than another; above 0 is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// By how much its log-loss is smaller.
    pub log_loss: Interval,
    /// By how much its area under the ROC curve is larger.
    pub roc_auc: Interval,
}

/// Something to be wary of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What.
    pub code: WarningCode,
    /// In words, with the numbers.
    pub why: String,
}

/// What there is to be wary of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    /// A feature has one value only and tells nothing.
    ConstantFeature,
    /// Features are (nearly) combinations of each other: their weights cannot be told apart.
    Collinearity,
    /// The features separate the classes, wholly or nearly: without a penalty there is no finite optimum.
    Separation,
    /// So few rides of one class that intervals and tests are rough.
    FewEvents,
    /// The largest penalty tried was the best: the features tell little.
    LargestPenalty,
    /// The penalty outweighs what the rides tell: weights are drawn far to 0, and standard errors would mean nothing.
    StrongPenalty,
    /// What the threshold's criterion asks for cannot be had.
    ThresholdUnreached,
}
