//! The JSON Schemas of all messages and stored documents, embedded.
//!
//! Depends on `message`, `document` and `delivery`.

#[cfg(test)]
mod generate;

use crate::{
    delivery::dead_letter::Letter,
    document::{
        Breeds, DelayedLabelMetrics, IdempotencyRecord, MetricsFile, RejectedRide, Upload, Verdict, WeatherWarnings,
        dataset::{Claim, Manifest},
        model::{Alias, Model},
        served::Served,
        waiting::Waiting,
    },
    message::{
        BatchSplit, DatasetReady, EnrichedChunk, ModelPromoted, ModelRejected, RideBatch, RideChunk, ScoreRequest,
        ScoreResponse, WeatherRequest, WeatherResponse, WorkerControl,
    },
};
use serde_json::Value;

/// One JSON Schema (draft 2020-12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// `name.vN`, as in the `type` of a message and the member `schema` of a document.
    pub name: &'static str,
    /// The schema itself, JSON.
    pub text: &'static str,
}

/// A message or stored document, which a schema describes.
pub trait Described {
    /// The schema of the JSON form.
    const SCHEMA: Schema;
}

/// Names the schema of each type, `<name>.json` in the folder `schemas`, and embeds it.
macro_rules! described {
    ($($described:ty: $name:literal,)*) => {
        $(impl Described for $described {
            const SCHEMA: Schema =
                Schema { name: $name, text: include_str!(concat!("../../schemas/", $name, ".json")) };
        })*

        /// All schemas, sorted by name.
        pub const SCHEMAS: &[Schema] = &[$(<$described>::SCHEMA),*];
    };
}

described! {
    BatchSplit: "batch-split.v1",
    Breeds: "breeds.v1",
    Claim: "claim.v1",
    Manifest: "dataset-manifest.v1",
    DatasetReady: "dataset-ready.v1",
    Letter: "dead-letter.v1",
    DelayedLabelMetrics: "delayed-labels.v1",
    EnrichedChunk: "enriched-chunk.v1",
    IdempotencyRecord: "idempotency.v1",
    MetricsFile: "metrics.v1",
    Alias: "model-alias.v1",
    ModelPromoted: "model-promoted.v1",
    ModelRejected: "model-rejected.v1",
    Model: "model.v1",
    RejectedRide<'static, Value>: "rejected-ride.v1",
    RideBatch: "ride-batch.v1",
    RideChunk: "ride-chunk.v1",
    ScoreRequest: "score-request.v1",
    ScoreResponse: "score-response.v1",
    Served: "served.v1",
    Upload: "upload.v1",
    Verdict: "verdict.v1",
    Waiting: "waiting.v1",
    WeatherRequest: "weather-request.v1",
    WeatherResponse: "weather-response.v1",
    WeatherWarnings: "weather-warnings.v1",
    WorkerControl: "worker-control.v1",
}

impl Schema {
    /// Returns the schema of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCHEMAS.iter().find(|schema| schema.name == name)
    }

    /// Returns the first sentence of the description, without its full stop.
    pub fn summary(&self) -> String {
        let value: Value = serde_json::from_str(self.text).unwrap_or_default();
        let description = value["description"].as_str().unwrap_or_default();
        description.split_once(". ").map_or(description, |(first, _)| first).trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{KINDS, Message};

    #[test]
    fn a_message_is_described_by_the_schema_of_its_kind() {
        fn of<M: Message + Described>() -> (String, &'static str) {
            (M::KIND.to_string(), M::SCHEMA.name)
        }
        let messages = [
            of::<RideBatch>(),
            of::<RideChunk>(),
            of::<BatchSplit>(),
            of::<EnrichedChunk>(),
            of::<DatasetReady>(),
            of::<ModelPromoted>(),
            of::<ModelRejected>(),
            of::<WorkerControl>(),
            of::<ScoreRequest>(),
            of::<ScoreResponse>(),
            of::<WeatherRequest>(),
            of::<WeatherResponse>(),
        ];
        for (kind, name) in &messages {
            assert_eq!(kind, name);
        }
        assert_eq!(messages.map(|(kind, _)| kind), KINDS.map(|kind| kind.to_string()));
    }

    #[test]
    fn schemas_are_sorted_named_and_described() {
        assert!(SCHEMAS.is_sorted_by_key(|schema| schema.name));
        for schema in SCHEMAS {
            let value: Value = serde_json::from_str(schema.text).unwrap();
            assert_eq!(value["$id"], format!("urn:wildrydes:{}", schema.name));
            assert!(!schema.summary().is_empty(), "{} has no description", schema.name);
        }
    }
}
