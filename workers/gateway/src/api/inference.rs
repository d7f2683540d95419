//! The Open Inference Protocol (KServe V2), so that clients of model servers can ask as they are used to: tensors in JSON, or
//! behind the JSON in binary (the protocol's binary data extension).

use crate::{
    app::App,
    http::{
        extract::{Path, expect_json, whole},
        problem::{Problem, store_failed},
    },
    score::{
        answer::RideScore,
        json::read_json,
        scoring::{self, Judged, Manner},
        tensors::{InferenceRequest, InferenceResponse, OUTPUTS, OutputTensor, rides, wanted},
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
use records::alias;
use serde::Serialize;
use serde_json::{Map, json};
use std::sync::Arc;
use tokio::time::Instant;
use utoipa::ToSchema;

/// Says how long the JSON before the binary data is.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// What this server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

/// Whether it lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Live {
    live: bool,
}

/// Whether it, or a model, can answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    /// Of a model only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    ready: bool,
}

/// A model and its tensors. The first dimension is the number of rides.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelMetadata {
    name: String,
    /// The version that is served.
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
    /// −1: any number of rides.
    shape: [i64; 1],
}

/// What this server is.
#[utoipa::path(get, path = "/v2", tag = "Open Inference Protocol", responses((status = 200, description = "The server", body = ServerMetadata)))]
pub(crate) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: "wildrydes", version: env!("CARGO_PKG_VERSION"), extensions: ["binary_tensor_data"] })
}

/// Whether the gateway lives.
#[utoipa::path(get, path = "/v2/health/live", tag = "Open Inference Protocol", security(()), responses((status = 200, description = "It does", body = Live)))]
pub(crate) async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// Whether scores can be asked for.
#[utoipa::path(get, path = "/v2/health/ready", tag = "Open Inference Protocol", security(()),
    responses((status = 200, description = "They can", body = Ready)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Ready>, Problem> {
    super::health::readiness(&app)?;
    Ok(Json(Ready { name: None, ready: true }))
}

/// A model's name, version, inputs and outputs.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "Open Inference Protocol", params(("model" = String, Path, description = "Model family")),
    responses((status = 200, description = "The model", body = ModelMetadata)))]
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
) -> Result<Json<ModelMetadata>, Problem> {
    metadata(&app, &model, None).await.map(Json)
}

/// The same of one version, when it is the one that is served.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}", tag = "Open Inference Protocol",
    params(("model" = String, Path, description = "Model family"), ("version" = String, Path, description = "Model id")),
    responses((status = 200, description = "The model", body = ModelMetadata)))]
pub(crate) async fn model_version(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Json<ModelMetadata>, Problem> {
    metadata(&app, &model, Some(&version)).await.map(Json)
}

/// Whether a model can answer.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "Open Inference Protocol", params(("model" = String, Path, description = "Model family")),
    responses((status = 200, description = "It can", body = Ready)))]
pub(crate) async fn model_ready(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
) -> Result<Json<Ready>, Problem> {
    is_ready(&app, model, None).await
}

/// Whether one version of it can.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/ready", tag = "Open Inference Protocol",
    params(("model" = String, Path, description = "Model family"), ("version" = String, Path, description = "Model id")),
    responses((status = 200, description = "It can", body = Ready)))]
pub(crate) async fn model_version_ready(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Json<Ready>, Problem> {
    is_ready(&app, model, Some(&version)).await
}

/// Scores rides that come as tensors.
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "Open Inference Protocol", params(("model" = String, Path, description = "Model family")),
    request_body = InferenceRequest, responses((status = 200, description = "The outputs", body = InferenceResponse)))]
pub(crate) async fn infer(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    inferred(&app, &model, None, request).await
}

/// The same, by one version or not at all.
#[utoipa::path(post, path = "/v2/models/{model}/versions/{version}/infer", tag = "Open Inference Protocol",
    params(("model" = String, Path, description = "Model family"), ("version" = String, Path, description = "Model id")),
    request_body = InferenceRequest, responses((status = 200, description = "The outputs", body = InferenceResponse)))]
pub(crate) async fn infer_version(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    inferred(&app, &model, Some(&version), request).await
}

