//! Rides and scores as tensors of the Open Inference Protocol (KServe V2): in JSON, or in binary after the JSON.

use super::{
    answer::{RideScore, ScoreInterval},
    body::RideToScore,
    members,
};
use crate::http::problem::Problem;
use common::features::{FEATURES, Feature};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, SeqAccess, Visitor},
};
use serde_json::{Map, Value, json};
use std::{borrow::Cow, collections::BTreeSet, fmt};
use utoipa::ToSchema;

/// Outputs of the model: name, datatype, and values.
pub(crate) const OUTPUTS: [(&str, &str, Column); 4] = [
    ("probability", "FP64", |scores| Values::Numbers(scores.iter().map(|score| score.probability).collect())),
    ("service", "BOOL", |scores| Values::Flags(scores.iter().map(|score| score.service).collect())),
    ("probability_low", "FP64", |scores| interval(scores, |interval| interval.low)),
    ("probability_high", "FP64", |scores| interval(scores, |interval| interval.high)),
];
/// Number of the outputs that every answer has by default.
const ALWAYS: usize = 2;
/// Maximum number of warnings in an answer.
const WARNINGS_MAX: usize = 10;

/// Returns the values of an output, one per score.
type Column = fn(&[RideScore]) -> Values;

/// The values of an output.
pub(crate) enum Values {
    Numbers(Vec<f64>),
    Flags(Vec<bool>),
}

/// Returns one end of the intervals. A complete ride has no interval: both ends are its probability.
fn interval(scores: &[RideScore], end: fn(&ScoreInterval) -> f64) -> Values {
    Values::Numbers(scores.iter().map(|score| score.interval.as_ref().map_or(score.probability, end)).collect())
}

/// Rides as tensors: one tensor per feature, each of shape `[n]` or `[n, 1]`, and perhaps one for `tavg`, the mean temperature of the
/// day; or one tensor named `features` of shape `[n, 6]`, its columns in the order of the model's inputs. One feature is enough: the
/// others are imputed.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": [{"name": "features", "shape": [1, 6], "datatype": "FP64", "data": [30, 330, 300, 97, 176, 48]}]}))]
pub(crate) struct InferenceRequest {
    /// Returned with the answer.
    pub(crate) id: Option<String>,
    /// Ignored, except `binary_data_output` and `impute`: false makes a missing feature an error.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required = false, nullable)]
    pub(crate) parameters: Map<String, Value>,
    /// The features.
    pub(crate) inputs: Vec<InputTensor>,
    /// Requested outputs; by default all.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required = false, nullable)]
    pub(crate) outputs: Vec<RequestedOutput>,
}

/// One feature of all rides, or all features.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputTensor {
    /// Name of a feature, `tavg`, or `features`.
    name: String,
    /// Number of rides, or of rides and columns.
    shape: Vec<u64>,
    /// FP64, FP32, or a signed or unsigned integer of up to 64 bits.
    datatype: String,
    /// With `binary_data_size`, the data follows the JSON.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required = false, nullable)]
    parameters: Map<String, Value>,
    /// Row by row, flat or nested.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Value>>)]
    data: Option<Numbers>,
}

/// Reads null as the default, because clients with optional members write them as null.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Numbers, flat or row by row. Kept flat: a number of two bytes takes many more as a JSON value in memory.
#[derive(Debug)]
struct Numbers(Vec<f64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::new();
        Rows { numbers: &mut numbers, depth: 0 }.deserialize(deserializer)?;
        Ok(Self(numbers))
    }
}

/// A number, or a list of the next level; at most two levels.
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

/// A requested output.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RequestedOutput {
    /// `probability` or `service`.
    name: String,
    /// With `binary_data: true`, the data follows the JSON.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required = false, nullable)]
    parameters: Map<String, Value>,
}

/// The outputs of an inference.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InferenceResponse {
    pub(crate) model_name: String,
    /// The version that scored.
    pub(crate) model_version: String,
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) id: Option<String>,
    /// `assumed`: names of the features that were missing. `warnings`: reasons for caution, as text.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(required = false)]
    pub(crate) parameters: Map<String, Value>,
    /// The requested outputs; by default `probability` and `service`, and, if features were missing, the ends of the 90 % interval of
    /// the probability, `probability_low` and `probability_high`, and the assumed values, `assumed_<feature>`.
    pub(crate) outputs: Vec<OutputTensor>,
}

