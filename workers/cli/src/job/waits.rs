//! Why a batch stands still, and when to say so.

use common::contract::{
    envelope::{self, Properties},
    topology::{ATTEMPTS_MAX, queue},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Between two times that the same thing is said.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How much longer than its delay a message that was set aside counts as waiting: for its next attempt to end.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);

/// Keeps what was said already, so that the same is said every 30 s at most.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<String, Instant>);

impl Said {
    /// Whether it is time to say this, again or for the first time.
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

/// Why a worker set a message aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    /// The worker.
    pub(super) worker: &'static str,
    /// In words.
    pub(super) why: String,
    /// Which attempt failed, where attempts are counted; an outage spends none.
    pub(super) attempt: Option<u32>,
    /// How long the message waits.
    pub(super) delay: Duration,
}

impl Cause {
    /// Reads it off a copy of the message on its way to a retry queue; `None` for what is none.
    ///
    /// `routing_key`: the name of the retry queue.
    pub(super) fn read(routing_key: &str, properties: &Properties) -> Option<Self> {
        let (of, _) = routing_key.split_once(".retry.")?;
        let worker = queue::ALL.into_iter().find(|worker| *worker == of)?;
        let line = properties.text(envelope::HISTORY)?.lines().last()?;
        let (attempt, why) = line.strip_prefix("attempt ")?.split_once(": ")?;
        let failed: u32 = attempt.parse().ok()?;
        // The copy says which attempt is next: the same one after an outage.
        let counted = properties.attempt() > failed;
        let delay = Duration::from_millis(properties.expiration_ms.unwrap_or(0));
        Some(Self { worker, why: why.to_owned(), attempt: counted.then_some(failed), delay })
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let Self { worker, why, .. } = self;
        match self.attempt {
            Some(attempt) => format!("{worker} waits: {why}; attempt {attempt} of {ATTEMPTS_MAX}, tried again"),
            None => format!("{worker} waits: {why}; tried again until it answers"),
        }
    }
}

/// The last cause of each worker, as long as it can be what a batch waits for.
#[derive(Debug, Default)]
pub(super) struct Causes(BTreeMap<&'static str, (Cause, Instant)>);

impl Causes {
    pub(super) fn add(&mut self, cause: Cause) {
        self.0.insert(cause.worker, (cause, Instant::now()));
    }

    /// What to say of them, in the order of the workers' names.
    pub(super) fn texts(&mut self) -> Vec<String> {
        self.texts_at(Instant::now())
    }

    fn texts_at(&mut self, now: Instant) -> Vec<String> {
        self.0.retain(|_, (cause, at)| now.duration_since(*at) <= cause.delay + ATTEMPT_MAX);
        self.0.values().map(|(cause, _)| cause.text()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_aside(history: &str, attempt: u32, expiration_ms: u64) -> Properties {
        let mut properties = Properties { expiration_ms: Some(expiration_ms), ..Properties::default() };
        properties.set_text(envelope::HISTORY, history);
        properties.set_count(envelope::ATTEMPT, attempt);
        properties
    }

    #[test]
    fn the_cause_is_the_last_line_of_the_history() {
        let history = "attempt 1: busy\nattempt 2: weather service is away: http://h/x: status 503";
        let cause = Cause::read("weather-fetcher.retry.1", &set_aside(history, 2, 4_000)).unwrap();
        assert_eq!((cause.attempt, cause.delay), (None, Duration::from_secs(4)), "an outage spends no attempt");
        let expected =
            "weather-fetcher waits: weather service is away: http://h/x: status 503; tried again until it answers";
        assert_eq!(cause.text(), expected);
        let cause = Cause::read("merger.retry.0", &set_aside("attempt 1: the handler panicked: x", 2, 0)).unwrap();
        assert_eq!(cause.text(), "merger waits: the handler panicked: x; attempt 1 of 5, tried again");
    }

    #[test]
    fn what_is_no_retry_of_the_fleet_has_no_cause() {
        let good = set_aside("attempt 1: busy", 2, 0);
        for (key, properties) in [
            ("merger", &good),
            ("other.retry.0", &good),
            ("merger.retry.0", &Properties::default()),
            ("merger.retry.0", &set_aside("", 2, 0)),
            ("merger.retry.0", &set_aside("attempt x: y", 2, 0)),
            ("merger.retry.0", &set_aside("hello", 2, 0)),
        ] {
            assert_eq!(Cause::read(key, properties), None, "{key} {properties:?}");
        }
    }

    #[test]
    fn a_cause_is_forgotten_once_its_message_had_its_next_attempt() {
        let mut causes = Causes::default();
        causes.add(Cause::read("merger.retry.0", &set_aside("attempt 1: busy", 1, 5_000)).unwrap());
        causes.add(Cause::read("splitter.retry.3", &set_aside("attempt 1: away", 1, 120_000)).unwrap());
        causes.add(Cause::read("merger.retry.0", &set_aside("attempt 1: still busy", 1, 5_000)).unwrap());
        let now = Instant::now();
        let texts = causes.texts_at(now);
        assert!(texts.len() == 2 && texts[0].contains("still busy") && texts[1].contains("away"), "{texts:?}");
        assert_eq!(causes.texts_at(now + Duration::from_secs(70)).len(), 1);
        assert_eq!(causes.texts_at(now + Duration::from_secs(190)).len(), 0);
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
