//! Limits on concurrency, time and rates, as `/metrics` shows them: each limit, its current use, and how often it refused
//! something.

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};
use strum::IntoEnumIterator;

/// Interval between two log lines about the same limit.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A limit. `into_str` returns the label `limit` in `/metrics`; the unit comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(crate) enum Limit {
    /// Connections to `gateway.bind`.
    Connections,
    /// Connections of one peer address to `gateway.bind`.
    ConnectionsPerPeer,
    /// Connections to `gateway.ops_bind`.
    OpsConnections,
    /// Open file descriptors of the process.
    Descriptors,
    /// Time until a connection has sent the head of its first request.
    #[strum(serialize = "head_seconds")]
    Head,
    /// Time in which a client must read something of its answer.
    #[strum(serialize = "write_seconds")]
    Write,
    /// Requests in progress.
    Requests,
    /// Requests in progress with one API key.
    RequestsPerKey,
    /// Memory of all request bodies.
    #[strum(serialize = "bodies_kibibytes")]
    Bodies,
    /// Uploads in progress.
    Uploads,
    /// Lowest rate of an upload.
    #[strum(serialize = "upload_bytes_per_second")]
    UploadRate,
    /// Time until an upload is complete.
    #[strum(serialize = "upload_seconds")]
    UploadTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

/// The metrics of all limits.
pub(crate) struct LimitMetrics {
    limit: Family<LimitLabel, Gauge<f64, AtomicU64>>,
    used: Family<LimitLabel, Gauge<f64, AtomicU64>>,
    refusals: Family<LimitLabel, Counter>,
}

impl LimitMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let of = Self { limit: Family::default(), used: Family::default(), refusals: Family::default() };
        registry.register("limit", "Each limit, in the unit that its name ends with", of.limit.clone());
        registry.register(
            "limit_used",
            "Current use of each limit: of a limit per peer, per key or of time, the largest; of a rate, the lowest",
            of.used.clone(),
        );
        registry.register(
            "limit_refusals",
            "Requests, connections and uploads refused or ended because of each limit",
            of.refusals.clone(),
        );
        for limit in Limit::iter() {
            // No alert can use a counter that is absent until the first refusal.
            drop(of.refusals.get_or_create(&LimitLabel { limit: limit.into_str() }));
        }
        of
    }

    /// Counts one refusal.
    pub(crate) fn refused(&self, limit: Limit) {
        self.refusals.get_or_create(&LimitLabel { limit: limit.into_str() }).inc();
    }

    /// Returns the number of refusals.
    #[cfg(test)]
    pub(crate) fn refusals(&self, limit: Limit) -> u64 {
        self.refusals.get_or_create(&LimitLabel { limit: limit.into_str() }).get()
    }

    /// Sets a limit and its current use; `None` if nothing uses it, or its use is unknown.
    pub(crate) fn show(&self, limit: Limit, value: f64, used: Option<f64>) {
        let label = LimitLabel { limit: limit.into_str() };
        self.limit.get_or_create(&label).set(value);
        match used {
            Some(used) => drop(self.used.get_or_create(&label).set(used)),
            None => drop(self.used.remove(&label)),
        }
    }
}

/// Limits the log lines about a frequent event.
#[derive(Default)]
pub(crate) struct LogThrottle(Mutex<(Option<Instant>, u64)>);

impl LogThrottle {
    /// Counts one event. Returns the number of events since the last line if the next line is due.
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let (last, count) = &mut *state;
        *count += 1;
        if last.is_some_and(|last| now.duration_since(last) < LOG_EVERY) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn a_limit_is_shown_with_its_use_and_its_refusals() {
        let mut registry = Registry::default();
        let metrics = LimitMetrics::new(&mut registry);
        metrics.show(Limit::Uploads, 16.0, Some(3.0));
        metrics.show(Limit::UploadRate, 4096.0, Some(1.0));
        metrics.show(Limit::UploadRate, 4096.0, None);
        metrics.refused(Limit::Uploads);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "limit{limit=\"uploads\"} 16.0",
            "limit_used{limit=\"uploads\"} 3.0",
            "limit_refusals_total{limit=\"uploads\"} 1",
            "limit{limit=\"upload_bytes_per_second\"} 4096.0",
            "limit_refusals_total{limit=\"connections\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("limit_used{limit=\"upload_bytes_per_second\"}"), "{text}");
    }

    #[test]
    fn frequent_events_are_counted_and_rarely_logged() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(throttle.due(start), Some(1));
        for second in 1..10 {
            assert_eq!(throttle.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(throttle.due(start + Duration::from_secs(10)), Some(10));
    }
}