/// One output for all rides.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputTensor {
    #[schema(value_type = String)]
    pub(crate) name: Cow<'static, str>,
    pub(crate) shape: [usize; 1],
    pub(crate) datatype: &'static str,
    /// With `binary_data_size` if the data follows the JSON.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(required = false)]
    pub(crate) parameters: Map<String, Value>,
    /// One value per ride.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Value>>, nullable = false)]
    pub(crate) data: Option<Vec<Value>>,
}

fn flag(parameters: &Map<String, Value>, name: &str) -> Option<bool> {
    parameters.get(name).and_then(Value::as_bool)
}

/// The outputs that a request asks for.
pub(crate) struct RequestedOutputs {
    /// Each with whether its data follows the JSON.
    outputs: Vec<(&'static (&'static str, &'static str, Column), bool)>,
    /// Whether the request names no outputs.
    is_default: bool,
    /// Whether data follows the JSON by default.
    all_binary: bool,
}

/// Returns whether missing features are imputed.
pub(crate) fn imputes(request: &InferenceRequest) -> bool {
    flag(&request.parameters, "impute").unwrap_or(true)
}

/// Returns the requested outputs.
///
/// # Errors
/// Fails on an unknown name.
pub(crate) fn requested_outputs(request: &InferenceRequest) -> Result<RequestedOutputs, Problem> {
    let all_binary = flag(&request.parameters, "binary_data_output").unwrap_or(false);
    if request.outputs.is_empty() {
        let outputs = OUTPUTS[..ALWAYS].iter().map(|known| (known, all_binary)).collect();
        return Ok(RequestedOutputs { outputs, is_default: true, all_binary });
    }
    let each = request.outputs.iter().enumerate().map(|(index, output)| {
        let known = OUTPUTS.iter().find(|(name, ..)| *name == output.name).ok_or_else(|| {
            let field = format!("outputs[{index}].name");
            let expected = "probability, service, probability_low or probability_high";
            Problem::invalid("unknown-output", field, Some(json!(output.name)), expected)
        })?;
        Ok((known, flag(&output.parameters, "binary_data").unwrap_or(all_binary)))
    });
    Ok(RequestedOutputs { outputs: each.collect::<Result<_, Problem>>()?, is_default: false, all_binary })
}

/// Returns the outputs for these scores, and the data that follows the JSON.
pub(crate) fn outputs(requested: &RequestedOutputs, scores: &[RideScore]) -> (Vec<OutputTensor>, Vec<u8>) {
    let mut binary_data = Vec::new();
    let mut tensor = |name: Cow<'static, str>, datatype, binary, values| {
        let mut tensor = OutputTensor { name, shape: [scores.len()], datatype, parameters: Map::new(), data: None };
        let before = binary_data.len();
        match (values, binary) {
            (Values::Numbers(numbers), true) => {
                numbers.iter().for_each(|number| binary_data.extend_from_slice(&number.to_le_bytes()));
            }
            (Values::Flags(flags), true) => binary_data.extend(flags.iter().map(|flag| u8::from(*flag))),
            (Values::Numbers(numbers), false) => tensor.data = Some(numbers.into_iter().map(Value::from).collect()),
            (Values::Flags(flags), false) => tensor.data = Some(flags.into_iter().map(Value::from).collect()),
        }
        if binary {
            tensor.parameters.insert("binary_data_size".to_owned(), json!(binary_data.len() - before));
        }
        tensor
    };
    let named = requested.outputs.iter().map(|((name, datatype, column), binary)| (*name, *datatype, column, *binary));
    let mut outputs: Vec<OutputTensor> =
        named.map(|(name, datatype, column, binary)| tensor(name.into(), datatype, binary, column(scores))).collect();
    // All rides lack the same features: those without a tensor.
    let assumed = scores.first().map_or(&[][..], |score| &score.assumed);
    if requested.is_default && !assumed.is_empty() {
        for (name, datatype, column) in &OUTPUTS[ALWAYS..] {
            outputs.push(tensor((*name).into(), datatype, requested.all_binary, column(scores)));
        }
        for (position, feature) in assumed.iter().enumerate() {
            let name = format!("assumed_{}", feature.feature);
            let value = |score: &RideScore| score.assumed.get(position).map_or(feature.value, |assumed| assumed.value);
            let values = Values::Numbers(scores.iter().map(value).collect());
            outputs.push(tensor(name.into(), "FP64", requested.all_binary, values));
        }
    }
    (outputs, binary_data)
}

