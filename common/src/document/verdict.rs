//! `models/<model>/<id>/verdict.json`: whether a model was promoted, and by which rule.

use crate::model::Interval;
use serde::{Deserialize, Serialize};

/// Reason of a verdict on a model that is already the champion.
pub const CHAMPION_ALREADY: &str = "champion_already";

/// Reason of a verdict where only a person promotes.
pub const BY_HAND_ONLY: &str = "by_hand_only";

/// Who promotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// The trainer promotes each model that passes the rule.
    #[default]
    ByRule,
    /// The trainer promotes every model.
    Always,
    /// Only a person promotes.
    ByHand,
}

/// The metric to compare models by on held-out rides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean negative log-likelihood: smaller is better.
    #[default]
    LogLoss,
    /// Mean squared error of the probability: smaller is better.
    Brier,
    /// Area under the ROC curve: larger is better.
    RocAuc,
}

impl Metric {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogLoss => "log-loss",
            Self::Brier => "Brier score",
            Self::RocAuc => "ROC AUC",
        }
    }
}

/// When a challenger becomes champion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rule {
    /// Who decides.
    pub promotion: Promotion,
    /// The metric to compare by.
    pub metric: Metric,
    /// By how much the challenger may be worse.
    pub margin: f64,
    /// Minimum number of held-out rides to compare on.
    pub rides_min: u64,
}

/// Champion and challenger on the same held-out rides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Comparison {
    /// Id of the champion, 16 hex digits.
    pub champion_id: String,
    /// The metric compared.
    pub metric: Metric,
    /// Number of rides that neither model was trained on.
    pub rides: u64,
    /// Metric of the champion.
    pub champion: f64,
    /// Metric of the challenger.
    pub challenger: f64,
    /// By how much the challenger is better (below 0: worse), with its bootstrap interval.
    pub gain: Interval,
}

/// Whether a model became champion when it was trained, and why: `models/<model>/<model_id>/verdict.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Verdict {
    /// Whether the model became champion.
    pub promoted: bool,
    /// Stable code: `first`, `no_worse`, `always`, `unrivalled`, `champion_already`, or one of those of
    /// `model-rejected.v1` for a model that was not promoted.
    pub reason: String,
    /// The reason in words, with its numbers.
    pub why: String,
    /// Comparison with the champion, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// The rule applied. A rejected model is judged again under another rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
}

impl Verdict {
    /// Returns a verdict without comparison and rule.
    pub fn new(promoted: bool, reason: &str, why: String) -> Self {
        Self { promoted, reason: reason.to_owned(), why, comparison: None, rule: None }
    }
}
