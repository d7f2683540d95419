//! The Open Inference Protocol (KServe V2), so that clients of model servers can ask as they are used to: tensors in JSON, or
//! behind the JSON in binary (the protocol's binary data extension).

use super::score_body::RideToScore;
use crate::{
    App,
    extract::{Path, read_json, whole},
    members,
    problem::Problem,
    scoring::{self, Judged, Manner},
    uploads::store_failed,
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
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, SeqAccess, Visitor},
};
use serde_json::{Map, Value, json};
use std::{fmt, sync::Arc};
use tokio::time::Instant;
use utoipa::ToSchema;

/// Says how long the JSON before the binary data is.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// What the model gives.
const OUTPUTS: [(&str, &str); 2] = [("probability", "FP64"), ("service", "BOOL")];

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

/// Rides as tensors: one tensor a feature, each of shape `[n]` or `[n, 1]`; or one tensor named `features` of shape `[n, 6]`, its
/// columns in the order of the model's inputs.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": [{"name": "features", "shape": [1, 6], "datatype": "FP64", "data": [30, 330, 300, 97, 176, 48]}]}))]
pub(crate) struct InferenceRequest {
    /// Comes back with the answer.
    id: Option<String>,
    /// Taken and not used, but for `binary_data_output`.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required = false, nullable)]
    parameters: Map<String, Value>,
    /// The features.
    inputs: Vec<InputTensor>,
    /// Which outputs are wanted; all when left out.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required = false, nullable)]
    outputs: Vec<RequestedOutput>,
}

/// A feature of all rides.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputTensor {
    /// A feature, or `features`.
    name: String,
    /// Rides, or rides and columns.
    shape: Vec<u64>,
    /// FP64, FP32, or a signed or unsigned integer of up to 64 bits.
    datatype: String,
    /// With `binary_data_size`: the data is behind the JSON.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required = false, nullable)]
    parameters: Map<String, Value>,
    /// Row by row, flat or nested.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Value>>)]
    data: Option<Numbers>,
}

/// Reads null as the default: clients whose types have optional members write these as null.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Numbers, flat or row by row; kept flat, because a number takes two bytes to write and many more as a JSON value in memory.
#[derive(Debug)]
struct Numbers(Vec<f64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::new();
        Rows { numbers: &mut numbers, depth: 0 }.deserialize(deserializer)?;
        Ok(Self(numbers))
    }
}

