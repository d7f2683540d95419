//! The JSON Schemas of all messages and stored documents, embedded.

use std::fmt;

/// One JSON Schema (draft 2020-12).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// `name.vN`, as in the `type` of a message and the `schema` of a document.
    pub name: &'static str,
    /// The schema itself, JSON.
    pub text: &'static str,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! schema {
    ($name:literal) => {
        Schema { name: $name, text: include_str!(concat!("../../schemas/", $name, ".json")) }
    };
}

/// All schemas, sorted by name.
pub const SCHEMAS: [Schema; 19] = [
    schema!("batch-split.v1"),
    schema!("claim.v1"),
    schema!("dataset-manifest.v1"),
    schema!("dataset-ready.v1"),
    schema!("enriched-chunk.v1"),
    schema!("model-alias.v1"),
    schema!("model-promoted.v1"),
    schema!("model-rejected.v1"),
    schema!("model.v1"),
    schema!("ride-batch.v1"),
    schema!("ride-chunk.v1"),
    schema!("score-request.v1"),
    schema!("score-response.v1"),
    schema!("served.v1"),
    schema!("waiting.v1"),
    schema!("weather-request.v1"),
    schema!("weather-response.v1"),
    schema!("weather-warnings.v1"),
    schema!("worker-control.v1"),
];

impl Schema {
    /// Returns the schema of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCHEMAS.iter().find(|schema| schema.name == name)
    }

    /// Returns the first sentence of the schema's description.
    pub fn summary(&self) -> String {
        let value: serde_json::Value = serde_json::from_str(self.text).unwrap_or_default();
        let description = value["description"].as_str().unwrap_or_default();
        description.split_once(". ").map_or(description, |(first, _)| first).trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::KINDS;

    #[test]
    fn every_message_has_a_schema() {
        for kind in KINDS {
            assert!(Schema::named(&kind.to_string()).is_some(), "{kind} has no schema");
        }
    }

    #[test]
    fn schemas_are_sorted_and_described() {
        assert!(SCHEMAS.is_sorted_by_key(|schema| schema.name));
        for schema in SCHEMAS {
            assert!(!schema.summary().is_empty(), "{schema:?} has no description");
        }
    }
}
