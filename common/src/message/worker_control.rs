//! `worker-control.v1`: pauses or resumes a worker.

use crate::message::decode::Message;
use serde::{Deserialize, Serialize};

/// Pauses or resumes every replica of a worker. The object store holds the same document
/// ([`control`](records::layout::control)) and is authoritative: the message only announces a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerControl {
    /// Name of the worker.
    pub worker: String,
    /// Whether the worker stops reading its queue.
    pub paused: bool,
    /// The operator who paused or resumed the worker, for people.
    pub by: String,
    /// Time of the change, RFC 3339 in UTC.
    pub at: String,
    /// Reason in words, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Message for WorkerControl {
    fn message_id(&self) -> String {
        format!("{}/{}/worker-control", self.worker, self.at)
    }
}
