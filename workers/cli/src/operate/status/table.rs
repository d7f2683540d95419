//! The lines that `status` prints about batches and queues.

use crate::output::legible;
use common::{message::WorkerControl, topology::queue};
use gateway::LETTERS_READ_MAX;
use serde::Serialize;

/// The workers between a batch and its dataset, in the order of the flow.
pub(super) const STAGES: [&str; 3] = [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER];

/// Counts of one queue: messages and consumers.
#[derive(Serialize)]
pub(super) struct QueueStatus {
    pub(super) queue: String,
    pub(super) messages: u64,
    pub(super) consumers: u64,
    pub(super) waiting_for_retry: u64,
    pub(super) dead: u64,
    pub(super) paused: bool,
}

/// Returns the first line of a table of batches.
pub(super) fn header() -> String {
    row("batch", "since, newest last", "state", "rides, or why")
}

/// Formats one line of a table of batches.
pub(super) fn row(batch_id: &str, since: &str, state: &str, what: &str) -> String {
    legible(format!("{batch_id:<18} {since:<20} {state:<12} {what}").trim_end(), false).into_owned()
}

/// Returns a note that not all dead letters of a queue were read; `None` if all were, or if the queue is not read.
pub(super) fn letters_note(queue: &str, dead: u64) -> Option<String> {
    (dead > LETTERS_READ_MAX as u64 && STAGES.contains(&queue)).then(|| {
        format!(
            "only the oldest {LETTERS_READ_MAX} of the {dead} dead letters of the {queue} are read: a batch of a newer one is not shown as \
             refused"
        )
    })
}

/// Describes a pause: worker, time, author and reason.
pub(super) fn pause_text(WorkerControl { worker, by, at, why, .. }: &WorkerControl) -> String {
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{worker} is paused since {at} by {by}{why}")
}
