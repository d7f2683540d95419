//! Why a handler failed. The kind of failure decides how the message is treated.

use std::{fmt, time::Duration};

/// Why a handler failed. The kind of failure decides how the message is treated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A retry may succeed. Spends an attempt.
    #[error("{why}")]
    Transient {
        /// The cause in words.
        why: String,
        /// Minimum time until the next attempt.
        retry_after: Option<Duration>,
    },
    /// A dependency of the worker is down. The message waits and spends no attempt.
    #[error("{dependency} is away: {why}")]
    Outage {
        /// The dependency that is down, for example `weather service`.
        dependency: &'static str,
        /// The cause in words.
        why: String,
        /// Minimum time until the next attempt.
        retry_after: Option<Duration>,
    },
    /// No retry can succeed. The message becomes a dead letter at once.
    #[error("{reason}: {why}")]
    Permanent {
        /// Stable code in snake case, by which operators filter dead letters.
        reason: &'static str,
        /// The cause in words.
        why: String,
    },
}

impl Failure {
    /// Returns a transient failure without a minimum wait.
    pub fn transient(why: impl fmt::Display) -> Self {
        Self::Transient { why: why.to_string(), retry_after: None }
    }

    /// Returns an outage of `dependency` without a minimum wait.
    pub fn outage(dependency: &'static str, why: impl fmt::Display) -> Self {
        Self::Outage { dependency, why: why.to_string(), retry_after: None }
    }

    /// Returns a stable code in snake case: the reason of a permanent failure, else `transient` or `outage`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Transient { .. } => "transient",
            Self::Outage { .. } => "outage",
            Self::Permanent { reason, .. } => reason,
        }
    }

    /// Returns a permanent failure; `reason` is a code in snake case.
    pub fn permanent(reason: &'static str, why: impl fmt::Display) -> Self {
        Self::Permanent { reason, why: why.to_string() }
    }
}