async fn served(app: &App, model: &str, version: Option<&str>) -> Result<Alias, Problem> {
    let served = &app.settings.model;
    if model != served {
        return Err(Problem::not_found(format!("no model {model:?} is served here: there is {served:?}")));
    }
    let champion = alias::current(&app.store, model, AliasName::Champion).await;
    let champion = champion.map_err(store_failed)?;
    let champion = champion.ok_or_else(|| {
        let detail = format!("there is no model {model} yet: one comes once enough labelled rides were ingested");
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
        outputs: OUTPUTS.iter().map(|(name, datatype)| tensor(name, datatype)).collect(),
    })
}

async fn is_ready(app: &App, model: String, version: Option<&str>) -> Result<Json<Ready>, Problem> {
    served(app, &model, version).await?;
    app.link.asker(queue::SCORER)?;
    Ok(Json(Ready { name: Some(model), ready: true }))
}

async fn inferred(app: &App, model: &str, version: Option<&str>, request: Request) -> Result<Response, Problem> {
    let deadline = Instant::now() + app.deadline();
    if model != app.settings.model || version.is_some() {
        served(app, model, version).await?;
    }
    let headers = request.headers();
    let json_length = match headers.get(JSON_LENGTH) {
        None => None,
        Some(told) => {
            let length = told.to_str().ok().and_then(|text| text.parse::<usize>().ok());
            let expected = || Problem::unreadable(format!("{JSON_LENGTH}: expected a number of bytes"));
            Some(length.ok_or_else(expected)?)
        }
    };
    if json_length.is_none() {
        expect_json(headers)?;
    }
    let body = whole(request, app).await?;
    let json_length = json_length.unwrap_or(body.len());
    let (json, binary) = body.split_at_checked(json_length).ok_or_else(|| {
        Problem::unreadable(format!("{JSON_LENGTH} is {json_length}: the body has only {} bytes", body.len()))
    })?;
    let request: InferenceRequest = read_json(json)?;
    let wanted = wanted(&request)?;
    let rides = rides(&request, binary, app.settings.rides_max)?;
    let manner = Manner { explain: false, units: Units::default() };
    let Judged { by, rides } = scoring::judge(app, manner, rides, deadline).await?;
    let Some(by) = by else { return Err(Problem::internal("rides without a model")) };
    if let Some(version) = version.filter(|version| by.model_id != *version) {
        return Err(not_served(version, &by.model_id));
    }
    // An output tensor has no place for the error of one ride.
    let mut scores = Vec::with_capacity(rides.len());
    for (row, ride) in rides.into_iter().enumerate() {
        scores.push(ride.map_err(|fault| fault.in_row(row).into_problem())?);
    }
    let mut behind = Vec::new();
    let outputs = wanted.into_iter().map(|(name, datatype, binary)| {
        let mut tensor = OutputTensor { name, shape: [scores.len()], datatype, parameters: Map::new(), data: None };
        let probability = name == OUTPUTS[0].0;
        if binary {
            let before = behind.len();
            for score in &scores {
                match probability {
                    true => behind.extend_from_slice(&score.probability.to_le_bytes()),
                    false => behind.push(u8::from(score.service)),
                }
            }
            tensor.parameters.insert("binary_data_size".to_owned(), json!(behind.len() - before));
        } else {
            let value = |score: &RideScore| match probability {
                true => json!(score.probability),
                false => json!(score.service),
            };
            tensor.data = Some(scores.iter().map(value).collect());
        }
        tensor
    });
    let outputs = outputs.collect();
    let (model_name, model_version) = (by.model, by.model_id);
    respond(&InferenceResponse { model_name, model_version, id: request.id, outputs }, behind)
}

fn respond(answer: &InferenceResponse, behind: Vec<u8>) -> Result<Response, Problem> {
    if behind.is_empty() {
        return Ok((StatusCode::OK, Json(answer)).into_response());
    }
    let mut body = serde_json::to_vec(answer).map_err(|error| Problem::internal(error.to_string()))?;
    let json_length = body.len();
    body.extend_from_slice(&behind);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (JSON_LENGTH, HeaderValue::from(json_length)),
    ];
    Ok((headers, Bytes::from(body)).into_response())
}
