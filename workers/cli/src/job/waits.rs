//! Why a batch makes no progress, and when to say so.

use super::Submitted;
use common::{
    topology::{ATTEMPTS_MAX, RETRY_DELAYS_MS, queue},
    waiting::Waiting,
};
use records::{Store, control};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Time between two reports of the same cause.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long an unchanged record counts: the longest delay of a retry queue, and time for the next attempt to end.
const COUNTS_FOR: Duration = Duration::from_millis(RETRY_DELAYS_MS[RETRY_DELAYS_MS.len() - 1] + 60_000);
/// The workers that record what they wait for on the way to a dataset and a model.
const WORKERS: [&str; 4] = [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER, queue::TRAINER];

/// Remembers what was reported, so that the same text is reported every 30 s at most.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<String, Instant>);

impl Said {
    /// Whether this text is to be reported, for the first time or again.
    pub(super) fn is_due(&mut self, text: &str) -> bool {
        self.is_due_at(text, Instant::now())
    }

    fn is_due_at(&mut self, text: &str, now: Instant) -> bool {
        self.0.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
        match self.0.contains_key(text) {
            true => false,
            false => self.0.insert(text.to_owned(), now).is_none(),
        }
    }
}

/// The causes of waiting that the workers recorded (`control/waiting/<worker>.json`) since the command began.
///
/// Nothing is bound to the exchange `retry` for this: RabbitMQ counts a message as routed once any queue takes it, so
/// such a binding would hide that a retry queue's binding is missing, and the message would be lost.
#[derive(Debug, Default)]
pub(super) struct Causes(BTreeMap<&'static str, Record>);

#[derive(Debug)]
struct Record {
    waiting: Waiting,
    /// When a change of the record was seen; `None` while it is as the command found it, about an earlier batch.
    changed: Option<Instant>,
}

impl Causes {
    /// Reads the records before anything is handed in.
    pub(super) async fn before(store: &Store) -> Self {
        let mut causes = Self::default();
        for worker in WORKERS {
            let found = control::last_wait(store, worker).await.ok().flatten();
            causes.0.extend(found.map(|waiting| (worker, Record { waiting, changed: None })));
        }
        causes
    }

    /// Reads the records again. A record that cannot be read now is read the next time.
    pub(super) async fn look(&mut self, store: &Store) {
        for worker in WORKERS {
            if let Ok(found) = control::last_wait(store, worker).await {
                self.note(worker, found, Instant::now());
            }
        }
    }

    fn note(&mut self, worker: &'static str, found: Option<Waiting>, now: Instant) {
        match found {
            None => drop(self.0.remove(worker)),
            Some(waiting) if self.0.get(worker).is_some_and(|known| known.waiting == waiting) => {}
            Some(waiting) => drop(self.0.insert(worker, Record { waiting, changed: Some(now) })),
        }
    }

    /// The causes to report to a person who follows `batches`, in the order of the flow.
    pub(super) fn texts<'a>(&self, batches: impl Iterator<Item = &'a Submitted> + Clone) -> Vec<String> {
        let now = Instant::now();
        self.current(now)
            .filter(|waiting| {
                // An outage concerns every batch; any other failure concerns its own batch only.
                let mut ids = batches.clone().map(|batch| batch.batch_id.as_str());
                let of = waiting.batch_id.as_deref();
                waiting.attempt.is_none() || of.is_none_or(|of| ids.any(|id| id == of || id.is_empty()))
            })
            .map(text)
            .collect()
    }

    fn current(&self, now: Instant) -> impl Iterator<Item = &Waiting> {
        let counts =
            move |record: &&Record| record.changed.is_some_and(|changed| now.duration_since(changed) <= COUNTS_FOR);
        WORKERS.iter().filter_map(|worker| self.0.get(worker)).filter(counts).map(|record| &record.waiting)
    }
}

