//! `/v1/score`: features in, a probability and its reasons out.

use crate::{
    App,
    extract::{Asked, expect_json, read_json, whole},
    problem::{FieldError, Problem},
    scoring::{self, Judged},
};
use axum::{
    Json,
    extract::{Request, State},
};
use common::contract::message::{Fallback, PrecipitationUnit, SCORE_RIDES_MAX, TemperatureUnit};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use std::{fmt, sync::Arc};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// A ride to be scored. `distance`, `healthpoints` and `magicpoints` are needed, and the weather of its day in one of three
/// forms: `tmin`, `tmax` and `prcp` as NOAA writes them; `temperature` and `precipitation` with units; or `latitude`,
/// `longitude` and `statustime`, for which the weather is looked up as the pipeline would.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[schema(example = json!({"distance": 30, "healthpoints": 330, "magicpoints": 300,
    "temperature": {"min": 9.7, "max": 17.6, "unit": "celsius"}, "precipitation": {"amount": 4.8, "unit": "millimetre"}}))]
pub(crate) struct RideToScore {
    /// Comes back with the score.
    #[schema(max_length = 128)]
    pub(crate) ride_id: Option<String>,
    /// Breed of the unicorn: where it has a model of its own, that one scores the ride. Else the model of all rides does, and the
    /// answer says why as `fallback`.
    #[schema(max_length = 128)]
    pub(crate) breed: Option<String>,
    /// Miles, not negative.
    #[schema(minimum = 0)]
    pub(crate) distance: Option<f64>,
    /// Health points at the end of the ride.
    pub(crate) healthpoints: Option<f64>,
    /// Magic points burnt.
    pub(crate) magicpoints: Option<f64>,
    /// Lowest temperature of the day, tenths of °C.
    pub(crate) tmin: Option<f64>,
    /// Highest temperature of the day, tenths of °C.
    pub(crate) tmax: Option<f64>,
    /// Precipitation of the day, tenths of mm.
    pub(crate) prcp: Option<f64>,
    /// Instead of `tmin` and `tmax`.
    pub(crate) temperature: Option<Temperature>,
    /// Instead of `prcp`.
    pub(crate) precipitation: Option<Precipitation>,
    /// Degrees north, −90 to 90.
    pub(crate) latitude: Option<f64>,
    /// Degrees east, −180 to 180.
    pub(crate) longitude: Option<f64>,
    /// When the ride ended: `YYYY-MM-DD HH:MM:SS[.fff]` in UTC, or RFC 3339.
    #[schema(example = "2018-04-25 17:03:05")]
    pub(crate) statustime: Option<String>,
}

/// The temperatures of a day.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, ToSchema)]
pub(crate) struct Temperature {
    /// Lowest.
    pub(crate) min: f64,
    /// Highest.
    pub(crate) max: f64,
    /// Unit of both.
    #[schema(value_type = TemperatureUnitName)]
    pub(crate) unit: TemperatureUnit,
}

/// The precipitation of a day.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, ToSchema)]
pub(crate) struct Precipitation {
    /// How much.
    #[schema(minimum = 0)]
    pub(crate) amount: f64,
    /// Its unit.
    #[schema(value_type = PrecipitationUnitName)]
    pub(crate) unit: PrecipitationUnit,
}

/// Units of temperature.
#[derive(ToSchema)]
#[schema(as = TemperatureUnit, rename_all = "snake_case")]
#[allow(dead_code, missing_docs)]
pub(crate) enum TemperatureUnitName {
    Celsius,
    Fahrenheit,
    CelsiusTenths,
}

/// Units of precipitation.
#[derive(ToSchema)]
#[schema(as = PrecipitationUnit, rename_all = "snake_case")]
#[allow(dead_code, missing_docs)]
pub(crate) enum PrecipitationUnitName {
    Millimetre,
    Inch,
    MillimetreTenths,
}

/// One ride, or several.
#[derive(ToSchema)]
#[schema(as = ScoreBody)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant)] // Never made: it only describes.
pub(crate) enum Body {
    /// One ride.
    One(RideToScore),
    /// Several: each has its score or its error in its place.
    Many(Vec<RideToScore>),
}

/// Rides of an array: all are counted, no more kept than any request may bring. A few bytes each would be a hundred times that
/// in memory.
struct Rides {
    kept: Vec<RideToScore>,
    count: usize,
}

impl<'de> Deserialize<'de> for Rides {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Rides;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of rides")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut rides: A) -> Result<Rides, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < SCORE_RIDES_MAX {
                    let Some(ride) = rides.next_element()? else { break };
                    kept.push(ride);
                }
                let mut count = kept.len();
                while count >= SCORE_RIDES_MAX && rides.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Rides { kept, count })
            }
        }

        deserializer.deserialize_seq(Visit)
    }
}

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
    #[schema(nullable = false)]
    pub(crate) field: Option<&'static str>,
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
/// One ride, or an array of them. Every score of an answer is by one model, unless rides name their breed. A single ride that cannot be scored is a problem;
/// in an array each ride has its score or its error in its place.
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
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let Rides { kept: rides, count } = read_json(&body)?;
        if rides.is_empty() {
            return Err(Problem::unprocessable("no-rides", "the body is an empty array: expected at least one ride")
                .at(FieldError { field: String::new(), value: None, expected: "at least one ride".to_owned() }));
        }
        scoring::check_count(&app, count)?;
        let Judged { by, rides } = scoring::judge(&app, options.explain, rides, deadline).await?;
        let scores = rides.into_iter().map(|ride| match ride {
            Ok(score) => ScoreOrError::Score(score),
            Err(fault) => ScoreOrError::Error(fault.into_error()),
        });
        let scores = scores.collect();
        let (model, model_id, threshold, baseline) = match by {
            Some(by) => (Some(by.model), Some(by.model_id), Some(by.threshold), by.baseline),
            None => (None, None, None, None),
        };
        return Ok(Json(ScoreAnswer::Many(ManyScores { model, model_id, threshold, baseline, scores })));
    }
    let (by, score) = scoring::judge_one(&app, options.explain, read_json(&body)?, deadline).await?;
    Ok(Json(ScoreAnswer::One(OneScore { score, by })))
}
