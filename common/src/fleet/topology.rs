//! All exchanges, queues and bindings of the fleet, as data. This is the one place that defines how workers are
//! connected; [`runtime::amqp`] and [`runtime::memory`] declare it.
//!
//! ```text
//! ingest ──#──────────────────▶ splitter
//! work ────ride-chunk.#───────▶ weather-fetcher
//! work ────enriched-chunk.#───▶ merger
//! work ────batch-split.#──────▶ merger
//! events ──dataset-ready.#────▶ trainer
//! rpc ─────score-request.#────▶ scorer
//! rpc ─────weather-request.#──▶ weather-lookup, which the weather-fetcher reads beside its own queue
//! events ──model-promoted.#───▶ (one temporary queue per scorer replica)
//! events ──worker-control.#───▶ (one temporary queue per replica of any worker)
//!
//! retry ───<queue>.retry.<n>──▶ <queue>.retry.<n> ── after its delay ──▶ <queue>
//! dead ────<queue>────────────▶ <queue>.dead
//! ```
//!
//! Bindings match every version of a message (`ride-chunk.#`). So a worker dead-letters a version that it does not
//! know, with the reason, instead of the broker returning it as unroutable.

use crate::{
    fleet::exchange::{DEAD, EVENTS, INGEST, RETRY, RPC, WORK},
    message::{
        BatchSplit, DatasetReady, EnrichedChunk, Message, ModelPromoted, ModelRejected, RideBatch, RideChunk,
        ScoreRequest, ScoreResponse, WeatherRequest, WeatherResponse, WorkerControl,
    },
};
use serde::Serialize;
use std::collections::BTreeMap;

/// The work queues, named after the workers that read them.
pub mod queue {
    #![allow(missing_docs)]
    pub const SPLITTER: &str = "splitter";
    pub const WEATHER_FETCHER: &str = "weather-fetcher";
    pub const MERGER: &str = "merger";
    pub const TRAINER: &str = "trainer";
    pub const SCORER: &str = "scorer";
    pub const WEATHER_LOOKUP: &str = "weather-lookup";
    /// In the order of the flow, then the queues of requests.
    pub const ALL: [&str; 6] = [SPLITTER, WEATHER_FETCHER, MERGER, TRAINER, SCORER, WEATHER_LOOKUP];
}

/// The processes of a fleet: names of queues, users, binaries and sections derive from this table.
pub mod process {
    #![allow(missing_docs)]
    use super::queue;

    /// A process of the fleet.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Process {
        /// Name of the binary and of the user at the broker, also in the property `app_id` and in logs.
        pub name: &'static str,
        /// The work queues it reads.
        pub queues: &'static [&'static str],
        /// Its section of the configuration.
        pub section: &'static str,
    }

    pub const SPLITTER: Process = worker(&[queue::SPLITTER], queue::SPLITTER);
    /// Lookups share its caches.
    pub const WEATHER_FETCHER: Process = worker(&[queue::WEATHER_FETCHER, queue::WEATHER_LOOKUP], "weather");
    pub const MERGER: Process = worker(&[queue::MERGER], queue::MERGER);
    pub const TRAINER: Process = worker(&[queue::TRAINER], queue::TRAINER);
    pub const SCORER: Process = worker(&[queue::SCORER], queue::SCORER);
    /// The HTTP service in front of the fleet: publisher and client at once; it also browses dead letters.
    pub const GATEWAY: Process = Process { name: "gateway", queues: &[], section: "gateway" };
    /// In the order of the flow.
    pub const ALL: [Process; 6] = [SPLITTER, WEATHER_FETCHER, MERGER, TRAINER, SCORER, GATEWAY];

    /// A process named after the first of its queues.
    const fn worker(queues: &'static [&'static str], section: &'static str) -> Process {
        Process { name: queues[0], queues, section }
    }
}

pub use process::Process;

/// Names of the processes that read a work queue, in the order of the flow.
pub const PROCESSES: [&str; 5] = [
    process::SPLITTER.name,
    process::WEATHER_FETCHER.name,
    process::MERGER.name,
    process::TRAINER.name,
    process::SCORER.name,
];

