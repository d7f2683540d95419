//! `models/<model>/<id>/realised.json`: how good a version's scores were.

use crate::model::Metrics;
use serde::{Deserialize, Serialize};

/// Metrics of a version on rides whose labels arrived after it had scored them: `models/<model>/<model_id>/realised.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DelayedLabelMetrics {
    /// Id of the version that scored, 16 hex digits.
    pub model_id: String,
    /// Its scores against the labels.
    pub metrics: Metrics,
}
