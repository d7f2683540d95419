//! `model-promoted.v1`: a model family has a new champion.

use crate::{
    message::{check::check_below, decode::Message, violation::Violation},
    object_path,
};
use serde::{Deserialize, Serialize};

/// The champion of a model family changed. An event: every scorer replica receives a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPromoted {
    /// Model family, for example `service-request`.
    pub model: String,
    /// Id of the new champion, 16 hex digits.
    pub model_id: String,
    /// Path of the new champion's artefact in the object store, below `models/`.
    pub object: String,
    /// Id of the previous champion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_model_id: Option<String>,
    /// Why the model was promoted, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Message for ModelPromoted {
    fn message_id(&self) -> String {
        format!("{}/{}/model-promoted", self.model, self.model_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_below(object_path::MODELS, "object", &self.object)
    }
}
