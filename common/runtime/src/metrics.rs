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
        info::Info,
    },
    registry::Registry,
};
use std::{
    collections::BTreeSet,
    sync::{LazyLock, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

/// Maximum number of series of one process, each bucket of a histogram counted.
pub const SERIES_MAX: usize = 4_000;
/// The states of a worker's loop.
pub(super) const WORKER_STATES: [&str; 5] = ["disconnected", "consuming", "blocked", "paused", "draining"];
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
struct ServiceOutcome {
    service: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WeatherKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    worker: &'static str,
    state: &'static str,
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
    states: Family<State, Gauge>,
    rides: Family<Stage, Counter>,
    retries: Family<Reason, Counter>,
    dead_letters: Family<Reason, Counter>,
    outages: Family<Dependency, Counter>,
    store: Histograms<Operation>,
    weather_requests: Histograms<ServiceOutcome>,
    weather_answers: Family<WeatherKind, Counter>,
    station_years: Family<Origin, Counter>,
    trainings: Histogram,
    verdicts: Family<Outcome, Counter>,
    champion_since: Gauge<f64, AtomicU64>,
    resident: Gauge,
    /// The codes used in labels so far.
    codes: Mutex<BTreeSet<&'static str>>,
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
            states: Family::default(),
            rides: Family::default(),
            retries: Family::default(),
            dead_letters: Family::default(),
            outages: Family::default(),
            store: Family::new_with_constructor(Bounds(&SECONDS)),
            weather_requests: Family::new_with_constructor(Bounds(&SECONDS)),
            weather_answers: Family::default(),
            station_years: Family::default(),
            trainings: Histogram::new(LONG_SECONDS),
            verdicts: Family::default(),
            champion_since: Gauge::default(),
            resident: Gauge::default(),
            codes: Mutex::default(),
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
            "wildrydes_worker_state",
            "1 for the state of the worker's loop, 0 for the others",
            self.states.clone(),
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
        registry.register("wildrydes_training_duration_seconds", "Time of a training", self.trainings.clone());
        registry.register("wildrydes_verdicts", "Decisions of the trainer on a candidate", self.verdicts.clone());
        registry.register(
            "wildrydes_champion_promoted_timestamp_seconds",
            "When the global model that this process serves was promoted, seconds since 1970; 0 without one",
            self.champion_since.clone(),
        );
        self.register_weather();
        self.register_process();
        self
    }

    fn register_weather(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "wildrydes_weather_request_duration_seconds",
            "Time of a request to a weather service",
            self.weather_requests.clone(),
        );
        registry.register(
            "wildrydes_weather_answers",
            "Places whose weather was looked up, by kind: observed, forecast, climatology, or none",
            self.weather_answers.clone(),
        );
        registry.register(
            "wildrydes_station_years",
            "Years of weather stations that a join used, by origin: memory (of this process), store or source",
            self.station_years.clone(),
        );
    }

    /// Registers what Prometheus expects of every process, under its names.
    fn register_process(&mut self) {
        let started: Gauge<f64, AtomicU64> = Gauge::default();
        started.set(SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64()));
        let registry = &mut self.registry;
        registry.register("process_start_time_seconds", "When the process started, seconds since 1970", started);
        registry.register("process_resident_memory_bytes", "Resident memory", self.resident.clone());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("wildrydes_build", "Version of the program", version);
    }

    /// Counts a delivery from `queue`.
    pub fn consumed(&self, queue: &'static str) {
        self.consumed.get_or_create(&messaging("receive", queue, "")).inc();
    }

    /// Counts a handled delivery of `worker`; `error` is a code, or empty after a success.
    pub fn handled(&self, worker: &'static str, error: &'static str, took: Duration) {
        self.handled.get_or_create(&messaging("process", worker, self.code(error))).observe(took.as_secs_f64());
    }

    /// Counts a publish as unconfirmed until the returned value is dropped.
    pub fn unconfirmed(&self) -> Unconfirmed<'_> {
        self.unconfirmed.inc();
        Unconfirmed(&self.unconfirmed)
    }

    /// Sets the state of a worker's loop, one of [`WORKER_STATES`].
    pub(super) fn worker_state(&self, worker: &'static str, now: &'static str) {
        for state in WORKER_STATES {
            self.states.get_or_create(&State { worker, state }).set(i64::from(state == now));
        }
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
            self.rides.get_or_create(&Stage { stage, outcome: self.code(outcome) }).inc_by(rides);
        }
    }

    /// Counts a message that waits for a dependency.
    pub fn outage(&self, worker: &'static str, dependency: &'static str) {
        self.outages.get_or_create(&Dependency { worker, dependency: self.code(dependency) }).inc();
    }

    /// Counts a message that is tried again.
    pub fn retry(&self, worker: &'static str, reason: &'static str) {
        self.retries.get_or_create(&Reason { worker, reason: self.code(reason) }).inc();
    }

    /// Counts a dead letter.
    pub fn dead_letter(&self, worker: &'static str, reason: &'static str) {
        self.dead_letters.get_or_create(&Reason { worker, reason: self.code(reason) }).inc();
    }

    /// Counts an operation of the object store; the signature is that of [`records::store::Observer`].
    pub fn store_operation(operation: &'static str, outcome: &'static str, took: Duration) {
        metrics().store.get_or_create(&Operation { operation, outcome }).observe(took.as_secs_f64());
    }

    /// Counts a request to a weather service, such as `nws`, by outcome: `ok`, `missing`, `refused` or `failed`.
    pub fn weather_request(&self, service: &'static str, outcome: &'static str, took: Duration) {
        self.weather_requests.get_or_create(&ServiceOutcome { service, outcome }).observe(took.as_secs_f64());
    }

    /// Counts a place whose weather was looked up, by kind: `observed`, `forecast`, `climatology` or `none`.
    pub fn weather_answer(&self, kind: &'static str) {
        self.weather_answers.get_or_create(&WeatherKind { kind }).inc();
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

    /// Returns the code itself, or `other` if [`CODES_MAX`] others have been used.
    fn code(&self, code: &'static str) -> &'static str {
        let mut codes = self.codes.lock();
        if codes.contains(code) || codes.len() < CODES_MAX && codes.insert(code) { code } else { "other" }
    }

    /// Returns all metrics in the OpenMetrics text format, without the line that ends it.
    pub fn text(&self) -> String {
        self.resident.set(resident_bytes());
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

/// Returns the resident memory of this process; 0 where the system does not tell.
fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|text| text.parse::<i64>().ok()).map_or(0, |kilobytes| kilobytes * 1_024)
}

/// A publish without a confirm, until it is dropped.
pub struct Unconfirmed<'a>(&'a Gauge);

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::topology::process::{MERGER, TRAINER};

    fn series(metrics: &Metrics) -> usize {
        metrics.text().lines().filter(|line| !line.starts_with('#')).count()
    }

    /// Two workers that share a process, and more codes than the program has.
    #[test]
    fn the_number_of_series_is_bounded() {
        let (metrics, second) = (Metrics::new(), Duration::from_secs(1));
        for number in 0..1_000 {
            let code: &'static str = format!("code_{number}").leak();
            for worker in [MERGER.name, TRAINER.name] {
                metrics.consumed(worker);
                metrics.handled(worker, code, second);
                metrics.retry(worker, code);
                metrics.dead_letter(worker, code);
                metrics.outage(worker, code);
                metrics.rides(worker, code, 1);
            }
        }
        for exchange in ["", "ingest", "work", "events", "rpc", "retry", "dead", "control"] {
            for result in [
                Ok(()),
                Err(PublishError::Refused),
                Err(PublishError::TooLarge { bytes: 1 }),
                Err(PublishError::Unconfirmed(String::new())),
            ] {
                metrics.published(exchange, &result, second);
            }
        }
        for outcome in ["ok", "missing", "refused", "failed"] {
            for service in ["ghcn-daily", "nws", "open-meteo"] {
                metrics.weather_request(service, outcome, second);
            }
            metrics.weather_answer(outcome);
            metrics.verdict(outcome);
            metrics.station_years(outcome, 1);
        }
        for operation in ["put", "get", "head", "list", "copy", "rename"] {
            for outcome in ["ok", "missing", "exists", "changed", "failed"] {
                metrics.store.get_or_create(&Operation { operation, outcome }).observe(1.0);
            }
        }
        assert!((3_000..=SERIES_MAX).contains(&series(&metrics)), "{}", series(&metrics));
        assert!(metrics.text().contains("reason=\"other\""));
    }

    #[test]
    fn a_publish_is_unconfirmed_until_the_token_is_dropped() {
        let metrics = Metrics::new();
        let waiting = (metrics.unconfirmed(), metrics.unconfirmed());
        assert!(metrics.text().contains("wildrydes_unconfirmed_publishes 2"), "{}", metrics.text());
        drop(waiting);
        assert!(metrics.text().contains("wildrydes_unconfirmed_publishes 0"), "{}", metrics.text());
    }
}
