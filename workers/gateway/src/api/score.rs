//! `/v1/score`: features in, a probability and its explanation out.

use crate::{
    app::App,
    http::{
        extract::{Query, expect_json, whole_body},
        problem::{Answer, FieldError, Problem},
    },
    score::{
        answer::{ManyScores, OneScore, ScoreAnswer, ScoreOrError},
        body::{self, Body, RideOrRides, Rides},
        coalesce::SharedOptions,
        json::read_json,
        scoring::{self, RideOutcomes, ScoreOptions},
    },
};
use axum::{
    Json,
    extract::{Request, State},
};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::IntoParams;

/// Options of a score request.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Options {
    /// Whether to explain the score by each feature's contribution.
    #[param(required = false, default = true)]
    explain: bool,
    /// Whether missing features are imputed. If not, each is an error.
    #[param(required = false, default = true)]
    impute: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { explain: true, impute: true }
    }
}

/// Scores rides: the probability that each ends in a service request.
///
/// Accepts one ride, an array of rides, or an object with `rides` as in `score-request.v1`. All scores of an answer come from one
/// model, unless rides name their breed. A missing feature takes its expectation given the known ones; the answer lists it in `assumed`
/// and gives an interval of the probability. If a single ride cannot be scored, the answer is a problem; of several rides, each has
/// its score or its error in its position. The body may be compressed as `Content-Encoding` says: gzip, deflate, zstd or br.
#[utoipa::path(post, path = "/v1/score", tag = "Scores", params(Options), request_body = Body,
    responses((status = 200, description = "The score, or the scores", body = ScoreAnswer)))]
pub(crate) async fn score(
    State(app): State<Arc<App>>,
    Query(options): Query<Options>,
    request: Request,
) -> Answer<ScoreAnswer> {
    let deadline = Instant::now() + app.deadline();
    expect_json(request.headers())?;
    let body = whole_body(request, &app).await?;
    let RideOrRides { ride, rides, units, explain, impute, request_id } = body::read(&body)?;
    let shared =
        SharedOptions { explain: explain.unwrap_or(options.explain), impute: impute.unwrap_or(options.impute) };
    let score_options = ScoreOptions { shared, units };
    match rides {
        Some(_) if !ride.is_empty() => {
            let expected = "either the members of one ride or rides";
            Err(Problem::invalid("invalid-field", "rides", None, expected))
        }
        Some(rides) => many(&app, score_options, rides, request_id, deadline).await,
        None if ride.is_empty() && ride.spellings.is_empty() => Err(no_ride(&body)),
        None => {
            let (by, score) = scoring::score_one(&app, score_options, ride, deadline).await?;
            Ok(Json(ScoreAnswer::One(Box::new(OneScore { score, by }))))
        }
    }
}

async fn many(
    app: &App,
    score_options: ScoreOptions,
    Rides { kept, count }: Rides,
    request_id: Option<String>,
    deadline: Instant,
) -> Answer<ScoreAnswer> {
    if kept.is_empty() {
        return Err(Problem::unprocessable("no-rides", "the array of rides is empty: expected at least one ride")
            .at(FieldError { field: String::new(), value: None, expected: "at least one ride".to_owned() }));
    }
    scoring::check_count(app, count)?;
    let RideOutcomes { by, rides } = scoring::score_all(app, score_options, kept, deadline).await?;
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

/// Returns the problem of an object without any member of a ride. It names the array that may hold the rides.
fn no_ride(body: &[u8]) -> Problem {
    let is_array_of_objects = |value: &Value| value.as_array().is_some_and(|rides| rides.iter().any(Value::is_object));
    let members: serde_json::Map<String, Value> = read_json(body).unwrap_or_default();
    let expected =
        "at least one of distance, healthpoints, magicpoints and the weather of the day, or an array of such rides";
    let Some((name, rides)) = members.iter().find(|(_, value)| is_array_of_objects(value)) else {
        return Problem::unprocessable("missing-feature", "distance is missing: the body has no member of a ride")
            .at(FieldError { field: "distance".to_owned(), value: None, expected: expected.to_owned() });
    };
    let excerpt: String = name.chars().take(40).collect();
    let length = rides.as_array().map_or(0, Vec::len);
    let detail = format!(
        "the body has no member of a ride, but {excerpt:?} is an array of {length}: send the array itself, or name it rides"
    );
    let expected = "rides, or the array itself".to_owned();
    Problem::unprocessable("no-rides", detail).at(FieldError { field: excerpt, value: None, expected })
}
