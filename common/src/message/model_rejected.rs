//! `model-rejected.v1`: training was refused or its model was not promoted, with the reason.

use crate::{
    message::{check::check_below, decode::Message, violation::Violation},
    object_path,
};
use serde::{Deserialize, Serialize};

/// Training on the present datasets led to no new champion. The current champion, if any, stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRejected {
    /// Model family, for example `service-request`.
    pub model: String,
    /// Id that the model has or would have had, 16 hex digits, derived from its inputs.
    pub model_id: String,
    /// Stable code. Of a refused training: `too_few_rides`, `too_many_rides`, `no_weather`, `one_class_only`,
    /// `not_converged`, `feature_out_of_range`. Of a model that was not promoted: `no_evidence`, `worse_than_champion`,
    /// `too_few_held_out`, `outdated`, `by_hand_only`, `replaced_before`.
    pub reason: String,
    /// The reason in words, with its numbers.
    pub why: String,
    /// Path of the artefact in the object store, if a model was trained but not promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

impl Message for ModelRejected {
    fn message_id(&self) -> String {
        format!("{}/{}/model-rejected", self.model, self.model_id)
    }

    fn check(&self) -> Result<(), Violation> {
        self.object.as_deref().map_or(Ok(()), |object| check_below(object_path::MODELS, "object", object))
    }
}