/// For a person.
fn text(Waiting { worker, why, attempt, .. }: &Waiting) -> String {
    match attempt {
        Some(attempt) => format!("{worker} waits: {why}; attempt {attempt} of {ATTEMPTS_MAX}, tried again"),
        None => format!("{worker} waits: {why}; tried again until it succeeds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::waiting::WAITING_SCHEMA;
    use object_store::memory::InMemory;
    use records::layout;
    use std::sync::Arc;

    fn waits(worker: &str, why: &str, batch_id: Option<&str>, attempt: Option<u32>) -> Waiting {
        Waiting {
            schema: WAITING_SCHEMA.to_owned(),
            worker: worker.to_owned(),
            why: why.to_owned(),
            batch_id: batch_id.map(str::to_owned),
            since: "2026-11-24T03:12:40Z".to_owned(),
            at: "2026-11-24T03:12:40Z".to_owned(),
            outages: attempt.map_or(1, |_| 0),
            attempt,
        }
    }

    fn batch(batch_id: &str) -> Submitted {
        Submitted {
            file: "rides.json".into(),
            batch_id: batch_id.to_owned(),
            sha256: String::new(),
            reading: Default::default(),
            trace_id: String::new(),
            at: jiff::Timestamp::UNIX_EPOCH,
            was_there: false,
            earlier: None,
        }
    }

    async fn record(store: &Store, waiting: &Waiting) {
        let json = serde_json::to_vec(waiting).unwrap();
        records::store::write(store, &layout::waiting(&waiting.worker), json).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_recorded_before_is_said_once_it_changes() {
        let store: Store = Arc::new(InMemory::new());
        let mut before = waits("weather-fetcher", "weather service is away: status 503", Some("a"), None);
        record(&store, &before).await;
        let mut causes = Causes::before(&store).await;
        causes.look(&store).await;
        let batches = [batch("b")];
        assert_eq!(causes.texts(batches.iter()), [""; 0]);
        before.outages += 1;
        record(&store, &before).await;
        record(&store, &waits("splitter", "busy", Some("b"), Some(2))).await;
        causes.look(&store).await;
        let expected = [
            "splitter waits: busy; attempt 2 of 5, tried again",
            "weather-fetcher waits: weather service is away: status 503; tried again until it succeeds",
        ];
        assert_eq!(causes.texts(batches.iter()), expected);
        object_store::ObjectStoreExt::delete(&*store, &layout::waiting("splitter").into()).await.unwrap();
        causes.look(&store).await;
        assert_eq!(causes.texts(batches.iter()), expected[1..], "it waits no more");
    }

    #[test]
    fn a_failure_of_another_batch_is_none_of_ours() {
        let mut causes = Causes::default();
        let text = |causes: &Causes, id: &str| causes.texts([batch(id)].iter()).len();
        causes.note("merger", Some(waits("merger", "busy", Some("a"), Some(1))), Instant::now());
        assert_eq!([text(&causes, "a"), text(&causes, "b"), text(&causes, "")], [1, 0, 1]);
        causes.note("merger", Some(waits("merger", "busy", None, Some(1))), Instant::now());
        assert_eq!(text(&causes, "b"), 1);
    }

    #[test]
    fn a_record_that_does_not_change_is_forgotten() {
        let (mut causes, now) = (Causes::default(), Instant::now());
        let waiting = waits("merger", "store is away", None, None);
        causes.note("merger", Some(waiting.clone()), now);
        causes.note("merger", Some(waiting), now + Duration::from_secs(100));
        assert_eq!(causes.current(now + Duration::from_secs(180)).count(), 1);
        assert_eq!(causes.current(now + Duration::from_secs(181)).count(), 0);
    }

    #[test]
    fn the_same_is_said_every_half_minute_and_something_else_at_once() {
        let (mut said, now) = (Said::default(), Instant::now());
        assert!(said.is_due_at("a", now) && said.is_due_at("b", now));
        assert!(!said.is_due_at("a", now + Duration::from_secs(29)));
        assert!(said.is_due_at("a", now + Duration::from_secs(30)));
        assert!(!said.is_due_at("a", now + Duration::from_secs(31)));
    }
}
