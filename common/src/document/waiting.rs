//! What a worker waits for, as people are shown it.

use serde::{Deserialize, Serialize};

/// Name of the schema of [`Waiting`].
pub const WAITING_SCHEMA: &str = "waiting.v1";

/// Why a worker set a message aside to try it again later, or holds one whose dead letter finds no room:
/// `control/waiting/<worker>.json`. For people; no result depends on it.
///
/// One record per worker: with several processes or causes, the last one recorded. It is removed when a message that was set
/// aside succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// [`WAITING_SCHEMA`].
    pub schema: String,
    /// The worker.
    pub worker: String,
    /// The cause, as in `weather service is away: connection refused`.
    pub why: String,
    /// The batch whose message waits, where the message names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// When this process first met the cause, RFC 3339 in UTC.
    pub since: String,
    /// When the process met it last, RFC 3339 in UTC.
    pub at: String,
    /// How often the message was set aside because of an outage, or its dead letter was refused; 0 where its attempts are counted
    /// instead.
    pub outages: u32,
    /// Which attempt failed, from 1, where attempts are counted; an outage spends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}
