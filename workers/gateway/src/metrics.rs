//! The metrics of the gateway, for Prometheus.

use crate::limits::LimitMetrics;
use common::served::{Drift, Fallbacks, Tally};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};
use std::{sync::atomic::AtomicU64, time::Duration};

type Number = Gauge<f64, AtomicU64>;

/// Upper bounds of the duration buckets, seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Upper bounds of the buckets of rides per message.
const RIDES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
    model_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeatureLabel {
    model: String,
    feature: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    model: String,
    reason: &'static str,
}

/// The serving statistics that scorers wrote to the store.
#[derive(Default)]
struct ServingMetrics {
    rides: Family<ModelLabel, Gauge>,
    imputed: Family<ModelLabel, Gauge>,
    psi: Family<FeatureLabel, Number>,
    fallbacks: Family<ReasonLabel, Gauge>,
    shadow_rides: Family<ModelLabel, Gauge>,
    shadow_difference: Family<ModelLabel, Number>,
    shadow_absolute: Family<ModelLabel, Number>,
    shadow_largest: Family<ModelLabel, Number>,
    breed_hits: Gauge,
    breed_misses: Gauge,
    breed_loads: Gauge,
    breed_evictions: Gauge,
    breed_load_mean_s: Number,
    breed_load_longest_s: Number,
}

impl ServingMetrics {
    fn new(registry: &mut Registry) -> Self {
        let of = Self::default();
        let days = "in the last 7 days";
        registry.register("served_rides", format!("Rides that the champion scored {days}"), of.rides.clone());
        registry.register(
            "served_imputed_rides",
            format!("Rides that the champion scored {days} with assumed features"),
            of.imputed.clone(),
        );
        registry.register(
            "served_psi",
            format!("Population stability index of a feature, or of the probability, {days} against training: from 0.1 look at it, from 0.25 it is large"),
            of.psi.clone(),
        );
        registry.register(
            "breed_fallbacks",
            format!("Rides that the global model scored instead of a breed model {days}, by reason"),
            of.fallbacks.clone(),
        );
        registry.register(
            "shadow_rides",
            format!("Rides that champion and challenger both scored {days}"),
            of.shadow_rides.clone(),
        );
        for (name, help, family) in [
            ("difference", "Mean of the challenger's probability minus the champion's", &of.shadow_difference),
            ("absolute_difference", "Mean absolute difference of challenger and champion", &of.shadow_absolute),
            ("largest_difference", "Largest absolute difference of challenger and champion", &of.shadow_largest),
        ] {
            registry.register(format!("shadow_{name}"), help, family.clone());
        }
        for (name, help, gauge) in [
            ("breed_cache_hits", "Lookups of a breed model that found it in memory", &of.breed_hits),
            ("breed_cache_misses", "Lookups of a breed model that did not find it in memory", &of.breed_misses),
            ("breed_cache_loads", "Breed models read from the store", &of.breed_loads),
            ("breed_cache_evictions", "Breed models evicted from memory", &of.breed_evictions),
        ] {
            registry.register(name, format!("{help} {days}"), gauge.clone());
        }
        for (name, help, seconds) in [
            ("breed_load_mean_seconds", "Mean time to read a breed model", &of.breed_load_mean_s),
            ("breed_load_longest_seconds", "Longest time to read a breed model", &of.breed_load_longest_s),
        ] {
            registry.register(name, format!("{help} {days}"), seconds.clone());
        }
        of
    }
}

