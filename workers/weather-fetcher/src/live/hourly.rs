//! Keeps the answers of a service until the hour ends. Concurrent lookups of one key share one request.

use crate::sources::unavailable::Unavailable;
use compact_str::CompactString;
use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;
use std::convert::Infallible;

/// Maximum number of answers that are kept.
const ANSWERS_MAX: usize = 2_048;
/// Time for which a failure is returned again before the next request.
const FAILURE_KEPT: SignedDuration = SignedDuration::from_secs(60);

#[derive(Debug, Clone)]
struct Kept<V> {
    outcome: Result<V, Unavailable>,
    at: Timestamp,
}

/// The answers of the current hour, by the id of a grid cell or place.
#[derive(Debug)]
pub struct Hourly<V>(Cache<(CompactString, i64), Kept<V>>);

impl<V: Clone> Default for Hourly<V> {
    fn default() -> Self {
        Self(Cache::new(ANSWERS_MAX))
    }
}

impl<V: Clone> Hourly<V> {
    /// Returns the answer for `key`, and fetches it if it is not kept: a success until the hour ends, a failure for at most a minute.
    ///
    /// # Errors
    /// Fails as the fetch did.
    pub async fn get(
        &self,
        key: &str,
        now: Timestamp,
        fetch: impl Future<Output = Result<V, Unavailable>>,
    ) -> Result<V, Unavailable> {
        let key = (CompactString::from(key), now.as_second().div_euclid(3_600));
        let is_stale = |kept: &Kept<V>| kept.outcome.is_err() && now.duration_since(kept.at) >= FAILURE_KEPT;
        if self.0.get(&key).is_some_and(|kept| is_stale(&kept)) {
            self.0.remove(&key);
        }
        let kept = self.0.get_or_insert_async(&key, async { Ok(Kept { outcome: fetch.await, at: now }) }).await;
        kept.unwrap_or_else(|never: Infallible| match never {}).outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::unavailable::tests::down;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn an_answer_is_kept_for_its_hour_and_a_failure_for_a_minute() {
        let (hourly, fetches) = (Hourly::<u32>::default(), AtomicUsize::new(0));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let ask = async |key: &str, now: &str, outcome: Result<u32, Unavailable>| {
            let fetch = async {
                fetches.fetch_add(1, Ordering::Relaxed);
                outcome
            };
            let answer = hourly.get(key, at(now), fetch).await;
            (answer, fetches.load(Ordering::Relaxed))
        };
        assert_eq!(ask("a", "2026-11-30T12:00:00Z", Ok(1)).await, (Ok(1), 1));
        assert_eq!(ask("a", "2026-11-30T12:59:59Z", Ok(2)).await, (Ok(1), 1));
        assert_eq!(ask("b", "2026-11-30T12:59:59Z", Ok(3)).await, (Ok(3), 2));
        assert_eq!(ask("a", "2026-11-30T13:00:00Z", Err(down())).await, (Err(down()), 3));
        assert_eq!(ask("a", "2026-11-30T13:00:59Z", Ok(4)).await, (Err(down()), 3));
        assert_eq!(ask("a", "2026-11-30T13:01:00Z", Ok(5)).await, (Ok(5), 4));
    }

    #[tokio::test]
    async fn concurrent_requests_share_one_fetch() {
        let (hourly, fetches) = (Hourly::<u32>::default(), AtomicUsize::new(0));
        let fetch = || async {
            fetches.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(down())
        };
        let all = futures::future::join_all((0..20).map(|_| hourly.get("a", Timestamp::UNIX_EPOCH, fetch()))).await;
        assert!(all.iter().all(|answer| *answer == Err(down())));
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }
}
