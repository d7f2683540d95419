//! `score-response.v1`: the answer to a score request.

use crate::message::{decode::Message, object, violation::Violation, weather_response::PlaceWeather};
use serde::{Deserialize, Serialize};

/// The answer to one score request: either the scores with their model, or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreResponse {
    /// Id of the request; empty if the request could not be decoded.
    pub request_id: String,
    /// Model family, for example `service-request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Id of the model version that produced every score without a `by`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Smallest probability, 0 to 1, at which the decision is service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Log-odds of service at the mean of the model's training rides; present only if the request sets `explain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_log_odds: Option<f64>,
    /// One score per ride, in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "object::list")]
    pub scores: Vec<Score>,
    /// Why the request as a whole has no scores.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub error: Option<ScoreError>,
}

/// The result for one ride.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WireScore")]
pub struct Score {
    /// Ride id, as in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ride_id: Option<String>,
    /// The score or the error.
    #[serde(flatten)]
    pub outcome: ScoreOutcome,
}

/// The score or the error of one ride.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ScoreOutcome {
    /// The ride was scored.
    Scored {
        /// Probability of a service request, 0 to 1.
        probability: f64,
        /// Whether the probability reaches the threshold.
        service: bool,
        /// Contributions of all features, the largest first, equal ones in the order of the features. Together with the
        /// baseline log-odds they add up to the log-odds of the probability; of a ride with assumed features, to the
        /// log-odds at the assumed values. Empty unless the request sets `explain`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        explanation: Vec<Contribution>,
        /// The breed model that produced the score; absent if [`ScoreResponse::model_id`] did.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<ScoredBy>,
        /// Why the global model scored the ride although it names a breed.
        #[serde(skip_serializing_if = "Option::is_none")]
        fallback: Option<Fallback>,
        /// The features that were missing, with the values that were assumed, in the order of the features.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        assumed: Vec<Assumed>,
        /// 90 % interval of the probability that all features together would give; present if a feature was assumed.
        #[serde(skip_serializing_if = "Option::is_none")]
        interval: Option<ProbabilityInterval>,
        /// Reasons for caution, in words: values far outside the range of the training rides, and weather that was not found.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
        /// The weather that was looked up for the place and time of the ride.
        #[serde(skip_serializing_if = "Option::is_none")]
        weather: Option<Box<PlaceWeather>>,
    },
    /// The ride could not be scored.
    Failed {
        /// The reason.
        error: ScoreError,
    },
}

/// The breed model that produced a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredBy {
    /// Family of the breed model.
    pub model: String,
    /// Id of the model version.
    pub model_id: String,
    /// Smallest probability, 0 to 1, at which the decision is service.
    pub threshold: f64,
    /// Log-odds of service at the mean of the breed model's training rides; present only if the request sets `explain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_log_odds: Option<f64>,
}

/// Why the global model scored a ride that names a breed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// The breed has no model in the champion's release: it is unknown, has too few rides, or its model belongs to
    /// another release.
    NoBreedModel,
    /// The breed model is still being loaded.
    Loading,
    /// The breed model cannot be read or served at present.
    Unavailable,
}

/// The contribution of one feature to the log-odds of a ride.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Name of the feature.
    pub feature: String,
    /// Value of the feature, in the unit of the dataset.
    pub value: f64,
    /// Difference of the log-odds from those at the mean of the training rides.
    pub log_odds: f64,
    /// Whether the value lies outside the range of the training rides, so that the model extrapolates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outside_training: bool,
}

/// A missing feature, and what was assumed instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assumed {
    /// Name of the feature.
    pub feature: String,
    /// Its expectation given the known features, in the unit of the dataset.
    pub value: f64,
}

/// An interval of a probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProbabilityInterval {
    /// Lower end, 0 to 1.
    pub low: f64,
    /// Upper end, `low` to 1.
    pub high: f64,
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
    #[serde(default, deserialize_with = "object::list")]
    assumed: Vec<Assumed>,
    #[serde(default, deserialize_with = "object::optional")]
    interval: Option<ProbabilityInterval>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default, deserialize_with = "object::optional")]
    weather: Option<Box<PlaceWeather>>,
    #[serde(default, deserialize_with = "object::optional")]
    error: Option<ScoreError>,
}

impl WireScore {
    /// Returns whether it has a member that only a scored ride has.
    fn has_details(&self) -> bool {
        let is_empty = self.explanation.is_empty() && self.assumed.is_empty() && self.warnings.is_empty();
        let is_some = self.by.is_some() || self.fallback.is_some() || self.interval.is_some() || self.weather.is_some();
        !is_empty || is_some
    }
}

impl TryFrom<WireScore> for Score {
    type Error = &'static str;

    fn try_from(wire: WireScore) -> Result<Self, Self::Error> {
        let has_details = wire.has_details();
        let WireScore { explanation, by, fallback, assumed, interval, warnings, weather, .. } = wire;
        let outcome = match (wire.probability, wire.service, wire.error) {
            (Some(probability), Some(service), None) => ScoreOutcome::Scored {
                probability,
                service,
                explanation,
                by,
                fallback,
                assumed,
                interval,
                warnings,
                weather,
            },
            (None, None, Some(error)) if !has_details => ScoreOutcome::Failed { error },
            _ => return Err("expected either probability and service, or error"),
        };
        Ok(Self { ride_id: wire.ride_id, outcome })
    }
}

/// Why a request or a ride has no score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreError {
    /// Stable code.
    pub code: ScoreErrorCode,
    /// The error in words, with its remedy.
    pub message: String,
    /// Path of the invalid field, for example `rides[3].tmin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Codes of score errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreErrorCode {
    /// No model has been promoted.
    NoModel,
    /// The request breaks its schema.
    MalformedRequest,
    /// The scorer does not know the version of the request.
    UnknownVersion,
    /// A feature that the model uses is absent.
    MissingFeature,
    /// A feature has an impossible value.
    ImpossibleFeature,
    /// The deadline passed before the scorer read the request.
    DeadlineExceeded,
    /// The scorer failed; a retry may help.
    Internal,
}

impl ScoreResponse {
    /// Returns an answer that consists of an error.
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
            let ScoreOutcome::Scored { probability, by, interval, .. } = &score.outcome else { continue };
            if !share.contains(probability) {
                return Err(Violation::new(format!("scores[{index}].probability"), "expected a number from 0 to 1"));
            }
            for (end, value) in interval.iter().flat_map(|interval| [("low", interval.low), ("high", interval.high)]) {
                if !share.contains(&value) {
                    let path = format!("scores[{index}].interval.{end}");
                    return Err(Violation::new(path, "expected a number from 0 to 1"));
                }
            }
            if by.as_ref().is_some_and(|by| !share.contains(&by.threshold)) {
                return Err(Violation::new(format!("scores[{index}].by.threshold"), "expected a number from 0 to 1"));
            }
        }
        Ok(())
    }
}
