//! What a worker waits for, in the object store: written by the loop around the worker, read by commands that show it.

use super::host;
use common::{
    outcome::Failure,
    waiting::{WAITING_SCHEMA, Waiting},
};
use records::{Store, layout, store};
use std::time::Duration;
use tokio::{sync::watch, time};
use tracing::debug;

/// Pause between two writes of one process.
const WRITE_PAUSE: Duration = Duration::from_secs(3);
/// Time for one write. The store itself may be away and so be the cause of the wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What one process last learnt about its own waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing yet: the record of an earlier process stays.
    Unknown,
    Waits(Waiting),
    Progresses,
}

/// Keeps the record of one worker in a task of its own: no delivery waits for the record, and none fails because of it.
pub(super) struct Recorder {
    worker: &'static str,
    state: watch::Sender<State>,
}

impl Recorder {
    /// Records in `store`; without a store it records nothing.
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

    /// Notes that a message was set aside. `outages`: how many times because of an outage, 0 where attempts are
    /// counted; `attempt`: the attempt that failed, where attempts are counted.
    pub(super) fn set_aside(&self, why: &str, batch_id: Option<&str>, outages: u32, attempt: Option<u32>) {
        let at = host::now().strftime("%FT%TZ").to_string();
        self.state.send_modify(|state| {
            let since = match state {
                State::Waits(before) if before.why == why => before.since.clone(),
                _ => at.clone(),
            };
            *state = State::Waits(Waiting {
                schema: WAITING_SCHEMA.to_owned(),
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

    /// Notes that a message which was set aside before is done with.
    pub(super) fn progress(&self) {
        self.state.send_if_modified(|state| std::mem::replace(state, State::Progresses) != State::Progresses);
    }
}

/// Writes the latest state whenever it changed, until the recorder is gone.
async fn keep(worker: &'static str, store: Store, mut changes: watch::Receiver<State>, pause: Duration) {
    let path = layout::waiting(worker);
    while changes.changed().await.is_ok() {
        let state = changes.borrow_and_update().clone();
        let written = async {
            match &state {
                State::Unknown => Ok(()),
                State::Waits(waiting) => {
                    let json =
                        serde_json::to_vec_pretty(waiting).map_err(|error| Failure::permanent("unencodable", error))?;
                    store::write(&store, &path, json).await
                }
                State::Progresses => store::remove(&store, &path).await,
            }
        };
        match time::timeout(WRITE_TIMEOUT, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(worker, path, %error, "the cause of the wait is not recorded"),
            Err(_) => debug!(worker, path, "the cause of the wait is not recorded in time"),
        }
        time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use records::control;
    use std::sync::Arc;

    /// Reads until the record is as expected.
    async fn until(store: &Store, expected: impl Fn(Option<&Waiting>) -> bool) -> Option<Waiting> {
        loop {
            let found = control::wait(store, "merger", host::now()).await.unwrap();
            if expected(found.as_ref()) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_last_cause_is_recorded_until_what_waited_succeeds() {
        let store: Store = Arc::new(InMemory::new());
        let recorder = Recorder::with_pause("merger", Some(store.clone()), Duration::ZERO);
        recorder.set_aside("store is away: full", Some("b1"), 1, None);
        let first = until(&store, |found| found.is_some()).await.unwrap();
        let told = (first.why.as_str(), first.batch_id.as_deref(), first.outages, first.schema.as_str());
        assert_eq!(told, ("store is away: full", Some("b1"), 1, WAITING_SCHEMA));
        recorder.set_aside("store is away: full", Some("b2"), 2, None);
        let second = until(&store, |found| found.is_some_and(|found| found.outages == 2)).await.unwrap();
        let told = (&second.since, second.batch_id.as_deref());
        assert_eq!(told, (&first.since, Some("b2")), "the same cause, the same start");
        recorder.progress();
        until(&store, |found| found.is_none()).await;
    }

    #[tokio::test]
    async fn causes_in_quick_succession_end_with_the_last_one() {
        let store: Store = Arc::new(InMemory::new());
        let recorder = Recorder::start("merger", Some(store.clone()));
        (0..100).for_each(|n| recorder.set_aside(&format!("cause {n}"), None, 0, Some(1)));
        drop(recorder);
        until(&store, |found| found.is_some_and(|found| found.why == "cause 99")).await;
    }
}