/// Registers a metric and returns it.
fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The metrics and their registry.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabel, Counter>,
    seconds: Family<RouteLabel, Histogram>,
    in_flight: Gauge,
    rides_per_message: Histogram,
    messages: Counter,
    rides: Counter,
    late_answers: Gauge,
    uploaded_bytes: Counter,
    broker_up: Gauge,
    ready: Family<QueueLabel, Gauge>,
    consumers: Family<QueueLabel, Gauge>,
    dead: Family<QueueLabel, Gauge>,
    served: ServingMetrics,
    limits: LimitMetrics,
    /// Number of answered requests at the last call of [`Self::requests_per_second`], and its time.
    last: Mutex<(u64, tokio::time::Instant)>,
    answered: std::sync::atomic::AtomicU64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("wildrydes_gateway");
        let all = &mut registry;
        let seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        Self {
            requests: registered(all, "http_requests", "Requests answered", Family::default()),
            seconds: registered(all, "http_request_duration_seconds", "Time until the head of the answer", seconds),
            in_flight: registered(all, "http_requests_in_flight", "Requests in progress", Gauge::default()),
            rides_per_message: registered(
                all,
                "rides_per_message",
                "Rides in one message to a scorer",
                Histogram::new(RIDES),
            ),
            messages: registered(all, "score_messages", "Score requests sent over the queue", Counter::default()),
            rides: registered(all, "rides_sent", "Rides sent to be scored", Counter::default()),
            late_answers: registered(
                all,
                "late_answers",
                "Answers that arrived after their deadline and were dropped",
                Gauge::default(),
            ),
            uploaded_bytes: registered(all, "uploaded_bytes", "Bytes of uploaded batches", Counter::default()),
            broker_up: registered(all, "broker_up", "1 while the broker accepts messages", Gauge::default()),
            ready: registered(all, "queue_ready", "Messages waiting in a queue", Family::default()),
            consumers: registered(all, "queue_consumers", "Consumers of a queue", Family::default()),
            dead: registered(all, "queue_dead", "Dead letters of a queue", Family::default()),
            served: ServingMetrics::new(all),
            limits: LimitMetrics::new(all),
            registry,
            last: Mutex::new((0, tokio::time::Instant::now())),
            answered: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Returns the metrics of limits.
    pub(crate) fn limits(&self) -> &LimitMetrics {
        &self.limits
    }

    /// Counts a request as in progress until the token is dropped.
    pub(crate) fn begins(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        // Clients may invent methods: a label for each would let memory grow without bound.
        let method = match method {
            "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" => method,
            _ => "other",
        };
        let answered = RequestLabel { route: route.to_owned(), method: method.to_owned(), status };
        self.requests.get_or_create(&answered).inc();
        self.seconds.get_or_create(&RouteLabel { route: route.to_owned() }).observe(took.as_secs_f64());
        self.answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Counts a message to a scorer with this many rides.
    pub(crate) fn sent(&self, rides: usize) {
        self.rides_per_message.observe(rides as f64);
        self.messages.inc();
        self.rides.inc_by(rides as u64);
    }

    /// Counts bytes of an upload.
    pub(crate) fn uploaded(&self, bytes: u64) {
        self.uploaded_bytes.inc_by(bytes);
    }

    /// Sets the state of the broker and the number of late answers.
    pub(crate) fn link(&self, up: bool, late_answers: u64) {
        self.broker_up.set(i64::from(up));
        self.late_answers.set(whole(late_answers));
    }

    /// Sets the metrics of a queue.
    pub(crate) fn queue(&self, queue: &str, ready: u64, consumers: u64, dead: u64) {
        let label = QueueLabel { queue: queue.to_owned() };
        for (family, value) in [(&self.ready, ready), (&self.consumers, consumers), (&self.dead, dead)] {
            family.get_or_create(&label).set(whole(value));
        }
    }

    /// Sets the champion's serving statistics. They replace those of an earlier champion.
    pub(crate) fn served(&self, model: &str, model_id: &str, tally: &Tally, drift: &Drift) {
        let of = &self.served;
        let label = |model_id: &str| ModelLabel { model: model.to_owned(), model_id: model_id.to_owned() };
        of.rides.clear();
        of.rides.get_or_create(&label(model_id)).set(whole(tally.rides));
        of.imputed.clear();
        of.imputed.get_or_create(&label(model_id)).set(whole(tally.imputed));
        of.psi.clear();
        for shift in drift.features.iter().chain(&drift.probability) {
            if let Some(psi) = shift.psi {
                let (model, feature) = (model.to_owned(), shift.of.clone());
                of.psi.get_or_create(&FeatureLabel { model, feature }).set(psi);
            }
        }
        let Fallbacks { no_breed_model, loading, unavailable } = tally.fallbacks;
        for (reason, rides) in [("no_breed_model", no_breed_model), ("loading", loading), ("unavailable", unavailable)]
        {
            of.fallbacks.get_or_create(&ReasonLabel { model: model.to_owned(), reason }).set(whole(rides));
        }
        of.shadow_rides.clear();
        for family in [&of.shadow_difference, &of.shadow_absolute, &of.shadow_largest] {
            family.clear();
        }
        for shadow in &tally.shadows {
            let label = label(&shadow.model_id);
            of.shadow_rides.get_or_create(&label).set(whole(shadow.rides));
            of.shadow_difference.get_or_create(&label).set(shadow.mean().unwrap_or_default());
            of.shadow_absolute.get_or_create(&label).set(shadow.mean_absolute().unwrap_or_default());
            of.shadow_largest.get_or_create(&label).set(shadow.largest);
        }
        let cache = tally.breeds.clone().unwrap_or_default();
        of.breed_hits.set(whole(cache.hits));
        of.breed_misses.set(whole(cache.misses));
        of.breed_loads.set(whole(cache.loads));
        of.breed_evictions.set(whole(cache.evictions));
        of.breed_load_mean_s.set(cache.load_ms_sum / cache.loads.max(1) as f64 / 1_000.0);
        of.breed_load_longest_s.set(cache.load_ms_max / 1_000.0);
    }

    /// Returns the number of requests in progress.
    pub(crate) fn in_flight(&self) -> u64 {
        u64::try_from(self.in_flight.get()).unwrap_or(0)
    }

    /// Returns the answered requests per second since the last call.
    pub(crate) fn requests_per_second(&self) -> f64 {
        let (answered, now) = (self.answered.load(std::sync::atomic::Ordering::Relaxed), tokio::time::Instant::now());
        let mut last = self.last.lock();
        let (before, at) = std::mem::replace(&mut *last, (answered, now));
        let seconds = now.duration_since(at).as_secs_f64();
        if seconds > 0.0 { (answered - before) as f64 / seconds } else { 0.0 }
    }

    /// Returns the mean number of rides per message; `None` before the first message.
    pub(crate) fn rides_per_message(&self) -> Option<f64> {
        let messages = self.messages.get();
        (messages > 0).then(|| self.rides.get() as f64 / messages as f64)
    }

    /// Returns all metrics in the OpenMetrics text format.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = runtime::metrics::metrics().text();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Counts a request as in progress while it lives.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
