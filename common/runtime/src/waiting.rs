//! Records in the object store why a worker waits. The loop that runs the worker writes the record; commands display
//! it.

use super::host;
use common::{schema::Described, waiting::Waiting};
use records::{Store, control};
use std::time::Duration;
use tokio::{sync::watch, time};
use tracing::debug;

/// Minimum pause between two writes of one process.
const WRITE_PAUSE: Duration = Duration::from_secs(3);
/// Maximum duration of one write. The store itself may be down and so be the cause of the wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The latest state of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// No message waited or succeeded so far: the record of an earlier process stays.
    Unknown,
    Waits(Waiting),
    Progresses,
}

/// Writes the record of one worker in a separate task, so that no delivery waits for a write or fails because of it.
pub(super) struct Recorder {
    worker: &'static str,
    state: watch::Sender<State>,
}

impl Recorder {
    /// Starts the recorder; without a store it records nothing.
    pub(super) fn start(worker: &'static str, store: Option<Store>) -> Self {
        Self::with_pause(worker, store, WRITE_PAUSE)
    }

    fn with_pause(worker: &'static str, store: Option<Store>, pause: Duration) -> Self {
        let (state, changes) = watch::channel(State::Unknown);
        if let Some(store) = store {
            tokio::spawn(keep(worker, store, changes, pause));
        }
        Self { worker, state }
    }

    /// Records that a message waits. `outages` is the number of outages so far, 0 if attempts count instead; `attempt`
    /// is the number of the failed attempt, if attempts count.
    pub(super) fn set_aside(&self, why: &str, batch_id: Option<&str>, outages: u32, attempt: Option<u32>) {
        let at = host::now().strftime("%FT%TZ").to_string();
        self.state.send_modify(|state| {
            let since = match state {
                State::Waits(before) if before.why == why => before.since.clone(),
                _ => at.clone(),
            };
            *state = State::Waits(Waiting {
                schema: Waiting::SCHEMA.name.to_owned(),
                worker: self.worker.to_owned(),
                why: why.to_owned(),
                batch_id: batch_id.map(str::to_owned),
                since,
                at,
                outages,
                attempt,
            });
        });
    }

    /// Records that a message which waited is finished.
    pub(super) fn progress(&self) {
        self.state.send_if_modified(|state| std::mem::replace(state, State::Progresses) != State::Progresses);
    }
}

/// Writes the latest state after every change, until the recorder is dropped.
async fn keep(worker: &'static str, store: Store, mut changes: watch::Receiver<State>, pause: Duration) {
    while changes.changed().await.is_ok() {
        let state = changes.borrow_and_update().clone();
        let waiting = match &state {
            State::Unknown => continue,
            State::Waits(waiting) => Some(waiting),
            State::Progresses => None,
        };
        match time::timeout(WRITE_TIMEOUT, control::write_wait(&store, worker, waiting)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(worker, %error, "the cause of the wait is not recorded"),
            Err(_) => debug!(worker, "the cause of the wait is not recorded in time"),
        }
        time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    /// Reads until the record is as expected.
    async fn until(store: &Store, expected: impl Fn(Option<&Waiting>) -> bool) -> Option<Waiting> {
        loop {
            let record = control::wait(store, "merger", host::now()).await.unwrap();
            if expected(record.as_ref()) {
                return record;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_last_cause_is_recorded_until_the_message_succeeds() {
        let store: Store = Arc::new(InMemory::new());
        let recorder = Recorder::with_pause("merger", Some(store.clone()), Duration::ZERO);
        recorder.set_aside("store is away: full", Some("b1"), 1, None);
        let first = until(&store, |record| record.is_some()).await.unwrap();
        let fields = (first.why.as_str(), first.batch_id.as_deref(), first.outages, first.schema.as_str());
        assert_eq!(fields, ("store is away: full", Some("b1"), 1, Waiting::SCHEMA.name));
        recorder.set_aside("store is away: full", Some("b2"), 2, None);
        let second = until(&store, |record| record.is_some_and(|record| record.outages == 2)).await.unwrap();
        let fields = (&second.since, second.batch_id.as_deref());
        assert_eq!(fields, (&first.since, Some("b2")), "the same cause, the same start");
        recorder.progress();
        until(&store, |record| record.is_none()).await;
    }

    #[tokio::test]
    async fn causes_in_quick_succession_end_with_the_last_one() {
        let store: Store = Arc::new(InMemory::new());
        let recorder = Recorder::start("merger", Some(store.clone()));
        (0..100).for_each(|n| recorder.set_aside(&format!("cause {n}"), None, 0, Some(1)));
        drop(recorder);
        until(&store, |record| record.is_some_and(|record| record.why == "cause 99")).await;
    }
}
