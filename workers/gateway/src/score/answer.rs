//! The answer to a score request, as clients read it.

use common::message::Fallback;
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

/// The score of one ride.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneScore {
    #[serde(flatten)]
    pub(crate) score: RideScore,
    #[serde(flatten)]
    pub(crate) by: ScoredBy,
}

/// The scores of several rides, by one model and, where rides name their breed, by those of breeds. The model is absent when no ride
/// could be scored at all.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ManyScores {
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) request_id: Option<String>,
    /// Model family.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) model: Option<String>,
    /// The one version that made every score of this answer that names none of its own in `by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) model_id: Option<String>,
    /// Probability from which on the decision is service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) threshold: Option<f64>,
    /// Where the contributions start from; with `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) baseline: Option<Baseline>,
    /// In the order of the request.
    pub(crate) scores: Vec<ScoreOrError>,
}

/// The answer for one ride, or for several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ScoreAnswer {
    /// One ride was asked for.
    One(OneScore),
    /// An array was.
    Many(ManyScores),
}

/// Which model scored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScoredBy {
    /// Model family.
    pub(crate) model: String,
    /// The one version that made the score.
    pub(crate) model_id: String,
    /// Probability from which on the decision is service.
    pub(crate) threshold: f64,
    /// Where the contributions start from; with `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) baseline: Option<Baseline>,
}

/// What the model says of a ride that is average in everything.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct Baseline {
    /// Log-odds of service at the training mean.
    pub(crate) log_odds: f64,
    /// The same as a probability.
    pub(crate) probability: f64,
}

/// A scored ride.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RideScore {
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) ride_id: Option<String>,
    /// Of a service request, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) probability: f64,
    /// Whether the probability reaches the threshold.
    pub(crate) service: bool,
    /// In an array: the model that made this score, where it is another than that of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) by: Option<ScoredBy>,
    /// Why the ride's breed was of no account, and the model of all rides scored it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) fallback: Option<FallbackName>,
    /// What each feature adds to the log-odds, largest first; with `explain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) contributions: Vec<Reason>,
    /// The weather that was looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) weather: Option<LookedUp>,
}

/// Why a breed was of no account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Fallback)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FallbackName {
    /// It has no model beside the champion: it is unknown, has too few rides, or its model belongs to another release.
    NoBreedModel,
    /// Its model is still being read.
    Loading,
    /// Its model cannot be read or served now.
    Unavailable,
}

impl From<Fallback> for FallbackName {
    fn from(fallback: Fallback) -> Self {
        match fallback {
            Fallback::NoBreedModel => Self::NoBreedModel,
            Fallback::Loading => Self::Loading,
            Fallback::Unavailable => Self::Unavailable,
        }
    }
}

/// What one feature adds to the log-odds, against a ride that has its training mean.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reason {
    /// Feature.
    pub(crate) feature: String,
    /// Its value, in `unit`.
    pub(crate) value: f64,
    /// As in the dataset.
    pub(crate) unit: &'static str,
    /// Coefficient times distance from the training mean.
    pub(crate) log_odds: f64,
    /// Whether the model never saw such a value.
    pub(crate) outside_training: bool,
}

/// Weather as the pipeline would join it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LookedUp {
    /// Station.
    pub(crate) groundstation: String,
    /// How far away it is, kilometres.
    pub(crate) station_km: f64,
    /// Tenths of °C.
    pub(crate) tmin: f64,
    /// Tenths of °C.
    pub(crate) tmax: f64,
    /// Tenths of mm.
    pub(crate) prcp: f64,
}

/// A scored ride, or why it could not be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ScoreOrError {
    /// Scored.
    Score(RideScore),
    /// Not.
    Error(RideError),
}

/// Why one ride of several could not be scored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RideError {
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) ride_id: Option<String>,
    /// Why.
    pub(crate) error: Why,
}

/// A reason.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Why {
    /// Stable code.
    pub(crate) code: &'static str,
    /// In words, with the way out.
    pub(crate) message: String,
    /// The field at fault, as in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub(crate) field: Option<Cow<'static, str>>,
}