/// Returns the name of the process that reads a work queue.
pub fn process_of(queue: &str) -> &str {
    process::ALL.iter().find(|process| process.queues.contains(&queue)).map_or(queue, |process| process.name)
}

/// Role of an external client that publishes batches and follows them.
pub const PUBLISHER: &str = "publisher";
/// Role of an external client that requests scores and weather.
pub const CLIENT: &str = "client";
/// Role of the person who operates the fleet.
pub const OPERATOR: &str = "operator";

/// Delays of the retry queues of a work queue, in milliseconds.
pub const RETRY_DELAYS_MS: [u64; 4] = [1_000, 5_000, 30_000, 120_000];
/// Maximum number of attempts at a message, the first included; then it becomes a dead letter.
pub const ATTEMPTS_MAX: u32 = 5;
/// Maximum size of a work queue in bytes. A full queue refuses publishes and so slows the stage before it.
pub const WORK_QUEUE_BYTES_MAX: i64 = 512 * 1024 * 1024;
/// Maximum size of a retry queue in bytes. A full queue refuses messages; the worker then holds them, which slows the
/// stages before it.
pub const RETRY_QUEUE_BYTES_MAX: i64 = 128 * 1024 * 1024;
/// Maximum size of a dead-letter queue in bytes: 64 messages of the largest size, or millions of the usual one. A
/// refused dead letter stays in its work queue, and the worker records that it waits. Without a limit, dead letters
/// could fill the broker's disk, and then no publish would succeed.
pub const DEAD_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// Maximum number of redeliveries of a message, for example to processes that die on it; then the broker dead-letters
/// it.
pub const DELIVERY_LIMIT: i64 = 20;
/// Delivery limit of dead-letter queues, too large to be reached by browsing. It must be explicit: the default is 20
/// since RabbitMQ 4.0, and 3.10 accepts no value for "no limit".
pub const DEAD_DELIVERY_LIMIT: i64 = 1_000_000_000;
/// Pattern of the events to which every replica of every worker subscribes: pause and resume.
pub const CONTROL_PATTERN: &str = "worker-control.#";
/// Time to live of a request without a deadline, in milliseconds.
pub const REQUEST_TTL_MS: i64 = 60_000;
/// Maximum number of requests in a queue; a full queue refuses more.
pub const REQUESTS_MAX: i64 = 100_000;

/// The topology of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Exchanges, all durable.
    pub exchanges: Vec<Exchange>,
    /// Queues, all durable.
    pub queues: Vec<Queue>,
    /// Bindings of queues to exchanges.
    pub bindings: Vec<Binding>,
    /// Events of which every replica of a worker receives a copy, through a temporary queue of its own.
    pub subscriptions: Vec<Subscription>,
    /// The messages that each role publishes, without retries and dead letters, which every worker publishes for its
    /// own queue.
    pub publications: Vec<Publication>,
}

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Name, with the namespace.
    pub name: String,
    /// How the exchange routes.
    pub kind: ExchangeKind,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExchangeKind {
    /// To queues bound with the same routing key.
    Direct,
    /// To queues bound with a matching pattern: `*` stands for one word, `#` for any number of words.
    Topic,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Name, with the namespace.
    pub name: String,
    /// Purpose of the queue.
    pub role: Role,
    /// The `x-` arguments of its declaration. To change one, delete the queue first.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// Purpose of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A worker consumes it.
    Work,
    /// A retry queue: messages wait here for their next attempt.
    #[serde(rename = "rung")]
    Retry {
        /// Name of the work queue.
        of: String,
        /// Maximum wait in milliseconds.
        delay_ms: u64,
    },
    /// A dead-letter queue: messages that were given up, with their reason.
    Dead {
        /// Name of the work queue.
        of: String,
    },
}

/// A queue argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Argument {
    /// A signed 64-bit integer.
    Integer(i64),
    /// UTF-8 text.
    Text(String),
}

/// Routes messages of `exchange` with a matching routing key to `queue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// Name of the exchange, with the namespace.
    pub exchange: String,
    /// A pattern for a topic exchange, a routing key for a direct one.
    pub routing_key: String,
    /// Name of the queue, with the namespace.
    pub queue: String,
}

