//! `worker-control.v1`: a worker is to pause, or to go on.

use crate::{
    fleet::exchange,
    message::{decode::Message, kind::Kind},
};
use serde::{Deserialize, Serialize};

/// What an operator wants of every replica of a worker. Kept in the object store as well
/// ([`control`](records::layout::control)), where it counts: the message only says that it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerControl {
    /// The worker.
    pub worker: String,
    /// Whether it is to read its queue no more until it is told to.
    pub paused: bool,
    /// Who said so, for people.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Message for WorkerControl {
    const KIND: Kind = Kind { name: "worker-control", major: 1 };
    const EXCHANGE: &'static str = exchange::EVENTS;
    /// Nobody may be running.
    const MANDATORY: bool = false;

    fn message_id(&self) -> String {
        format!("{}/{}/worker-control", self.worker, self.at)
    }
}
