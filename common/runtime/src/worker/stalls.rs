//! Stalled publishes, which the broker refuses at present: reported once per exchange and routing key instead of once
//! per message.

use parking_lot::Mutex;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use tracing::info;

/// Exchange and routing key.
type Destination = (&'static str, String);

/// The stalls of one worker by destination.
#[derive(Default)]
pub(super) struct Stalls(Mutex<BTreeMap<Destination, Stall>>);

struct Stall {
    since: Instant,
    /// Number of publishes that waited.
    messages: u64,
    /// Number of publishes that still wait.
    waiting: u64,
    reported_at: Option<Instant>,
    /// Whether a waiting publish succeeded.
    is_over: bool,
}

impl Stalls {
    /// Adds a publish that waits.
    pub(super) fn enter(&self, exchange: &'static str, routing_key: &str) -> Waiting<'_> {
        let destination = (exchange, routing_key.to_owned());
        let mut all = self.0.lock();
        let new = || Stall { since: Instant::now(), messages: 0, waiting: 0, reported_at: None, is_over: false };
        let stall = all.entry(destination.clone()).or_insert_with(new);
        stall.messages += 1;
        stall.waiting += 1;
        Waiting { stalls: self, destination }
    }
}

/// A publish that waits, until it is dropped.
pub(super) struct Waiting<'a> {
    stalls: &'a Stalls,
    destination: Destination,
}

impl Waiting<'_> {
    /// Returns whether a report of the stall is due: the first one, and then one after each `again_after`, if any.
    pub(super) fn is_due(&self, again_after: Option<Duration>) -> bool {
        let mut all = self.stalls.0.lock();
        let Some(stall) = all.get_mut(&self.destination) else { return false };
        let due = stall.reported_at.is_none_or(|at| again_after.is_some_and(|after| at.elapsed() >= after));
        if due {
            stall.reported_at = Some(Instant::now());
        }
        due
    }

    /// Marks the publish as successful.
    pub(super) fn published(self) {
        if let Some(stall) = self.stalls.0.lock().get_mut(&self.destination) {
            stall.is_over = true;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut all = self.stalls.0.lock();
        let Some(stall) = all.get_mut(&self.destination) else { return };
        stall.waiting -= 1;
        if stall.waiting > 0 {
            return;
        }
        let Some(Stall { since, messages, reported_at, is_over, .. }) = all.remove(&self.destination) else { return };
        if is_over && reported_at.is_some() {
            let (exchange, routing_key) = &self.destination;
            let after_ms = since.elapsed().as_millis() as u64;
            info!(exchange, routing_key, after_ms, messages, "taken again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_reported_once_for_all_publishes_and_again_after_its_end() {
        let stalls = Stalls::default();
        let waiting: Vec<Waiting<'_>> = (0..32).map(|_| stalls.enter("work", "ride-chunk.v1")).collect();
        let elsewhere = stalls.enter("work", "batch-split.v1");
        let due = |waiting: &[Waiting<'_>]| waiting.iter().filter(|one| one.is_due(None)).count();
        assert_eq!(due(&waiting), 1);
        assert!(elsewhere.is_due(None), "another destination, another stall");
        let (first, rest) = waiting.split_at(1);
        assert!(!first[0].is_due(Some(Duration::from_secs(3_600))) && first[0].is_due(Some(Duration::ZERO)));
        assert_eq!(due(rest), 0);
        {
            let all = stalls.0.lock();
            let stall = &all[&("work", "ride-chunk.v1".to_owned())];
            assert_eq!((stall.messages, stall.waiting), (32, 32));
        }
        waiting.into_iter().for_each(Waiting::published);
        assert_eq!(stalls.0.lock().len(), 1, "the stall is over");
        assert!(stalls.enter("work", "ride-chunk.v1").is_due(None), "a new stall is reported again");
    }
}
