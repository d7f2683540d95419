//! The metrics of this process, for Prometheus: messages, rides, failures, the object store.
//!
//! Names and labels of messages follow the semantic conventions of OpenTelemetry for messaging. No label contains a ride id,
//! a breed or free text, so the number of series is bounded ([`SERIES_MAX`]).

use crate::broker::PublishError;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};
use std::{
    collections::BTreeSet,
    sync::{LazyLock, atomic::AtomicU64},
    time::Duration,
};

/// Maximum number of series of one process, each bucket of a histogram counted.
pub const SERIES_MAX: usize = 4_000;
/// Maximum number of distinct values of one label of codes; further ones count as `other`.
const CODES_MAX: usize = 64;
/// Upper bounds of the buckets of short operations, seconds.
const SECONDS: [f64; 14] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of the buckets of handlers and trainings, seconds.
const LONG_SECONDS: [f64; 12] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_200.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Messaging {
    messaging_system: &'static str,
    messaging_operation_name: &'static str,
    messaging_destination_name: &'static str,
    error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    worker: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dependency {
    worker: &'static str,
    dependency: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Origin {
    origin: &'static str,
}

/// Creates histograms with these bounds.
#[derive(Debug, Clone, Copy)]
struct Bounds(&'static [f64]);

impl MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Histograms<L> = Family<L, Histogram, Bounds>;

/// The metrics of this process and their registry.
pub struct Metrics {
    registry: Registry,
    handled: Histograms<Messaging>,
    operations: Histograms<Messaging>,
    sent: Family<Messaging, Counter>,
    consumed: Family<Messaging, Counter>,
    unconfirmed: Gauge,
    rides: Family<Stage, Counter>,
    retries: Family<Reason, Counter>,
    dead_letters: Family<Reason, Counter>,
    outages: Family<Dependency, Counter>,
    store: Histograms<Operation>,
    weather_requests: Histograms<Outcome>,
    station_years: Family<Origin, Counter>,
    trainings: Histogram,
    verdicts: Family<Outcome, Counter>,
    champion_since: Gauge<f64, AtomicU64>,
}

/// Returns the metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            handled: Family::new_with_constructor(Bounds(&LONG_SECONDS)),
            operations: Family::new_with_constructor(Bounds(&SECONDS)),
            sent: Family::default(),
            consumed: Family::default(),
            unconfirmed: Gauge::default(),
            rides: Family::default(),
            retries: Family::default(),
            dead_letters: Family::default(),
            outages: Family::default(),
            store: Family::new_with_constructor(Bounds(&SECONDS)),
            weather_requests: Family::new_with_constructor(Bounds(&SECONDS)),
            station_years: Family::default(),
            trainings: Histogram::new(LONG_SECONDS),
            verdicts: Family::default(),
            champion_since: Gauge::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "messaging_process_duration_seconds",
            "Time to handle one delivery, from its arrival to the confirm of its last output",
            self.handled.clone(),
        );
        registry.register(
            "messaging_client_operation_duration_seconds",
            "Time of a publish until the broker's confirm",
            self.operations.clone(),
        );
        registry.register("messaging_client_sent_messages", "Messages published", self.sent.clone());
        registry.register(
            "messaging_client_consumed_messages",
            "Messages delivered to this process",
            self.consumed.clone(),
        );
        registry.register(
            "wildrydes_unconfirmed_publishes",
            "Publishes that wait for the broker's confirm",
            self.unconfirmed.clone(),
        );
        registry.register(
            "wildrydes_rides",
            "Rides handled, by stage of the fleet and outcome; a repeated delivery counts again",
            self.rides.clone(),
        );
        registry.register(
            "wildrydes_retries",
            "Messages moved to a retry queue after a failed attempt, by reason",
            self.retries.clone(),
        );
        registry.register("wildrydes_dead_letters", "Messages given up, by reason", self.dead_letters.clone());
        registry.register(
            "wildrydes_outages",
            "Messages that wait in a retry queue because a dependency is down",
            self.outages.clone(),
        );
        registry.register(
            "wildrydes_store_operation_duration_seconds",
            "Time of an operation of the object store",
            self.store.clone(),
        );
        registry.register(
            "wildrydes_weather_request_duration_seconds",
            "Time of a request to a weather service",
            self.weather_requests.clone(),
        );
        registry.register(
            "wildrydes_station_years",
            "Years of weather stations that a join used, by origin: memory (of this process), store or source",
            self.station_years.clone(),
        );
        registry.register("wildrydes_training_duration_seconds", "Time of a training", self.trainings.clone());
        registry.register("wildrydes_verdicts", "Decisions of the trainer on a candidate", self.verdicts.clone());
        registry.register(
            "wildrydes_champion_promoted_timestamp_seconds",
            "When the global model that this process serves was promoted, seconds since 1970; 0 without one",
            self.champion_since.clone(),
        );
        self
    }

    /// Counts a delivery from `queue`.
    pub fn consumed(&self, queue: &'static str) {
        self.consumed.get_or_create(&messaging("receive", queue, "")).inc();
    }

    /// Counts a handled delivery of `worker`; `error` is a code, or empty after a success.
    pub fn handled(&self, worker: &'static str, error: &'static str, took: Duration) {
        self.handled.get_or_create(&messaging("process", worker, code(error))).observe(took.as_secs_f64());
    }

    /// Counts a publish as unconfirmed until the returned value is dropped.
    pub fn unconfirmed(&self) -> Unconfirmed<'_> {
        self.unconfirmed.inc();
        Unconfirmed(&self.unconfirmed)
    }

    /// Counts a publish to `exchange`.
    pub fn published(&self, exchange: &'static str, result: &Result<(), PublishError>, took: Duration) {
        let error = match result {
            Ok(()) => "",
            Err(PublishError::Refused) => "refused",
            Err(PublishError::Unroutable { .. }) => "unroutable",
            Err(PublishError::Denied { .. }) => "denied",
            Err(PublishError::TooLarge { .. }) => "too_large",
            Err(PublishError::Unconfirmed(_)) => "unconfirmed",
        };
        // The default exchange has no name; its messages are answers.
        let label = messaging("publish", if exchange.is_empty() { "(reply)" } else { exchange }, error);
        self.sent.get_or_create(&label).inc();
        self.operations.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Counts rides that a stage handled; `outcome` is a code.
    pub fn rides(&self, stage: &'static str, outcome: &'static str, rides: u64) {
        if rides > 0 {
            self.rides.get_or_create(&Stage { stage, outcome: code(outcome) }).inc_by(rides);
        }
    }

    /// Counts a message that waits for a dependency.
    pub fn outage(&self, worker: &'static str, dependency: &'static str) {
        self.outages.get_or_create(&Dependency { worker, dependency: code(dependency) }).inc();
    }

    /// Counts a message that is tried again.
    pub fn retry(&self, worker: &'static str, reason: &'static str) {
        self.retries.get_or_create(&Reason { worker, reason: code(reason) }).inc();
    }

    /// Counts a dead letter.
    pub fn dead_letter(&self, worker: &'static str, reason: &'static str) {
        self.dead_letters.get_or_create(&Reason { worker, reason: code(reason) }).inc();
    }

    /// Counts an operation of the object store; the signature is that of [`records::store::Observer`].
    pub fn store_operation(operation: &'static str, outcome: &'static str, took: Duration) {
        metrics().store.get_or_create(&Operation { operation, outcome }).observe(took.as_secs_f64());
    }

    /// Counts a request to a weather service; `outcome` is a code.
    pub fn weather_request(&self, outcome: &'static str, took: Duration) {
        self.weather_requests.get_or_create(&Outcome { outcome: code(outcome) }).observe(took.as_secs_f64());
    }

    /// Counts years of stations by where they were read: `memory`, `store` or `source`.
    pub fn station_years(&self, origin: &'static str, count: u64) {
        self.station_years.get_or_create(&Origin { origin }).inc_by(count);
    }

    /// Counts a training, from the start of reading to the fitted models.
    pub fn trained(&self, took: Duration) {
        self.trainings.observe(took.as_secs_f64());
    }

    /// Counts a decision of the trainer: `promoted`, `rejected`, or `refused` before a model was fitted.
    pub fn verdict(&self, verdict: &'static str) {
        self.verdicts.get_or_create(&Outcome { outcome: verdict }).inc();
    }

    /// Sets when the champion that this process serves was promoted, seconds since 1970.
    pub fn serves_since(&self, promoted_at: f64) {
        self.champion_since.set(promoted_at);
    }

    /// Returns all metrics in the OpenMetrics text format, without the line that ends it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut text, &self.registry);
        text
    }
}

/// Returns the labels of an operation on messages.
fn messaging(operation: &'static str, destination: &'static str, error: &'static str) -> Messaging {
    Messaging {
        messaging_system: "rabbitmq",
        messaging_operation_name: operation,
        messaging_destination_name: destination,
        error_type: error,
    }
}

/// Returns the code itself, or `other` if this process has already used [`CODES_MAX`] others.
fn code(code: &'static str) -> &'static str {
    static CODES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut codes = CODES.lock();
    if codes.contains(code) || codes.len() < CODES_MAX && codes.insert(code) { code } else { "other" }
}

/// A publish without a confirm, until it is dropped.
pub struct Unconfirmed<'a>(&'a Gauge);

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
