//! Limits on what exists at the same time and on how long it may take, as `/metrics` shows them: the limit, its current use, and
//! what was refused because of it.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::{
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// Between two lines of the log about the same limit.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A limit. Its name is the label `limit` in `/metrics`, with the unit last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    Head,
    /// Time in which a client must take something of its answer.
    Write,
    /// Requests at once.
    Requests,
    /// Requests at once with one API key.
    RequestsPerKey,
    /// Memory of all request bodies.
    Bodies,
    /// Uploads at once.
    Uploads,
    /// Lowest rate of an upload.
    UploadRate,
    /// Time until an upload is complete.
    UploadTime,
}

impl Limit {
    const ALL: [Self; 12] = [
        Self::Connections,
        Self::ConnectionsPerPeer,
        Self::OpsConnections,
        Self::Descriptors,
        Self::Head,
        Self::Write,
        Self::Requests,
        Self::RequestsPerKey,
        Self::Bodies,
        Self::Uploads,
        Self::UploadRate,
        Self::UploadTime,
    ];

    /// The label in `/metrics`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerPeer => "connections_per_peer",
            Self::OpsConnections => "ops_connections",
            Self::Descriptors => "descriptors",
            Self::Head => "head_seconds",
            Self::Write => "write_seconds",
            Self::Requests => "requests",
            Self::RequestsPerKey => "requests_per_key",
            Self::Bodies => "bodies_kibibytes",
            Self::Uploads => "uploads",
            Self::UploadRate => "upload_bytes_per_second",
            Self::UploadTime => "upload_seconds",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    limit: &'static str,
}

/// The limits in the registry.
pub(crate) struct LimitMetrics {
    limit: Family<OfLimit, Gauge<f64, AtomicU64>>,
    used: Family<OfLimit, Gauge<f64, AtomicU64>>,
    refusals: Family<OfLimit, Counter>,
}

impl LimitMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let of = Self { limit: Family::default(), used: Family::default(), refusals: Family::default() };
        registry.register("limit", "Each limit, in the unit of its name", of.limit.clone());
        registry.register(
            "limit_used",
            "Current use of each limit: of a limit per peer, per key or of time, the largest; of a rate, the lowest",
            of.used.clone(),
        );
        registry.register(
            "limit_refusals",
            "What was refused, closed or ended because of each limit",
            of.refusals.clone(),
        );
        for limit in Limit::ALL {
            // A counter that is absent until the first refusal cannot be alerted on.
            drop(of.refusals.get_or_create(&OfLimit { limit: limit.name() }));
        }
        of
    }

    /// Counts one refusal.
    pub(crate) fn refused(&self, limit: Limit) {
        self.refusals.get_or_create(&OfLimit { limit: limit.name() }).inc();
    }

    /// The refusals so far.
    #[cfg(test)]
    pub(crate) fn refusals(&self, limit: Limit) -> u64 {
        self.refusals.get_or_create(&OfLimit { limit: limit.name() }).get()
    }

    /// Shows a limit with its current use; `None`: nothing uses it, or its use is unknown.
    pub(crate) fn show(&self, limit: Limit, value: f64, used: Option<f64>) {
        let label = OfLimit { limit: limit.name() };
        self.limit.get_or_create(&label).set(value);
        match used {
            Some(used) => drop(self.used.get_or_create(&label).set(used)),
            None => drop(self.used.remove(&label)),
        }
    }
}

/// Says when a line is due in the log of something that happens often.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Counts one occurrence. Returns the occurrences since the last line if a line is due.
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("limit_used{limit=\"upload_bytes_per_second\"}"), "{text}");
    }

    #[test]
    fn what_happens_often_is_logged_seldom_and_counted() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due(start), Some(1));
        for second in 1..10 {
            assert_eq!(seldom.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(seldom.due(start + Duration::from_secs(10)), Some(10));
    }
}
