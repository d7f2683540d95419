//! The Open Inference Protocol (KServe V2), for clients of model servers: tensors in JSON, or in binary after the JSON (the
//! protocol's binary data extension).

use crate::{
    app::App,
    http::{
        extract::{Path, expect_json, whole_body},
        problem::{Answer, Problem, store_failed},
    },
    score::{
        coalesce::SharedOptions,
        json::read_json,
        scoring::{self, RideOutcomes, ScoreOptions},
        tensors::{
            InferenceRequest, InferenceResponse, OUTPUTS, answer_parameters, imputes, outputs, requested_outputs, rides,
        },
    },
};
use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::{
    features::FEATURES,
    message::Units,
    model::{Alias, AliasName},
    topology::queue,
};
use records::registry;
use serde::Serialize;
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::ToSchema;

/// Length of the JSON before the binary data, bytes.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Name, version and extensions of the server.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

/// Whether the server is alive.
#[derive(Serialize, ToSchema)]
pub(crate) struct Live {
    live: bool,
}

/// Whether the server, or a model, is ready.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    /// Name of the model; absent for the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    ready: bool,
}

/// A model and its tensors. The first dimension is the number of rides.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelMetadata {
    name: String,
    /// The served version.
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// A tensor.
#[derive(Serialize, ToSchema)]
pub(crate) struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    /// −1 stands for any number of rides.
    shape: [i64; 1],
}

/// Returns name, version and extensions of the server.
#[utoipa::path(get, path = "/v2", tag = "Open Inference Protocol", responses((status = 200, description = "The server", body = ServerMetadata)))]
pub(crate) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: "wildrydes", version: env!("CARGO_PKG_VERSION"), extensions: ["binary_tensor_data"] })
}

/// Returns whether the gateway is alive.
#[utoipa::path(get, path = "/v2/health/live", tag = "Open Inference Protocol", security(()), responses((status = 200, description = "It is alive", body = Live)))]
pub(crate) async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// Returns whether the gateway can score.
#[utoipa::path(get, path = "/v2/health/ready", tag = "Open Inference Protocol", security(()),
    responses((status = 200, description = "It is ready", body = Ready)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Answer<Ready> {
    super::health::readiness(&app)?;
    Ok(Json(Ready { name: None, ready: true }))
}

/// Returns a model's name, version, inputs and outputs.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "Open Inference Protocol", params(("model" = String, Path, description = "Model family")),
    responses((status = 200, description = "The model", body = ModelMetadata)))]
pub(crate) async fn model(State(app): State<Arc<App>>, Path(model): Path<String>) -> Answer<ModelMetadata> {
    metadata(&app, &model, None).await.map(Json)
}

/// Returns name, inputs and outputs of the served version; 404 for other versions.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}", tag = "Open Inference Protocol",
    params(("model" = String, Path, description = "Model family"), ("version" = String, Path, description = "Model id")),
    responses((status = 200, description = "The model", body = ModelMetadata)))]
pub(crate) async fn model_version(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
) -> Answer<ModelMetadata> {
    metadata(&app, &model, Some(&version)).await.map(Json)
}

/// Returns whether a model can score.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "Open Inference Protocol", params(("model" = String, Path, description = "Model family")),
    responses((status = 200, description = "It is ready", body = Ready)))]
pub(crate) async fn model_ready(State(app): State<Arc<App>>, Path(model): Path<String>) -> Answer<Ready> {
    is_ready(&app, model, None).await
}

/// Returns whether one version of a model can score.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/ready", tag = "Open Inference Protocol",
    params(("model" = String, Path, description = "Model family"), ("version" = String, Path, description = "Model id")),
    responses((status = 200, description = "It is ready", body = Ready)))]
pub(crate) async fn model_version_ready(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
) -> Answer<Ready> {
    is_ready(&app, model, Some(&version)).await
}

/// Scores rides in tensors.
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "Open Inference Protocol", params(("model" = String, Path, description = "Model family")),
    request_body = InferenceRequest, responses((status = 200, description = "The outputs", body = InferenceResponse)))]
pub(crate) async fn infer(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    infer_rides(&app, &model, None, request).await
}

/// Scores rides in tensors by one version; 404 if another version is served.
#[utoipa::path(post, path = "/v2/models/{model}/versions/{version}/infer", tag = "Open Inference Protocol",
    params(("model" = String, Path, description = "Model family"), ("version" = String, Path, description = "Model id")),
    request_body = InferenceRequest, responses((status = 200, description = "The outputs", body = InferenceResponse)))]
