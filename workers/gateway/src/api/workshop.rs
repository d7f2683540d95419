//! `/v1/score/workshop`: the workshop's request, answered with a bare number.

use crate::{
    app::App,
    http::{extract::whole_body, problem::Answer},
    score::{
        body,
        scoring::{self, ScoreOptions},
    },
};
use axum::{
    Json,
    extract::{Request, State},
};
use common::message::Units;
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::ToSchema;

/// A ride as the workshop's clients send it: keys in any case, numbers also as strings, weather as NOAA writes it.
#[derive(ToSchema)]
#[schema(example = json!({"distance": 30, "healthpoints": 30, "magicpoints": 1500, "TMAX": 333, "TMIN": 300, "PRCP": 100}))]
#[allow(dead_code)]
pub(crate) struct WorkshopRide {
    /// Miles.
    distance: f64,
    /// Health points.
    healthpoints: f64,
    /// Magic points.
    magicpoints: f64,
    /// Highest temperature, tenths of °C.
    #[schema(rename = "TMAX")]
    tmax: f64,
    /// Lowest temperature, tenths of °C.
    #[schema(rename = "TMIN")]
    tmin: f64,
    /// Precipitation, tenths of mm.
    #[schema(rename = "PRCP")]
    prcp: f64,
}

/// Scores a ride of the workshop's clients: the probability as a bare number, rounded to two places.
///
/// Accepts every Content-Type, because `curl -d` sends that of a form.
#[utoipa::path(post, path = "/v1/score/workshop", tag = "Scores", request_body = WorkshopRide,
    responses((status = 200, description = "The probability, 0.00 to 1.00", body = f64, content_type = "application/json", example = json!(0.63))))]
pub(crate) async fn workshop(State(app): State<Arc<App>>, request: Request) -> Answer<f64> {
    let deadline = Instant::now() + app.deadline();
    let ride = body::read_one(&whole_body(request, &app).await?)?;
    let options = ScoreOptions { explain: false, units: Units::default() };
    let (_, score) = scoring::score_one(&app, options, ride, deadline).await?;
    Ok(Json((score.probability * 100.0).round() / 100.0))
}
