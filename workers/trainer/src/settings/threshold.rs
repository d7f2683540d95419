//! The setting `threshold`: a number, also as a text, or the name of a criterion.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IntoDeserializer, value::StrDeserializer},
};

/// A probability, or the criterion to choose it by; see [`Criterion`](common::model::Criterion).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // See Criterion.
pub enum Threshold {
    #[serde(skip)]
    Fixed(f64),
    Accuracy,
    F1,
    Fbeta,
    PrecisionAtRecall,
    RecallAtPrecision,
    Cost,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Number(f64),
    Text(String),
}

pub(super) fn serialize<S: Serializer>(threshold: &Threshold, serializer: S) -> Result<S::Ok, S::Error> {
    match threshold {
        Threshold::Fixed(probability) => probability.serialize(serializer),
        criterion => criterion.serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Threshold, D::Error> {
    let text = match Input::deserialize(deserializer)? {
        Input::Number(probability) => return Ok(Threshold::Fixed(probability)),
        Input::Text(text) => text,
    };
    if let Ok(probability) = text.parse() {
        return Ok(Threshold::Fixed(probability));
    }
    let criterion: StrDeserializer<'_, D::Error> = text.as_str().into_deserializer();
    Threshold::deserialize(criterion).map_err(D::Error::custom)
}
