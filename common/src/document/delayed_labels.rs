//! `models/<model>/<id>/realised.json`: how good a version's scores were.

use crate::model::Metrics;
use serde::{Deserialize, Serialize};

/// Metrics of a version on rides whose labels arrived after it had scored them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelayedLabelMetrics {
    /// The version that scored.
    pub model_id: String,
    /// Its scores against the labels.
    pub metrics: Metrics,
}
