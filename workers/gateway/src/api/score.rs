//! `/v1/score`: features in, a probability and its reasons out.

use super::score_body::{self, Body, RideOrRides, Rides};
use crate::{
    App,
    extract::{Asked, expect_json, read_json, whole},
    problem::{FieldError, Problem},
    scoring::{self, Judged, Manner},
};
use axum::{
    Json,
    extract::{Request, State},
};
use common::message::Fallback;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// The score of one ride.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneScore {
    #[serde(flatten)]
    score: RideScore,
    #[serde(flatten)]
    by: ScoredBy,
}

/// The scores of several rides, by one model and, where rides name their breed, by those of breeds. The model is absent when no ride
/// could be scored at all.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ManyScores {
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
    /// Model family.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    model: Option<String>,
    /// The one version that made every score of this answer that names none of its own in `by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    model_id: Option<String>,
    /// Probability from which on the decision is service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    threshold: Option<f64>,
    /// Where the contributions start from; with `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    baseline: Option<Baseline>,
    /// In the order of the request.
    scores: Vec<ScoreOrError>,
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

/// Options of a score request.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Options {
    /// Whether to say why: each feature's contribution.
    #[param(required = false, default = true)]
    explain: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { explain: true }
    }
}

/// How likely is a ride to end in a service request?
///
/// Scores one ride, an array of rides, or an object with `rides` as in `score-request.v1`. All scores of an answer come
/// from one model, unless rides name their breed. If a single ride cannot be scored, the answer is a problem; of
/// several rides each has its score or its error in its place. The body may be compressed as `Content-Encoding` says:
/// gzip, deflate, zstd or br.
#[utoipa::path(post, path = "/v1/score", tag = "Scores", params(Options), request_body = Body,
    responses((status = 200, description = "The score, or the scores", body = ScoreAnswer)))]
pub(crate) async fn score(
    State(app): State<Arc<App>>,
    Asked(options): Asked<Options>,
    request: Request,
) -> Result<Json<ScoreAnswer>, Problem> {
    let deadline = Instant::now() + app.deadline();
    expect_json(request.headers())?;
    let body = whole(request, &app).await?;
    let RideOrRides { ride, rides, units, explain, request_id } = score_body::read(&body)?;
    let manner = Manner { explain: explain.unwrap_or(options.explain), units };
    match rides {
        Some(_) if !ride.is_empty() => {
            let expected = "either the members of one ride or rides";
            Err(Problem::invalid("invalid-field", "rides", None, expected))
        }
        Some(rides) => many(&app, manner, rides, request_id, deadline).await,
        None if ride.is_empty() && ride.spellings.is_empty() => Err(no_ride(&body)),
        None => {
            let (by, score) = scoring::judge_one(&app, manner, ride, deadline).await?;
            Ok(Json(ScoreAnswer::One(OneScore { score, by })))
        }
    }
}

async fn many(
    app: &App,
    manner: Manner,
    Rides { kept, count }: Rides,
    request_id: Option<String>,
    deadline: Instant,
) -> Result<Json<ScoreAnswer>, Problem> {
    if kept.is_empty() {
        return Err(Problem::unprocessable("no-rides", "the array of rides is empty: expected at least one ride")
            .at(FieldError { field: String::new(), value: None, expected: "at least one ride".to_owned() }));
    }
    scoring::check_count(app, count)?;
    let Judged { by, rides } = scoring::judge(app, manner, kept, deadline).await?;
    let scores = rides.into_iter().map(|ride| match ride {
        Ok(score) => ScoreOrError::Score(score),
        Err(fault) => ScoreOrError::Error(fault.into_error()),
    });
    let scores = scores.collect();
    let (model, model_id, threshold, baseline) = match by {
        Some(by) => (Some(by.model), Some(by.model_id), Some(by.threshold), by.baseline),
        None => (None, None, None, None),
    };
    Ok(Json(ScoreAnswer::Many(ManyScores { request_id, model, model_id, threshold, baseline, scores })))
}

/// The problem of an object without any member of a ride: names the array that may hold the rides.
fn no_ride(body: &[u8]) -> Problem {
    let is_array_of_objects = |value: &Value| value.as_array().is_some_and(|rides| rides.iter().any(Value::is_object));
    let members: serde_json::Map<String, Value> = read_json(body).unwrap_or_default();
    let expected = "distance, healthpoints, magicpoints and the weather of the day, or an array of such rides";
    let Some((name, rides)) = members.iter().find(|(_, value)| is_array_of_objects(value)) else {
        return Problem::unprocessable("missing-feature", "distance is missing: the body has no member of a ride")
            .at(FieldError { field: "distance".to_owned(), value: None, expected: expected.to_owned() });
    };
    let shown: String = name.chars().take(40).collect();
    let length = rides.as_array().map_or(0, Vec::len);
    let detail = format!(
        "the body has no member of a ride, but {shown:?} is an array of {length}: send the array itself, or name it rides"
    );
    let expected = "rides, or the array itself".to_owned();
    Problem::unprocessable("no-rides", detail).at(FieldError { field: shown, value: None, expected })
}