/// Returns the parameters of an answer: the assumed features and the warnings.
pub(crate) fn answer_parameters(scores: &[RideScore]) -> Map<String, Value> {
    let mut parameters = Map::new();
    let assumed = scores.iter().flat_map(|score| score.assumed.iter().map(|assumed| &*assumed.feature));
    let assumed: BTreeSet<&str> = assumed.collect();
    if !assumed.is_empty() {
        let in_order = FEATURES.iter().map(|feature| feature.name).filter(|name| assumed.contains(name));
        parameters.insert("assumed".to_owned(), json!(in_order.collect::<Vec<_>>().join(", ")));
    }
    let warnings = scores
        .iter()
        .enumerate()
        .flat_map(|(row, score)| score.warnings.iter().map(move |warning| format!("ride {row}: {warning}")));
    let warnings: Vec<String> = warnings.take(WARNINGS_MAX).collect();
    if !warnings.is_empty() {
        parameters.insert("warnings".to_owned(), json!(warnings.join("; ")));
    }
    parameters
}

/// Reads the rides from the tensors. `binary` is the data that follows the JSON.
pub(crate) fn rides(
    request: &InferenceRequest,
    mut binary: &[u8],
    rides_max: usize,
) -> Result<Vec<RideToScore>, Problem> {
    let mut rides: Option<Vec<RideToScore>> = None;
    let mut names_read: Vec<&str> = Vec::new();
    for (index, tensor) in request.inputs.iter().enumerate() {
        let wrong = |what: &str, value: Value, expected: String| {
            Problem::invalid("invalid-tensor", format!("inputs[{index}].{what}"), Some(value), expected)
        };
        let columns: Vec<&str> = match columns().find(|name| *name == tensor.name) {
            Some(name) => vec![name],
            None if tensor.name == "features" => {
                all_columns(&tensor.shape).iter().map(|feature| feature.name).collect()
            }
            None => {
                let names: Vec<&str> = columns().collect();
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
        for name in &columns {
            if names_read.contains(name) {
                return Err(wrong("name", json!(tensor.name), format!("{name} only once")));
            }
            names_read.push(name);
        }
        for (ride, row) in rides.iter_mut().zip(values.chunks(columns.len())) {
            for (name, value) in columns.iter().zip(row) {
                ride.set(name, *value);
            }
        }
    }
    if !binary.is_empty() {
        return Err(Problem::unreadable(format!("{} bytes after the JSON belong to no tensor", binary.len())));
    }
    rides.ok_or_else(|| Problem::invalid("invalid-tensor", "inputs", None, "at least one tensor"))
}

/// Returns the names of the tensors with one value per ride: the features, and `tavg`, which may replace `tmin`, `tmax` or both.
fn columns() -> impl Iterator<Item = &'static str> {
    FEATURES.iter().map(|feature| feature.name).chain(["tavg"])
}

/// Returns the columns of the tensor `features`: those of version 0.1.0 if it has that many, else all.
fn all_columns(shape: &[u64]) -> &'static [Feature] {
    let original = FEATURES.partition_point(|feature| feature.original);
    if shape.last() == Some(&(original as u64)) { &FEATURES[..original] } else { FEATURES }
}

type InvalidMember = (&'static str, Value, String);
/// Decodes numbers from bytes.
type Decode = fn(&[u8]) -> Vec<f64>;

/// Returns the numbers of a tensor, from its data or from the bytes after the JSON.
fn values(tensor: &InputTensor, binary: &mut &[u8], count: usize) -> Result<Vec<f64>, InvalidMember> {
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
                let expected = format!("{} bytes of {}, after the JSON", count * width, tensor.datatype);
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