/// A number, or a list of what is one level deeper: two levels at most.
struct Rows<'a> {
    numbers: &'a mut Vec<f64>,
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.depth == 0 { "a list of numbers, flat or row by row" } else { "a number" })
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::invalid_type(serde::de::Unexpected::Float(number), &self));
        }
        self.numbers.push(number);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        members::refuse_marked(text)?;
        Err(E::invalid_type(serde::de::Unexpected::Str(text), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        if self.depth > 1 {
            return Err(serde::de::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        while rows.next_element_seed(Rows { numbers: self.numbers, depth: self.depth + 1 })?.is_some() {}
        Ok(())
    }
}

/// An output that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RequestedOutput {
    /// `probability` or `service`.
    name: String,
    /// With `binary_data: true`: behind the JSON.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required = false, nullable)]
    parameters: Map<String, Value>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InferenceResponse {
    model_name: String,
    /// The version that answered.
    model_version: String,
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<String>,
    outputs: Vec<OutputTensor>,
}

/// One output for all rides.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputTensor {
    name: &'static str,
    shape: [usize; 1],
    datatype: &'static str,
    /// With `binary_data_size` when the data is behind the JSON.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(required = false)]
    parameters: Map<String, Value>,
    /// One each ride.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Value>>, nullable = false)]
    data: Option<Vec<Value>>,
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
        crate::extract::expect_json(headers)?;
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
            let value = |score: &super::score::RideScore| match probability {
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

/// Name, type, and whether it goes behind the JSON, of each output that is wanted.
fn wanted(request: &InferenceRequest) -> Result<Vec<(&'static str, &'static str, bool)>, Problem> {
    let flag = |parameters: &Map<String, Value>, name: &str| parameters.get(name).and_then(Value::as_bool);
    let all_binary = flag(&request.parameters, "binary_data_output").unwrap_or(false);
    if request.outputs.is_empty() {
        return Ok(OUTPUTS.iter().map(|(name, datatype)| (*name, *datatype, all_binary)).collect());
    }
    let each = request.outputs.iter().enumerate().map(|(index, output)| {
        let known = OUTPUTS.iter().find(|(name, _)| *name == output.name).ok_or_else(|| {
            let field = format!("outputs[{index}].name");
            Problem::invalid("unknown-output", field, Some(json!(output.name)), "probability or service")
        })?;
        Ok((known.0, known.1, flag(&output.parameters, "binary_data").unwrap_or(all_binary)))
    });
    each.collect()
}

/// The rides that the tensors are.
fn rides(request: &InferenceRequest, mut binary: &[u8], rides_max: usize) -> Result<Vec<RideToScore>, Problem> {
    let mut rides: Option<Vec<RideToScore>> = None;
    let mut seen: Vec<&str> = Vec::new();
    for (index, tensor) in request.inputs.iter().enumerate() {
        let wrong = |what: &str, value: Value, expected: String| {
            Problem::invalid("invalid-tensor", format!("inputs[{index}].{what}"), Some(value), expected)
        };
        let columns: &[_] = match FEATURES.iter().position(|feature| feature.name == tensor.name) {
            Some(position) => &FEATURES[position..=position],
            None if tensor.name == "features" => &FEATURES,
            None => {
                let names: Vec<&str> = FEATURES.iter().map(|feature| feature.name).collect();
                return Err(wrong("name", json!(tensor.name), format!("one of {}, or features", names.join(", "))));
            }
        };
        let n = match (tensor.shape.as_slice(), columns.len()) {
            ([n], 1) => *n,
            ([n, width], expected) if *width == expected as u64 => *n,
            (_, 1) => return Err(wrong("shape", json!(tensor.shape), "[n] or [n, 1]".to_owned())),
            (_, width) => return Err(wrong("shape", json!(tensor.shape), format!("[n, {width}]"))),
        };
        let n = usize::try_from(n).ok().filter(|n| (1..=rides_max).contains(n));
        let n = n.ok_or_else(|| wrong("shape", json!(tensor.shape), format!("1 to {rides_max} rides")))?;
        let values = values(tensor, &mut binary, n * columns.len())
            .map_err(|(what, value, expected)| wrong(what, value, expected))?;
        let rides = rides.get_or_insert_with(|| vec![RideToScore::default(); n]);
        if rides.len() != n {
            return Err(wrong("shape", json!(tensor.shape), format!("{} rides, as in the tensor before", rides.len())));
        }
        for feature in columns {
            if seen.contains(&feature.name) {
                return Err(wrong("name", json!(tensor.name), format!("{} once only", feature.name)));
            }
            seen.push(feature.name);
        }
        for (ride, row) in rides.iter_mut().zip(values.chunks(columns.len())) {
            for (feature, value) in columns.iter().zip(row) {
                let slot = match feature.name {
                    "distance" => &mut ride.distance,
                    "healthpoints" => &mut ride.healthpoints,
                    "magicpoints" => &mut ride.magicpoints,
                    "tmin" => &mut ride.tmin,
                    "tmax" => &mut ride.tmax,
                    _ => &mut ride.prcp,
                };
                *slot = Some(*value);
            }
        }
    }
    if !binary.is_empty() {
        return Err(Problem::unreadable(format!("{} bytes behind the JSON belong to no tensor", binary.len())));
    }
    rides.ok_or_else(|| Problem::invalid("invalid-tensor", "inputs", None, "at least one tensor"))
}

type Wrong = (&'static str, Value, String);
/// Numbers out of bytes.
type Decode = fn(&[u8]) -> Vec<f64>;

/// The numbers of a tensor, from its data or from behind the JSON.
fn values(tensor: &InputTensor, binary: &mut &[u8], count: usize) -> Result<Vec<f64>, Wrong> {
    /// One number, little-endian.
    fn read<const WIDTH: usize>(bytes: &[u8], number: fn([u8; WIDTH]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<WIDTH>().0.iter().map(|bytes| number(*bytes)).collect()
    }
    let (width, decode): (usize, Decode) = match tensor.datatype.as_str() {
        "FP64" => (8, |bytes| read(bytes, f64::from_le_bytes)),
        "FP32" => (4, |bytes| read(bytes, |bytes| f32::from_le_bytes(bytes).into())),
        "INT64" => (8, |bytes| read(bytes, |bytes| i64::from_le_bytes(bytes) as f64)),
        "INT32" => (4, |bytes| read(bytes, |bytes| i32::from_le_bytes(bytes).into())),
        "INT16" => (2, |bytes| read(bytes, |bytes| i16::from_le_bytes(bytes).into())),
        "INT8" => (1, |bytes| read(bytes, |bytes| i8::from_le_bytes(bytes).into())),
        "UINT64" => (8, |bytes| read(bytes, |bytes| u64::from_le_bytes(bytes) as f64)),
        "UINT32" => (4, |bytes| read(bytes, |bytes| u32::from_le_bytes(bytes).into())),
        "UINT16" => (2, |bytes| read(bytes, |bytes| u16::from_le_bytes(bytes).into())),
        "UINT8" => (1, |bytes| read(bytes, |bytes| u8::from_le_bytes(bytes).into())),
        other => return Err(("datatype", json!(other), "FP64, FP32, or an integer such as INT32".to_owned())),
    };
    let values = match (&tensor.data, tensor.parameters.get("binary_data_size").filter(|size| !size.is_null())) {
        (Some(Numbers(numbers)), None) => numbers.clone(),
        (None, Some(size)) => {
            let bytes = size.as_u64().and_then(|size| usize::try_from(size).ok());
            let bytes = bytes.filter(|bytes| *bytes == count * width && *bytes <= binary.len());
            let expected = || {
                let expected = format!("{} bytes of {}, behind the JSON", count * width, tensor.datatype);
                ("parameters.binary_data_size", size.clone(), expected)
            };
            let (own, rest) = binary.split_at(bytes.ok_or_else(expected)?);
            *binary = rest;
            decode(own)
        }
        _ => return Err(("data", Value::Null, "either data or parameters.binary_data_size".to_owned())),
    };
    if values.len() != count {
        return Err(("data", json!(values.len()), format!("{count} numbers, as the shape says")));
    }
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(("data", json!(value.to_string()), "finite numbers".to_owned())),
        None => Ok(values),
    }
}