pub(crate) async fn infer_version(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    infer_rides(&app, &model, Some(&version), request).await
}

async fn served(app: &App, model: &str, version: Option<&str>) -> Result<Alias, Problem> {
    let served = &app.settings.model;
    if model != served {
        return Err(Problem::not_found(format!("the model {model:?} is not served: the served model is {served:?}")));
    }
    let champion = registry::read_alias(&app.store, model, AliasName::Champion).await;
    let champion = champion.map_err(store_failed)?;
    let champion = champion.ok_or_else(|| {
        let detail =
            format!("there is no model {model} yet: the fleet trains one after enough labelled rides are ingested");
        Problem::unavailable("no-model", detail)
    })?;
    match version {
        Some(version) if version != champion.model_id => Err(not_served(version, &champion.model_id)),
        _ => Ok(champion),
    }
}

fn not_served(version: &str, champion: &str) -> Problem {
    Problem::not_found(format!("version {version:?} is not served: the champion is {champion:?}"))
}

async fn metadata(app: &App, model: &str, version: Option<&str>) -> Result<ModelMetadata, Problem> {
    let champion = served(app, model, version).await?;
    let tensor = |name, datatype| TensorMetadata { name, datatype, shape: [-1] };
    Ok(ModelMetadata {
        name: champion.model,
        versions: vec![champion.model_id],
        platform: "wildrydes_logistic_regression",
        inputs: FEATURES.iter().map(|feature| tensor(feature.name, "FP64")).collect(),
        outputs: OUTPUTS.iter().map(|(name, datatype, _)| tensor(name, datatype)).collect(),
    })
}

async fn is_ready(app: &App, model: String, version: Option<&str>) -> Answer<Ready> {
    served(app, &model, version).await?;
    app.link.requester(queue::SCORER)?;
    Ok(Json(Ready { name: Some(model), ready: true }))
}

async fn infer_rides(app: &App, model: &str, version: Option<&str>, request: Request) -> Result<Response, Problem> {
    let deadline = Instant::now() + app.deadline();
    if model != app.settings.model || version.is_some() {
        served(app, model, version).await?;
    }
    let headers = request.headers();
    let json_length = match headers.get(JSON_LENGTH) {
        None => None,
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse::<usize>().ok());
            let expected = || Problem::unreadable(format!("{JSON_LENGTH}: expected a number of bytes"));
            Some(length.ok_or_else(expected)?)
        }
    };
    if json_length.is_none() {
        expect_json(headers)?;
    }
    let body = whole_body(request, app).await?;
    let json_length = json_length.unwrap_or(body.len());
    let (json, binary) = body.split_at_checked(json_length).ok_or_else(|| {
        Problem::unreadable(format!("{JSON_LENGTH} is {json_length}: the body has only {} bytes", body.len()))
    })?;
    let request: InferenceRequest = read_json(json)?;
    let requested_outputs = requested_outputs(&request)?;
    let rides = rides(&request, binary, app.settings.rides_max)?;
    let shared = SharedOptions { explain: false, impute: imputes(&request) };
    let options = ScoreOptions { shared, units: Units::default() };
    let RideOutcomes { by, rides } = scoring::score_all(app, options, rides, deadline).await?;
    let Some(by) = by else { return Err(Problem::internal("rides without a model")) };
    if let Some(version) = version.filter(|version| by.model_id != *version) {
        return Err(not_served(version, &by.model_id));
    }
    // An output tensor cannot hold the error of one ride.
    let mut scores = Vec::with_capacity(rides.len());
    for (row, ride) in rides.into_iter().enumerate() {
        scores.push(ride.map_err(|fault| fault.in_row(row).into_problem())?);
    }
    let (outputs, binary_data) = outputs(&requested_outputs, &scores);
    let parameters = answer_parameters(&scores);
    let (model_name, model_version) = (by.model, by.model_id);
    respond(&InferenceResponse { model_name, model_version, id: request.id, parameters, outputs }, binary_data)
}

fn respond(answer: &InferenceResponse, binary_data: Vec<u8>) -> Result<Response, Problem> {
    if binary_data.is_empty() {
        return Ok((StatusCode::OK, Json(answer)).into_response());
    }
    let mut body = serde_json::to_vec(answer).map_err(|error| Problem::internal(error.to_string()))?;
    let json_length = body.len();
    body.extend_from_slice(&binary_data);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (JSON_LENGTH, HeaderValue::from(json_length)),
    ];
    Ok((headers, Bytes::from(body)).into_response())
}
