//! The time limit for a service that answers with something other than weather.

use crate::sources::unavailable::Unavailable;
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// Limits how long a location is retried that answers with something other than weather.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    /// Time of the first of an unbroken row of such answers, by location.
    since: Mutex<HashMap<String, Instant>>,
}

impl Patience {
    /// `limit`: time from the first such answer until the failure is permanent.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: Mutex::default() }
    }

    /// Records the outcome of a request to `location` at `now`. Any outcome that is not a lasting failure restarts the wait: a
    /// service whose failures change has an outage, not a wrong address.
    pub fn record(&self, location: &str, is_lasting: bool, now: Instant) {
        let mut since = self.since.lock();
        if is_lasting {
            since.entry(location.to_owned()).or_insert(now);
        } else {
            since.remove(location);
        }
    }

    /// Returns the failure to report, after [`Self::record`]: unchanged until the limit is reached, then permanent.
    pub fn judge(&self, location: &str, failure: Unavailable, now: Instant) -> Unavailable {
        let since = self.since.lock().get(location).copied();
        match since {
            Some(since)
                if now.duration_since(since) >= self.limit && !matches!(failure, Unavailable::Paused { .. }) =>
            {
                let seconds = now.duration_since(since).as_secs();
                Unavailable::Unusable {
                    why: format!(
                        "{failure}. The service has answered so for {seconds} s (weather.unusable_patience_ms): check \
                         weather.source and weather.stations, then replay the dead letter or run again"
                    ),
                }
            }
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::unavailable::tests::{down, not_weather, status};

    #[test]
    fn patience_ends_with_a_location_that_sends_only_other_texts() {
        let (patience, begin) = (Patience::new(Duration::from_secs(60)), Instant::now());
        let ask = |location: &str, failure: Unavailable, second: u64| {
            let now = begin + Duration::from_secs(second);
            patience.record(location, failure.is_lasting(), now);
            patience.judge(location, failure, now)
        };
        for (location, second) in [("a", 0), ("a", 59), ("b", 59)] {
            assert_eq!(ask(location, not_weather(), second), not_weather());
        }
        let Unavailable::Unusable { why } = ask("a", status(204, None), 60) else { panic!("still waits") };
        assert!(why.starts_with("a answered 204 No Content: not a text; check weather.source"), "{why}");
        let Unavailable::Unusable { why } = ask("a", not_weather(), 60) else { panic!("still waits") };
        assert!(why.starts_with("a, line 3, column ID: x; it is not a usable station file. The service"), "{why}");
        assert_eq!(ask("b", not_weather(), 60), not_weather(), "each location has its own limit");
        for (other, second) in [(Some(down()), 100), (None, 200)] {
            let is_lasting = other.as_ref().is_some_and(Unavailable::is_lasting);
            patience.record("a", is_lasting, begin + Duration::from_secs(second));
            assert_eq!(ask("a", not_weather(), second + 1), not_weather(), "the wait restarts after {other:?}");
            assert_eq!(ask("a", not_weather(), second + 60), not_weather());
            assert_eq!(ask("a", down(), second + 99), down());
        }
    }
}
