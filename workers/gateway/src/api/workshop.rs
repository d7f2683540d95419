//! `/v1/score/workshop`: the workshop's request, answered with a bare number.

use crate::{
    app::App,
    http::{
        extract::{Query, whole_body},
        problem::Problem,
    },
    score::{
        answer::{LookedUp, RideScore},
        body,
        coalesce::SharedOptions,
        scoring::{self, ScoreOptions},
    },
};
use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
};
use common::message::Units;
use serde::Deserialize;
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{self, RefOr},
};

/// The features that were assumed, with their values.
const ASSUMED: HeaderName = HeaderName::from_static("wildrydes-assumed");
/// Both ends of the 90 % interval of the probability.
const INTERVAL: HeaderName = HeaderName::from_static("wildrydes-interval");
/// Reasons for caution.
const WARNING: HeaderName = HeaderName::from_static("wildrydes-warning");
/// The weather that was looked up: its kind, its source, and its station or grid cell.
const WEATHER: HeaderName = HeaderName::from_static("wildrydes-weather");

/// A ride as the workshop's clients send it: keys in any case, numbers also as strings, weather as NOAA writes it.
#[derive(ToSchema)]
#[schema(example = json!({"distance": 30, "healthpoints": 30, "magicpoints": 1500, "TMAX": 333, "TMIN": 300, "PRCP": 100}))]
#[allow(dead_code)]
pub(crate) struct WorkshopRide {
    /// Miles.
    distance: Option<f64>,
    /// Health points.
    healthpoints: Option<f64>,
    /// Magic points.
    magicpoints: Option<f64>,
    /// Highest temperature, tenths of °C.
    #[schema(rename = "TMAX")]
    tmax: Option<f64>,
    /// Lowest temperature, tenths of °C.
    #[schema(rename = "TMIN")]
    tmin: Option<f64>,
    /// Precipitation, tenths of mm.
    #[schema(rename = "PRCP")]
    prcp: Option<f64>,
}

/// Options of a request of the workshop's clients.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct WorkshopOptions {
    /// Whether missing features are imputed. If not, each is an error.
    #[param(required = false, default = true)]
    impute: bool,
}

impl Default for WorkshopOptions {
    fn default() -> Self {
        Self { impute: true }
    }
}

/// Scores a ride of the workshop's clients: the probability as a bare number, rounded to two places.
///
/// Accepts every Content-Type, because `curl -d` sends that of a form. If features were missing, headers of the answer name the
/// assumed values and the interval of the probability; a value far outside the training range has a header as well.
#[utoipa::path(post, path = "/v1/score/workshop", tag = "Scores", params(WorkshopOptions), request_body = WorkshopRide,
    responses((status = 200, description = "The probability, 0.00 to 1.00", body = f64, content_type = "application/json", example = json!(0.63))))]
pub(crate) async fn workshop(
    State(app): State<Arc<App>>,
    Query(WorkshopOptions { impute }): Query<WorkshopOptions>,
    request: Request,
) -> Result<(HeaderMap, Json<f64>), Problem> {
    let deadline = Instant::now() + app.deadline();
    let ride = body::read_one(&whole_body(request, &app).await?)?;
    let options = ScoreOptions { shared: SharedOptions { explain: false, impute }, units: Units::default() };
    let (_, score) = scoring::score_one(&app, options, ride, deadline).await?;
    Ok((headers(&score), Json(rounded(score.probability, 100.0))))
}

