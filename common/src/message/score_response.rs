//! `score-response.v1`: the probabilities, or why there are none.

use crate::message::{decode::Message, kind::Kind, object, violation::Violation};
use serde::{Deserialize, Serialize};

/// The answer to one score request: either `scores` with the one model that made them all, or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreResponse {
    /// Of the request; empty when the request was too broken to tell.
    pub request_id: String,
    /// Model family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The one model version that produced every score of this answer that names none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Probability from which on the decision is service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Log-odds of service at the mean of the rides the model was trained on; only where the request asks to explain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_log_odds: Option<f64>,
    /// One per ride, in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "object::list")]
    pub scores: Vec<Score>,
    /// Why the whole request has no answer.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub error: Option<ScoreError>,
}

/// The answer for one ride.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WireScore")]
pub struct Score {
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ride_id: Option<String>,
    /// Scored, or why not.
    #[serde(flatten)]
    pub outcome: ScoreOutcome,
}

/// A probability, or the error of this one ride.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ScoreOutcome {
    /// The ride was scored.
    Scored {
        /// Of a service request, 0 … 1.
        probability: f64,
        /// Whether the probability reaches the threshold.
        service: bool,
        /// Why: the contributions of all features, the largest first and equal ones in the order of the features. With
        /// [`ScoreResponse::baseline_log_odds`] they add up to the log-odds of the probability. Empty unless asked for.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        explanation: Vec<Contribution>,
        /// The model that produced this score, where it is another than [`ScoreResponse::model_id`]: that of the ride's breed.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<ScoredBy>,
        /// Why the ride's breed was of no account.
        #[serde(skip_serializing_if = "Option::is_none")]
        fallback: Option<Fallback>,
    },
    /// It could not be.
    Failed {
        /// Why.
        error: ScoreError,
    },
}

/// The model of a breed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredBy {
    /// Model family.
    pub model: String,
    /// The model version that produced the score.
    pub model_id: String,
    /// Probability from which on its decision is service.
    pub threshold: f64,
    /// Log-odds of service at the mean of the rides it was trained on; only where the request asks to explain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_log_odds: Option<f64>,
}

/// Why a ride that names a breed was scored by the model of all rides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// The breed has no model beside the champion: it is unknown, has too few rides, or its model belongs to another release.
    NoBreedModel,
    /// Its model is still being read.
    Loading,
    /// Its model cannot be read or served now.
    Unavailable,
}

/// What one feature adds to the log-odds of a ride.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Feature.
    pub feature: String,
    /// Its value for this ride, in the unit of the dataset.
    pub value: f64,
    /// Log-odds more (or, below 0, less) than at the mean of the rides the model was trained on.
    pub log_odds: f64,
    /// The value is smaller, or larger, than any the model was trained on: it extrapolates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outside_training: bool,
}

#[derive(Deserialize)]
struct WireScore {
    ride_id: Option<String>,
    probability: Option<f64>,
    service: Option<bool>,
    #[serde(default, deserialize_with = "object::list")]
    explanation: Vec<Contribution>,
    #[serde(default, deserialize_with = "object::optional")]
    by: Option<ScoredBy>,
    fallback: Option<Fallback>,
    #[serde(default, deserialize_with = "object::optional")]
    error: Option<ScoreError>,
}

impl TryFrom<WireScore> for Score {
    type Error = &'static str;

    fn try_from(wire: WireScore) -> Result<Self, Self::Error> {
        let WireScore { explanation, by, fallback, .. } = wire;
        let outcome = match (wire.probability, wire.service, wire.error) {
            (Some(probability), Some(service), None) => {
                ScoreOutcome::Scored { probability, service, explanation, by, fallback }
            }
            (None, None, Some(error)) if explanation.is_empty() && by.is_none() && fallback.is_none() => {
                ScoreOutcome::Failed { error }
            }
            _ => return Err("expected either probability and service, or error"),
        };
        Ok(Self { ride_id: wire.ride_id, outcome })
    }
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
            baseline_log_odds: None,
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
        let threshold = match (&self.model, &self.model_id, self.threshold, &self.error) {
            (Some(_), Some(_), Some(threshold), None) if !self.scores.is_empty() => threshold,
            (None, None, None, Some(_)) if self.scores.is_empty() && self.baseline_log_odds.is_none() => return Ok(()),
            _ => return Err(Violation::new(".", "expected either model, model_id, threshold and scores, or error")),
        };
        let share = 0.0..=1.0;
        if !share.contains(&threshold) {
            return Err(Violation::new("threshold", "expected a number from 0 to 1"));
        }
        for (index, score) in self.scores.iter().enumerate() {
            let ScoreOutcome::Scored { probability, by, .. } = &score.outcome else { continue };
            if !share.contains(probability) {
                return Err(Violation::new(format!("scores[{index}].probability"), "expected a number from 0 to 1"));
            }
            if by.as_ref().is_some_and(|by| !share.contains(&by.threshold)) {
                return Err(Violation::new(format!("scores[{index}].by.threshold"), "expected a number from 0 to 1"));
            }
        }
        Ok(())
    }
}
