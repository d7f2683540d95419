//! The options of following batches.

use crate::session::{Failed, Session};
use runtime::config::RunSettings;
use std::time::Duration;

/// When a batch counts as finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Once its dataset is complete.
    Dataset,
    /// Once the trainer has promoted or rejected a model trained on it.
    Model,
    /// As [`Goal::Model`], but only while a trainer is running, and for a limited time.
    ModelIfTraining,
}

/// How a command follows its batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FollowOptions {
    /// When a batch counts as finished.
    pub(crate) goal: Goal,
    /// Whether to omit progress on standard error; causes of waits are shown in any case.
    pub(crate) quiet: bool,
    /// Time without progress of a batch after which the cause is reported.
    pub(crate) patience: Duration,
    /// Whether the workers belong to a fleet instead of this process: they can be paused or absent, and their broker keeps
    /// dead letters.
    pub(crate) in_fleet: bool,
}

impl FollowOptions {
    /// Takes the patience from the configuration.
    pub(crate) fn new(session: &Session, goal: Goal, in_fleet: bool) -> Result<Self, Failed> {
        let patience = Duration::from_millis(session.section::<RunSettings>()?.patience_ms);
        Ok(Self { goal, quiet: session.shared.json, patience, in_fleet })
    }
}
