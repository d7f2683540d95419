//! The health of this process, for probes: whether its loops run, and whether its workers can take work.
//!
//! ```text
//! worker loop ─ beats, state ─▶ Health ─▶ /livez    503 if a loop has not turned for LIVE_WITHIN
//!                                    └──▶ /readyz   503 with the reasons: no connection, paused, blocked, draining, store
//! ```

mod listener;

pub use listener::{Listener, listener, serve};

use crate::metrics::metrics;
use parking_lot::{Mutex, MutexGuard};
use records::{Store, layout, store};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Maximum time between two turns of a loop.
const LIVE_WITHIN: Duration = Duration::from_secs(60);
/// Interval at which a loop without events turns.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// Maximum time of the read that checks the store.
const STORE_WITHIN: Duration = Duration::from_secs(2);

/// The health of a process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, WorkerHealth>>>);

#[derive(Debug)]
struct WorkerHealth {
    turned_at: Instant,
    state: WorkerState,
    /// Why the broker blocks publishes; `None` while it does not.
    blocked: Option<String>,
}

impl WorkerHealth {
    /// Returns the state, one of [`WORKER_STATES`](crate::metrics::WORKER_STATES).
    fn name(&self) -> &'static str {
        match self.state {
            WorkerState::Disconnected(_) => "disconnected",
            WorkerState::Consuming if self.blocked.is_some() => "blocked",
            WorkerState::Consuming => "consuming",
            WorkerState::Paused => "paused",
            WorkerState::Draining => "draining",
        }
    }
}

/// Whether a worker can take work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerState {
    /// It has no connection to the broker yet, or lost it, for this reason.
    Disconnected(String),
    /// It reads its queue.
    Consuming,
    /// An operator paused it.
    Paused,
    /// It shuts down and finishes running handlers.
    Draining,
}

impl Health {
    fn workers(&self) -> MutexGuard<'_, BTreeMap<&'static str, WorkerHealth>> {
        self.0.lock()
    }

    /// Records that the loop of `worker` turned.
    pub(super) fn beat(&self, worker: &'static str) {
        self.with(worker, |_| ());
    }

    /// Records the state of `worker`.
    pub(super) fn set(&self, worker: &'static str, state: WorkerState) {
        self.with(worker, |health| {
            // A new connection starts without an alarm.
            if matches!(state, WorkerState::Disconnected(_)) {
                health.blocked = None;
            }
            health.state = state;
        });
    }

    /// Records whether the broker blocks publishes.
    pub(super) fn set_blocked(&self, worker: &'static str, why: Option<String>) {
        self.with(worker, |health| health.blocked = why);
    }

    fn with(&self, worker: &'static str, change: impl FnOnce(&mut WorkerHealth)) {
        let mut workers = self.workers();
        let health = workers.entry(worker).or_insert_with(|| WorkerHealth {
            turned_at: Instant::now(),
            state: WorkerState::Disconnected("connecting".to_owned()),
            blocked: None,
        });
        health.turned_at = Instant::now();
        change(health);
        metrics().worker_state(worker, health.name());
    }

    /// Returns why the process must be restarted, one reason per loop that stands still; none for a live process.
    pub fn dead(&self) -> Vec<String> {
        let still = |(worker, health): (&&str, &WorkerHealth)| {
            let still = health.turned_at.elapsed();
            (still > LIVE_WITHIN).then(|| format!("{worker}: its loop has stood still for {} s", still.as_secs()))
        };
        self.workers().iter().filter_map(still).collect()
    }

    /// Returns why the process cannot take work, by worker; none if it can.
    pub fn unready(&self) -> Vec<String> {
        let workers = self.workers();
        if workers.is_empty() {
            return vec!["starting".to_owned()];
        }
        let reason = |health: &WorkerHealth| match (&health.state, &health.blocked) {
            (WorkerState::Disconnected(why), _) => Some(format!("no connection to the broker: {why}")),
            (WorkerState::Paused, _) => Some("paused by an operator; `wildrydes resume` ends it".to_owned()),
            (WorkerState::Draining, _) => Some("shutting down".to_owned()),
            (WorkerState::Consuming, Some(why)) => Some(format!("the broker blocks publishes: {why}")),
            (WorkerState::Consuming, None) => None,
        };
        let reasons = workers.iter().filter_map(|(worker, health)| Some(format!("{worker}: {}", reason(health)?)));
        reasons.collect()
    }
}

/// Returns why the object store cannot be used; `None` if it can. Reads one small object, which may be missing.
pub async fn unreachable(store: &Store) -> Option<String> {
    let path = layout::control("health");
    match tokio::time::timeout(STORE_WITHIN, store::read(store, &path)).await {
        Ok(Ok(_)) => None,
        Ok(Err(failure)) => Some(failure.to_string()),
        Err(_) => Some(format!("object store: no answer within {} s", STORE_WITHIN.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ready_while_it_consumes_and_the_broker_takes_publishes() {
        let health = Health::default();
        assert_eq!(health.unready(), ["starting"]);
        health.set("merger", WorkerState::Disconnected("refused".to_owned()));
        assert_eq!(health.unready(), ["merger: no connection to the broker: refused"]);
        health.set("merger", WorkerState::Consuming);
        assert_eq!(health.unready(), [""; 0]);
        health.set_blocked("merger", Some("low on disk".to_owned()));
        assert_eq!(health.unready(), ["merger: the broker blocks publishes: low on disk"]);
        health.set_blocked("merger", None);
        for (state, word) in [(WorkerState::Paused, "paused"), (WorkerState::Draining, "shutting down")] {
            health.set("merger", state);
            assert!(health.unready()[0].contains(word), "{:?}", health.unready());
        }
        health.set("trainer", WorkerState::Consuming);
        assert_eq!(health.unready().len(), 1, "one worker of the process is enough");
    }

    #[test]
    fn a_new_connection_forgets_the_alarm_of_the_last_one() {
        let health = Health::default();
        health.set_blocked("merger", Some("low on disk".to_owned()));
        health.set("merger", WorkerState::Disconnected("lost".to_owned()));
        health.set("merger", WorkerState::Consuming);
        assert_eq!(health.unready(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_dead_until_it_turns_again() {
        let health = Health::default();
        health.beat("merger");
        tokio::time::advance(LIVE_WITHIN).await;
        assert_eq!(health.dead(), [""; 0]);
        tokio::time::advance(BEAT).await;
        assert_eq!(health.dead(), ["merger: its loop has stood still for 61 s"]);
        health.beat("merger");
        assert_eq!(health.dead(), [""; 0]);
    }
}
