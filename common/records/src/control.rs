//! Records which workers are paused, and what the workers wait for.

use crate::{
    layout,
    store::{self, Store},
};
use common::{message::WorkerControl, outcome::Failure, waiting::Waiting};
use jiff::{SignedDuration, Timestamp};

/// Period in which a record counts after its cause last occurred. A message waits for at most 2 minutes before its next
/// attempt; a killed process leaves its record.
const COUNTS_FOR: SignedDuration = SignedDuration::from_mins(10);

/// Returns the last pause or resume of a worker; `None` if it was never paused.
///
/// # Errors
/// Fails if the store cannot be read.
pub async fn read(store: &Store, worker: &str) -> Result<Option<WorkerControl>, Failure> {
    store::read_json(store, &layout::control(worker)).await
}

/// Records whether a worker is paused. Every process of the worker reads the record when it connects.
///
/// # Errors
/// Fails if the store cannot be written.
pub async fn write(store: &Store, control: &WorkerControl) -> Result<(), Failure> {
    store::write_json(store, &layout::control(&control.worker), control).await
}

/// Removes the record whether a worker is paused.
///
/// # Errors
/// Fails if the store cannot be written.
pub async fn remove(store: &Store, worker: &str) -> Result<(), Failure> {
    store::remove(store, &layout::control(worker)).await
}

/// Returns the last recorded wait of a worker, however old; `None` if it waits for nothing.
///
/// # Errors
/// Fails if the store cannot be read.
pub async fn last_wait(store: &Store, worker: &str) -> Result<Option<Waiting>, Failure> {
    store::read_json(store, &layout::waiting(worker)).await
}

/// Returns what a worker waits for at the time `now`; `None` if none of its processes recorded a wait that still counts.
///
/// # Errors
/// Fails if the store cannot be read.
pub async fn wait(store: &Store, worker: &str, now: Timestamp) -> Result<Option<Waiting>, Failure> {
    Ok(last_wait(store, worker).await?.filter(|waiting| counts(waiting, now)))
}

/// Records what a worker waits for; `None` if it waits for nothing any more.
///
/// # Errors
/// Fails if the store cannot be written.
pub async fn write_wait(store: &Store, worker: &str, waiting: Option<&Waiting>) -> Result<(), Failure> {
    let path = layout::waiting(worker);
    match waiting {
        Some(waiting) => store::write_json(store, &path, waiting).await,
        None => store::remove(store, &path).await,
    }
}

fn counts(waiting: &Waiting, now: Timestamp) -> bool {
    waiting.at.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at) <= COUNTS_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::schema::Described;

    #[test]
    fn a_record_counts_for_some_minutes_after_its_last_cause() {
        let at = |at: &str| Waiting {
            schema: Waiting::SCHEMA.name.to_owned(),
            worker: "merger".to_owned(),
            why: "w".to_owned(),
            batch_id: None,
            since: "2026-11-24T03:00:00Z".to_owned(),
            at: at.to_owned(),
            outages: 1,
            attempt: None,
        };
        let now = "2026-11-24T03:12:00Z".parse().unwrap();
        assert!(counts(&at("2026-11-24T03:02:00Z"), now) && counts(&at("2026-11-24T03:13:00Z"), now));
        assert!(!counts(&at("2026-11-24T03:01:59Z"), now) && !counts(&at("yesterday"), now));
    }
}
