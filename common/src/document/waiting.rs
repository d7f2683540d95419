//! Why a worker waits, recorded for people.

use serde::{Deserialize, Serialize};

/// Why a message of a worker waits for another attempt, or for room in a full dead-letter queue:
/// `control/waiting/<worker>.json`. For people; no result depends on it.
///
/// One record per worker: with several processes or causes, the last one recorded. The record is removed when a message
/// that waited succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Name of its schema.
    pub schema: String,
    /// Name of the worker.
    pub worker: String,
    /// The cause in words, for example `weather service is away: connection refused`.
    pub why: String,
    /// Id of the batch that the message belongs to, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// When this process first encountered the cause, RFC 3339 in UTC.
    pub since: String,
    /// When this process last encountered the cause, RFC 3339 in UTC.
    pub at: String,
    /// Number of times the message waited because of an outage, or its dead letter was refused; 0 if `attempt` counts
    /// instead.
    pub outages: u32,
    /// Number of the attempt that failed, from 1; absent for an outage, which spends no attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}
