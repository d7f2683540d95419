//! `model-promoted.v1`: scorers follow this model from now on.

use crate::{
    fleet::exchange,
    message::{check::check_below, decode::Message, kind::Kind, violation::Violation},
    object_path,
};
use serde::{Deserialize, Serialize};

/// The champion of a model family changed. An event: every scorer replica gets its own copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPromoted {
    /// Model family, e.g. `service-request`.
    pub model: String,
    /// The new champion.
    pub model_id: String,
    /// Path of its artefact in the object store, below `models/`.
    pub object: String,
    /// The champion before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_model_id: Option<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Message for ModelPromoted {
    const KIND: Kind = Kind { name: "model-promoted", major: 1 };
    const EXCHANGE: &'static str = exchange::EVENTS;
    const MANDATORY: bool = false;

    fn message_id(&self) -> String {
        format!("{}/{}/model-promoted", self.model, self.model_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_below(object_path::MODELS, "object", &self.object)
    }
}
