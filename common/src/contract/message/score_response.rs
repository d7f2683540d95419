//! `score-response.v1`: the probabilities, or why there are none.

use super::{Kind, Message, Violation};
use serde::{Deserialize, Serialize};

/// The answer to one score request: either `scores` with the one model that made them all, or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreResponse {
    /// Of the request; empty when the request was too broken to tell.
    pub request_id: String,
    /// Model family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The one model version that produced every score of this answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Probability from which on the decision is service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// One per ride, in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<Score>,
    /// Why the whole request has no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ScoreError>,
}

/// The answer for one ride.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// As in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ride_id: Option<String>,
    /// Scored, or why not.
    #[serde(flatten)]
    pub outcome: ScoreOutcome,
}

/// A probability, or the error of this one ride.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ScoreOutcome {
    /// The ride was scored.
    Scored {
        /// Of a service request, 0 … 1.
        probability: f64,
        /// Whether the probability reaches the threshold.
        service: bool,
    },
    /// It could not be.
    Failed {
        /// Why.
        error: ScoreError,
    },
}

/// A typed error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreError {
    /// Stable code.
    pub code: ScoreErrorCode,
    /// In words, with the way out.
    pub message: String,
    /// Path of the field at fault, as in `rides[3].tmin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// What can be wrong with a score request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreErrorCode {
    /// No model was promoted yet.
    NoModel,
    /// The request breaks its schema.
    MalformedRequest,
    /// The request is of a version this scorer does not know.
    UnknownVersion,
    /// A feature the model needs is absent.
    MissingFeature,
    /// A feature has a value that cannot be.
    ImpossibleFeature,
    /// The deadline had passed before the request was read.
    DeadlineExceeded,
    /// The scorer failed; trying again may help.
    Internal,
}

impl ScoreResponse {
    /// An answer that is only an error.
    pub fn failed(request_id: impl Into<String>, error: ScoreError) -> Self {
        Self {
            request_id: request_id.into(),
            model: None,
            model_id: None,
            threshold: None,
            scores: Vec::new(),
            error: Some(error),
        }
    }
}

impl Message for ScoreResponse {
    const KIND: Kind = Kind { name: "score-response", major: 1 };
    /// The default exchange: an answer goes straight to the queue the request names.
    const EXCHANGE: &'static str = "";
    const MANDATORY: bool = false;

    fn message_id(&self) -> String {
        format!("{}/score-response", self.request_id)
    }

    fn check(&self) -> Result<(), Violation> {
        let scored = !self.scores.is_empty() && self.model_id.is_some() && self.threshold.is_some();
        if scored == self.error.is_some() {
            return Err(Violation::new(".", "expected scores with model_id and threshold, or error alone"));
        }
        Ok(())
    }
}