/// Adds the headers of the answer to the document.
pub(crate) fn describe_headers(document: &mut openapi::OpenApi) {
    let operation = document.paths.paths.get_mut("/v1/score/workshop").and_then(|item| item.post.as_mut());
    let answer = operation.and_then(|operation| operation.responses.responses.get_mut("200"));
    let Some(RefOr::T(answer)) = answer else { return };
    for (name, description) in [
        (
            ASSUMED,
            "The missing features with the assumed values in NOAA's units, as in `tmin=97.5`; absent if there are none",
        ),
        (INTERVAL, "90 % interval of the probability, as in `0.25 0.75`; absent if no feature was assumed"),
        (WARNING, "Reasons for caution, in words; absent if there are none"),
        (
            WEATHER,
            "Kind, source, and station or grid cell of the weather that was looked up, as in `forecast nws OKX/33,35`; absent if none was",
        ),
    ] {
        let text = openapi::ObjectBuilder::new().schema_type(openapi::Type::String).build();
        let header = openapi::HeaderBuilder::new().schema(Some(text)).description(Some(description)).build();
        answer.headers.insert(name.to_string(), RefOr::T(header));
    }
}

/// Returns what the bare number cannot say.
fn headers(score: &RideScore) -> HeaderMap {
    let assumed = score.assumed.iter().map(|assumed| format!("{}={}", assumed.feature, rounded(assumed.value, 10.0)));
    let assumed = assumed.collect::<Vec<_>>().join(", ");
    let interval = score.interval.map(|interval| {
        let [low, high] = [interval.low, interval.high].map(|end| rounded(end, 100.0));
        format!("{low} {high}")
    });
    let warnings = score.warnings.join("; ");
    let weather = score
        .weather
        .as_deref()
        .map(|LookedUp { kind, source, groundstation, .. }| [kind, source.as_str(), groundstation.as_str()].join(" "));
    let lines = [
        (ASSUMED, assumed),
        (INTERVAL, interval.unwrap_or_default()),
        (WARNING, warnings),
        (WEATHER, weather.unwrap_or_default()),
    ];
    let lines = lines.into_iter().filter(|(_, value)| !value.is_empty());
    lines.filter_map(|(name, value)| Some((name, HeaderValue::from_str(&in_ascii(&value)).ok()?))).collect()
}

/// Replaces the characters that a header cannot have.
fn in_ascii(text: &str) -> String {
    text.replace('°', "degrees ").replace(|c: char| !c.is_ascii() || c.is_ascii_control(), "?")
}

/// Rounds to a fraction of `parts` to the whole.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::answer::{AssumedFeature, ScoreInterval};
    use common::message::{Forecast, PlaceWeather};

    fn scored() -> RideScore {
        RideScore {
            ride_id: None,
            probability: 0.5,
            service: false,
            by: None,
            fallback: None,
            contributions: Vec::new(),
            assumed: Vec::new(),
            interval: None,
            warnings: Vec::new(),
            weather: None,
        }
    }

    #[test]
    fn headers_say_what_the_number_cannot() {
        assert!(headers(&scored()).is_empty());
        let feature = |feature: &str, value: f64| AssumedFeature { feature: feature.to_owned(), value, unit: "" };
        let (source, cell, issued) = ("nws".into(), "OKX/33,35".into(), "2026-11-30 17:24:41".parse().unwrap());
        let [tmin, tmax, prcp] = [22, 89, 31];
        let forecast = PlaceWeather::Forecast(Forecast { source, cell, cell_km: 1.2, issued, tmin, tmax, prcp });
        let score = RideScore {
            assumed: vec![feature("tmin", 97.46), feature("prcp", 0.0)],
            interval: Some(ScoreInterval { low: 0.249, high: 0.751 }),
            warnings: vec!["tmax is 210 °C".to_owned(), "no file in /wetter/Köln".to_owned()],
            weather: LookedUp::of(forecast).ok().map(Box::new),
            ..scored()
        };
        let headers = headers(&score);
        let text = |name: HeaderName| headers[name].to_str().unwrap();
        assert_eq!(text(ASSUMED), "tmin=97.5, prcp=0");
        assert_eq!(text(INTERVAL), "0.25 0.75");
        assert_eq!(text(WARNING), "tmax is 210 degrees C; no file in /wetter/K?ln");
        assert_eq!(text(WEATHER), "forecast nws OKX/33,35");
    }
}
