//! What a worker waits for, in the object store: written by the loop around the worker, read by whoever shows it.

use super::{Store, host, store};
use crate::contract::{layout, outcome::Failure, waiting::Waiting};
use jiff::{SignedDuration, Timestamp};

/// How long a record counts after its last cause. A message waits for 2 minutes at most before it is tried again, and a process
/// that was killed removes nothing.
const COUNTS_FOR: SignedDuration = SignedDuration::from_mins(10);

/// What a worker waits for now; `None` when it waits for nothing, as far as its processes recorded.
///
/// # Errors
/// When the store cannot be read.
pub async fn read(store: &Store, worker: &str) -> Result<Option<Waiting>, Failure> {
    let waiting: Option<Waiting> = store::read_json(store, &layout::waiting(worker)).await?;
    Ok(waiting.filter(|waiting| counts(waiting, host::now())))
}

fn counts(waiting: &Waiting, now: Timestamp) -> bool {
    waiting.at.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at) <= COUNTS_FOR)
}
