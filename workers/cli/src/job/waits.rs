//! Why a batch makes no progress, and when to report it.

use super::outcome::Submission;
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
/// How long an unchanged record is current: the longest delay of a retry queue, and time for the next attempt to end.
const CURRENT_FOR: Duration = Duration::from_millis(RETRY_DELAYS_MS[RETRY_DELAYS_MS.len() - 1] + 60_000);
/// The workers that record what they wait for on the way to a dataset and a model.
const WORKERS: [&str; 4] = [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER, queue::TRAINER];

/// Limits reports of the same text to one every [`AGAIN_AFTER`].
#[derive(Debug, Default)]
pub(super) struct Throttle(BTreeMap<String, Instant>);

impl Throttle {
    /// Returns whether this text is to be reported, for the first time or again, and records it as reported.
    pub(super) fn is_due(&mut self, text: &str) -> bool {
        self.is_due_at(text, Instant::now())
    }

    fn is_due_at(&mut self, text: &str, now: Instant) -> bool {
        self.0.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
        !self.0.contains_key(text) && self.0.insert(text.to_owned(), now).is_none()
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
    /// When the record last changed; `None` if it has not changed since the command began: it is about an earlier batch.
    changed: Option<Instant>,
}

impl Causes {
    /// Reads the records before anything is submitted.
    pub(super) async fn before(store: &Store) -> Self {
        let mut causes = Self::default();
        for worker in WORKERS {
            let waiting = control::last_wait(store, worker).await.ok().flatten();
            causes.0.extend(waiting.map(|waiting| (worker, Record { waiting, changed: None })));
        }
        causes
    }

    /// Reads the records again. A record that cannot be read now is read the next time.
    pub(super) async fn read(&mut self, store: &Store) {
        for worker in WORKERS {
            if let Ok(waiting) = control::last_wait(store, worker).await {
                self.note(worker, waiting, Instant::now());
            }
        }
    }

    fn note(&mut self, worker: &'static str, waiting: Option<Waiting>, now: Instant) {
        match waiting {
            None => drop(self.0.remove(worker)),
            Some(waiting) if self.0.get(worker).is_some_and(|known| known.waiting == waiting) => {}
            Some(waiting) => drop(self.0.insert(worker, Record { waiting, changed: Some(now) })),
        }
    }

    /// Returns the causes to report to a person who follows `batches`, in the order of the flow.
    pub(super) fn texts<'a>(&self, batches: impl Iterator<Item = &'a Submission> + Clone) -> Vec<String> {
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
        let is_current =
            move |record: &&Record| record.changed.is_some_and(|changed| now.duration_since(changed) <= CURRENT_FOR);
        WORKERS.iter().filter_map(|worker| self.0.get(worker)).filter(is_current).map(|record| &record.waiting)
    }
}

/// Describes a wait for a person.
fn text(Waiting { worker, why, attempt, .. }: &Waiting) -> String {
    match attempt {
        Some(attempt) => format!("{worker} waits: {why}; attempt {attempt} of {ATTEMPTS_MAX}, retrying"),
        None => format!("{worker} waits: {why}; retrying until it succeeds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::schema::Described;
    use object_store::memory::InMemory;
    use records::layout;
    use std::sync::Arc;

    fn waits(worker: &str, why: &str, batch_id: Option<&str>, attempt: Option<u32>) -> Waiting {
        Waiting {
            schema: Waiting::SCHEMA.name.to_owned(),
            worker: worker.to_owned(),
            why: why.to_owned(),
            batch_id: batch_id.map(str::to_owned),
            since: "2026-11-24T03:12:40Z".to_owned(),
            at: "2026-11-24T03:12:40Z".to_owned(),
            outages: attempt.map_or(1, |_| 0),
            attempt,
        }
    }

    fn batch(batch_id: &str) -> Submission {
        Submission {
            file: "rides.json".into(),
            batch_id: batch_id.to_owned(),
            sha256: String::new(),
            reading: Default::default(),
            refresh: None,
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
    async fn record_from_before_the_command_is_reported_once_it_changes() {
        let store: Store = Arc::new(InMemory::new());
        let mut before = waits("weather-fetcher", "weather service is away: status 503", Some("a"), None);
        record(&store, &before).await;
        let mut causes = Causes::before(&store).await;
        causes.read(&store).await;
        let batches = [batch("b")];
        assert_eq!(causes.texts(batches.iter()), [""; 0]);
        before.outages += 1;
        record(&store, &before).await;
        record(&store, &waits("splitter", "busy", Some("b"), Some(2))).await;
        causes.read(&store).await;
        let expected = [
            "splitter waits: busy; attempt 2 of 5, retrying",
            "weather-fetcher waits: weather service is away: status 503; retrying until it succeeds",
        ];
        assert_eq!(causes.texts(batches.iter()), expected);
        records::store::remove(&store, &layout::waiting("splitter")).await.unwrap();
        causes.read(&store).await;
        assert_eq!(causes.texts(batches.iter()), expected[1..], "the splitter no longer waits");
    }

    #[test]
    fn failure_of_another_batch_is_not_reported() {
        let mut causes = Causes::default();
        let text = |causes: &Causes, id: &str| causes.texts([batch(id)].iter()).len();
        causes.note("merger", Some(waits("merger", "busy", Some("a"), Some(1))), Instant::now());
        assert_eq!([text(&causes, "a"), text(&causes, "b"), text(&causes, "")], [1, 0, 1]);
        causes.note("merger", Some(waits("merger", "busy", None, Some(1))), Instant::now());
        assert_eq!(text(&causes, "b"), 1);
    }

    #[test]
    fn unchanged_record_expires() {
        let (mut causes, now) = (Causes::default(), Instant::now());
        let waiting = waits("merger", "store is away", None, None);
        causes.note("merger", Some(waiting.clone()), now);
        causes.note("merger", Some(waiting), now + Duration::from_secs(100));
        assert_eq!(causes.current(now + Duration::from_secs(180)).count(), 1);
        assert_eq!(causes.current(now + Duration::from_secs(181)).count(), 0);
    }

    #[test]
    fn same_text_is_reported_every_half_minute_and_another_at_once() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        assert!(throttle.is_due_at("a", now) && throttle.is_due_at("b", now));
        assert!(!throttle.is_due_at("a", now + Duration::from_secs(29)));
        assert!(throttle.is_due_at("a", now + Duration::from_secs(30)));
        assert!(!throttle.is_due_at("a", now + Duration::from_secs(31)));
    }
}
