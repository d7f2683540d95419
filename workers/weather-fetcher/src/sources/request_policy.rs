//! How often, how long and as whom a service is asked.

use std::{num::NonZeroU32, time::Duration};

/// Limits and identity of the requests to a service.
#[derive(Debug, Clone)]
pub struct RequestPolicy {
    /// Maximum number of requests per second.
    pub requests_per_second: NonZeroU32,
    /// Maximum silence while connecting, before an answer and within it.
    pub timeout: Duration,
    /// URL or mail address for the operators of the service.
    pub contact: Option<String>,
    /// Maximum time during which one URL fails only in ways that waiting cannot repair.
    pub unusable_patience: Duration,
}
