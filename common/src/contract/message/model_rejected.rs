//! `model-rejected.v1`: training was refused, and why.

use super::{Kind, Message};
use crate::contract::topology;
use serde::{Deserialize, Serialize};

/// No model came of the present datasets; the champion, if there is one, stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRejected {
    /// Model family, e.g. `service-request`.
    pub model: String,
    /// The id the model would have had: derived from its inputs.
    pub model_id: String,
    /// Stable code: `too_few_rides`, `too_many_rides`, `no_weather`, `one_class_only`, `not_converged`,
    /// `feature_out_of_range`.
    pub reason: String,
    /// In words, with the numbers.
    pub why: String,
}

impl Message for ModelRejected {
    const KIND: Kind = Kind { name: "model-rejected", major: 1 };
    const EXCHANGE: &'static str = topology::EVENTS;
    const MANDATORY: bool = false;

    fn message_id(&self) -> String {
        format!("{}/{}/model-rejected", self.model, self.model_id)
    }
}
