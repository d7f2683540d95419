//! How a command follows its batches.

use crate::session::{Failed, Session};
use runtime::config::RunSettings;
use std::time::Duration;

/// When a batch counts as finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To their datasets.
    Dataset,
    /// To the model that is trained on them.
    Model,
    /// To the model, if a trainer is running, and for a limited time.
    ModelIfTraining,
}

/// How a command follows its batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// How far.
    pub(crate) goal: Goal,
    /// No progress on standard error; causes of waits are shown all the same.
    pub(crate) quiet: bool,
    /// How long a batch may make no progress until the cause is named.
    pub(crate) patience: Duration,
    /// Whether the workers are those of a fleet, not of this process: a fleet's workers can be paused or absent, and
    /// its broker keeps dead letters.
    pub(crate) in_fleet: bool,
}

/// How the batches of this command are followed.
pub(crate) fn manner(session: &Session, goal: Goal, in_fleet: bool) -> Result<Manner, Failed> {
    let patience = Duration::from_millis(session.section::<RunSettings>()?.patience_ms);
    Ok(Manner { goal, quiet: session.shared.json, patience, in_fleet })
}
