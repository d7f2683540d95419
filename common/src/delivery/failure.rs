//! Why a handler failed, which decides what happens to the message.

use std::{fmt, time::Duration};

/// Why a handler did not succeed, which decides what happens to the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// May succeed when tried again: spends an attempt.
    #[error("{why}")]
    Transient {
        /// In words.
        why: String,
        /// Not before this.
        retry_after: Option<Duration>,
    },
    /// Something this worker depends on is away: waited out, spends no attempt.
    #[error("{dependency} is away: {why}")]
    Outage {
        /// What is away, e.g. `weather service`.
        dependency: &'static str,
        /// In words.
        why: String,
        /// Not before this.
        retry_after: Option<Duration>,
    },
    /// Would fail for ever.
    #[error("{reason}: {why}")]
    Permanent {
        /// A stable code in snake case, by which operators filter dead letters.
        reason: &'static str,
        /// In words.
        why: String,
    },
}

impl Failure {
    /// A failure that may pass.
    pub fn transient(why: impl fmt::Display) -> Self {
        Self::Transient { why: why.to_string(), retry_after: None }
    }

    /// A dependency that is away.
    pub fn outage(dependency: &'static str, why: impl fmt::Display) -> Self {
        Self::Outage { dependency, why: why.to_string(), retry_after: None }
    }

    /// A failure for ever.
    pub fn permanent(reason: &'static str, why: impl fmt::Display) -> Self {
        Self::Permanent { reason, why: why.to_string() }
    }
}