/// Messages of which every replica of `worker` receives a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// Name of the worker.
    pub worker: String,
    /// Name of the exchange, with the namespace.
    pub exchange: String,
    /// Pattern of the routing keys.
    pub routing_key: String,
}

/// A message that a worker or an external client publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Publication {
    /// The worker, or [`PUBLISHER`], [`CLIENT`] or [`OPERATOR`]; a [gateway](process::GATEWAY) publishes as the first two do.
    pub by: String,
    /// Name of the exchange, with the namespace; empty for answers, which go to the queue that the request names.
    pub exchange: String,
    /// Name of the message without its version.
    pub message: String,
}

impl Topology {
    /// Returns the topology of a fleet. `namespace`, which may be empty, prefixes every name, so that several fleets
    /// can share a virtual host.
    pub fn of_fleet(namespace: &str) -> Self {
        let name = |plain: &str| format!("{namespace}{plain}");
        let exchange = |plain: &str, kind| Exchange { name: name(plain), kind };
        let exchanges = vec![
            exchange(INGEST, ExchangeKind::Topic),
            exchange(WORK, ExchangeKind::Topic),
            exchange(EVENTS, ExchangeKind::Topic),
            exchange(RPC, ExchangeKind::Topic),
            // Both route by equal keys, but RabbitMQ can restrict a user's routing keys at topic exchanges only.
            exchange(RETRY, ExchangeKind::Topic),
            exchange(DEAD, ExchangeKind::Topic),
        ];
        let binding = |from: &str, routing_key: &str, to: &str| Binding {
            exchange: name(from),
            routing_key: routing_key.to_owned(),
            queue: name(to),
        };
        let mut bindings = vec![
            binding(INGEST, "#", queue::SPLITTER),
            binding(WORK, "ride-chunk.#", queue::WEATHER_FETCHER),
            binding(WORK, "enriched-chunk.#", queue::MERGER),
            binding(WORK, "batch-split.#", queue::MERGER),
            binding(EVENTS, "dataset-ready.#", queue::TRAINER),
            binding(RPC, "score-request.#", queue::SCORER),
            binding(RPC, "weather-request.#", queue::WEATHER_LOOKUP),
        ];
        let mut queues = Vec::new();
        for plain in queue::ALL {
            let of = name(plain);
            queues.push(Queue { name: of.clone(), role: Role::Work, arguments: work_arguments(plain, namespace) });
            for (index, delay_ms) in retry_delays_of(plain).iter().enumerate() {
                let retry = retry_queue(plain, index);
                queues.push(Queue {
                    name: name(&retry),
                    role: Role::Retry { of: of.clone(), delay_ms: *delay_ms },
                    arguments: retry_arguments(plain, *delay_ms, namespace),
                });
                bindings.push(Binding { exchange: name(RETRY), routing_key: name(&retry), queue: name(&retry) });
            }
            bindings.push(Binding { exchange: name(RETRY), routing_key: of.clone(), queue: of.clone() });
            let dead = name(&dead_queue(plain));
            queues.push(Queue { name: dead.clone(), role: Role::Dead { of: of.clone() }, arguments: dead_arguments() });
            bindings.push(Binding { exchange: name(DEAD), routing_key: of, queue: dead });
        }
        let subscription = |worker: &str, routing_key: &str| Subscription {
            worker: worker.to_owned(),
            exchange: name(EVENTS),
            routing_key: routing_key.to_owned(),
        };
        let mut subscriptions = vec![subscription(queue::SCORER, "model-promoted.#")];
        subscriptions.extend(queue::ALL.map(|worker| subscription(worker, CONTROL_PATTERN)));
        let publications = vec![
            publication::<RideBatch>(PUBLISHER, namespace),
            publication::<RideChunk>(queue::SPLITTER, namespace),
            publication::<BatchSplit>(queue::SPLITTER, namespace),
            publication::<EnrichedChunk>(queue::WEATHER_FETCHER, namespace),
            publication::<DatasetReady>(queue::MERGER, namespace),
            publication::<ModelPromoted>(queue::TRAINER, namespace),
            publication::<ModelRejected>(queue::TRAINER, namespace),
            publication::<WorkerControl>(OPERATOR, namespace),
            publication::<ScoreRequest>(CLIENT, namespace),
            publication::<ScoreResponse>(queue::SCORER, namespace),
            publication::<WeatherRequest>(CLIENT, namespace),
            publication::<WeatherResponse>(queue::WEATHER_LOOKUP, namespace),
        ];
        Self { exchanges, queues, bindings, subscriptions, publications }
    }

    /// Returns the queue with this name.
    pub fn queue(&self, name: &str) -> Option<&Queue> {
        self.queues.iter().find(|queue| queue.name == name)
    }
}

/// Returns whether a work queue holds requests, which are answered or expire.
pub fn holds_requests(queue: &str) -> bool {
    matches!(queue, queue::SCORER | queue::WEATHER_LOOKUP)
}

/// Returns the delays of a work queue's retry queues, in milliseconds. Requests have none: they are never retried.
pub fn retry_delays_of(queue: &str) -> &'static [u64] {
    if holds_requests(queue) { &[] } else { &RETRY_DELAYS_MS }
}

/// Returns the name of a retry queue; `index` is its index in [`RETRY_DELAYS_MS`].
pub fn retry_queue(queue: &str, index: usize) -> String {
    format!("{queue}.retry.{index}")
}

/// Returns the name of a work queue's dead-letter queue.
pub fn dead_queue(queue: &str) -> String {
    format!("{queue}.dead")
}

fn publication<M: Message>(by: &str, namespace: &str) -> Publication {
    let exchange = if M::EXCHANGE.is_empty() { String::new() } else { format!("{namespace}{}", M::EXCHANGE) };
    Publication { by: by.to_owned(), exchange, message: M::KIND.name.to_owned() }
}

fn text(value: impl Into<String>) -> Argument {
    Argument::Text(value.into())
}

fn work_arguments(plain: &str, namespace: &str) -> BTreeMap<&'static str, Argument> {
    if holds_requests(plain) {
        // Requests live for seconds: they are not replicated, and an expired one is not dead-lettered.
        return BTreeMap::from([
            ("x-queue-type", text("classic")),
            ("x-message-ttl", Argument::Integer(REQUEST_TTL_MS)),
            ("x-max-length", Argument::Integer(REQUESTS_MAX)),
            ("x-overflow", text("reject-publish")),
        ]);
    }
    BTreeMap::from([
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", Argument::Integer(DELIVERY_LIMIT)),
        ("x-dead-letter-exchange", text(format!("{namespace}{DEAD}"))),
        ("x-dead-letter-routing-key", text(format!("{namespace}{plain}"))),
        // Without both, the broker may lose a message while it dead-letters it.
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-max-length-bytes", Argument::Integer(WORK_QUEUE_BYTES_MAX)),
    ])
}

fn retry_arguments(plain: &str, delay_ms: u64, namespace: &str) -> BTreeMap<&'static str, Argument> {
    BTreeMap::from([
        ("x-queue-type", text("quorum")),
        ("x-message-ttl", Argument::Integer(i64::try_from(delay_ms).unwrap_or(i64::MAX))),
        ("x-dead-letter-exchange", text(format!("{namespace}{RETRY}"))),
        ("x-dead-letter-routing-key", text(format!("{namespace}{plain}"))),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-max-length-bytes", Argument::Integer(RETRY_QUEUE_BYTES_MAX)),
    ])
}

fn dead_arguments() -> BTreeMap<&'static str, Argument> {
    BTreeMap::from([
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", Argument::Integer(DEAD_DELIVERY_LIMIT)),
        // The broker keeps a message that it dead-letters at least once until this queue accepts it.
        ("x-overflow", text("reject-publish")),
        ("x-max-length-bytes", Argument::Integer(DEAD_BYTES_MAX)),
    ])
}

/// Returns whether a topic exchange's `pattern` matches `routing_key` (AMQP 0-9-1 §3.1.3.3).
pub fn topic_matches(pattern: &str, routing_key: &str) -> bool {
    fn words(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                words(rest, key) || key.split_first().is_some_and(|(_, tail)| words(pattern, tail))
            }
            (Some((&"*", rest)), Some((_, tail))) => words(rest, tail),
            (Some((word, rest)), Some((first, tail))) => word == first && words(rest, tail),
            _ => false,
        }
    }
    let key: Vec<&str> = if routing_key.is_empty() { Vec::new() } else { routing_key.split('.').collect() };
    words(&pattern.split('.').collect::<Vec<_>>(), &key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::KINDS;

    #[test]
    fn topic_patterns_match_as_in_amqp() {
        for (pattern, key, expected) in [
            ("#", "", true),
            ("#", "a.b", true),
            ("ride-chunk.#", "ride-chunk.v1", true),
            ("ride-chunk.#", "ride-chunk", true),
            ("ride-chunk.*", "ride-chunk", false),
            ("ride-chunk.#", "ride-chunks.v1", false),
            ("*.v1", "a.v1", true),
            ("#.v1", "a.b.v1", true),
            ("a.#.b", "a.b", true),
        ] {
            assert_eq!(topic_matches(pattern, key), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn every_binding_and_dead_letter_exchange_has_a_target() {
        let topology = Topology::of_fleet("ns.");
        let exchange = |name: &str| topology.exchanges.iter().any(|e| e.name == name);
        for binding in &topology.bindings {
            assert!(exchange(&binding.exchange) && topology.queue(&binding.queue).is_some(), "{binding:?}");
        }
        for queue in &topology.queues {
            let Some(Argument::Text(dlx)) = queue.arguments.get("x-dead-letter-exchange") else { continue };
            let Some(Argument::Text(key)) = queue.arguments.get("x-dead-letter-routing-key") else {
                panic!("{queue:?}")
            };
            assert!(
                topology.bindings.iter().any(|b| b.exchange == *dlx && b.routing_key == *key),
                "{} dead-letters into no queue",
                queue.name
            );
        }
    }

    /// A message that a full queue refuses stays in its source. This needs a target that refuses, and a quorum queue
    /// that dead-letters at least once as the source, which RabbitMQ allows only if the source refuses publishes as
    /// well.
    #[test]
    fn nothing_is_lost_on_the_way_into_a_full_queue() {
        let topology = Topology::of_fleet("ns.");
        let value = |queue: &Queue, argument: &str| match queue.arguments.get(argument) {
            Some(Argument::Text(value)) => value.clone(),
            _ => String::new(),
        };
        for queue in &topology.queues {
            assert_eq!(value(queue, "x-overflow"), "reject-publish", "{}", queue.name);
            if queue.arguments.contains_key("x-dead-letter-exchange") {
                assert_eq!(value(queue, "x-queue-type"), "quorum", "{}", queue.name);
                assert_eq!(value(queue, "x-dead-letter-strategy"), "at-least-once", "{}", queue.name);
            }
            let bounded = ["x-max-length-bytes", "x-max-length"].map(|limit| queue.arguments.contains_key(limit));
            assert!(bounded.contains(&true), "{} has no limit", queue.name);
        }
    }

    #[test]
    fn every_message_has_one_publisher() {
        let published: Vec<String> = Topology::of_fleet("").publications.into_iter().map(|p| p.message).collect();
        assert_eq!(published, KINDS.map(|kind| kind.name));
    }

    #[test]
    fn every_message_that_must_arrive_has_a_queue() {
        let topology = Topology::of_fleet("");
        for kind in KINDS.iter().filter(|kind| {
            let answer_or_event =
                ["model-promoted", "model-rejected", "worker-control", "score-response", "weather-response"];
            !answer_or_event.contains(&kind.name)
        }) {
            let key = kind.to_string();
            let bindings = topology.bindings.iter().filter(|b| {
                topology.exchanges.iter().any(|e| e.name == b.exchange && e.kind == ExchangeKind::Topic)
                    && b.routing_key != "#"
                    && topic_matches(&b.routing_key, &key)
            });
            assert_eq!(bindings.count(), usize::from(kind.name != "ride-batch"), "{kind}");
        }
    }
}
