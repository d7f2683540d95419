//! All exchanges, queues and bindings of the fleet, as data; [`runtime::amqp`] and [`runtime::memory`] declare them. The
//! [table of messages](crate::message) names the sender and the readers of each message; this module adds retries, dead letters,
//! temporary queues, arguments and limits.
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
    message::{ROUTES, Route},
};
use serde::Serialize;
use std::collections::BTreeMap;

pub use super::process::{self, CLIENT, OPERATOR, PROCESSES, PUBLISHER, Process, SCALER, process_of, queue};

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
        let mut bindings = Vec::new();
        for Route { kind, exchange, readers, .. } in ROUTES {
            // Publishers may use any routing key.
            let pattern = if *exchange == INGEST { "#".to_owned() } else { format!("{}.#", kind.name) };
            for queue in *readers {
                let binding = Binding { exchange: name(exchange), routing_key: pattern.clone(), queue: name(queue) };
                // Two versions of a message have one binding.
                if !bindings.contains(&binding) {
                    bindings.push(binding);
                }
            }
        }
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
        let publications = ROUTES.iter().map(|Route { kind, sender, exchange, .. }| Publication {
            by: (*sender).to_owned(),
            exchange: if exchange.is_empty() { String::new() } else { name(exchange) },
            message: kind.name.to_owned(),
        });
        let publications = publications.collect();
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
    fn every_message_reaches_its_readers_and_no_other_queue() {
        let topology = Topology::of_fleet("");
        for Route { kind, exchange, readers, .. } in ROUTES {
            let matches = |b: &&Binding| b.exchange == *exchange && topic_matches(&b.routing_key, &kind.to_string());
            let reached: Vec<&str> = topology.bindings.iter().filter(matches).map(|b| b.queue.as_str()).collect();
            assert_eq!(reached, *readers, "{kind}");
            let may_be_lost = [EVENTS, crate::exchange::DEFAULT].contains(exchange);
            assert!(!readers.is_empty() || may_be_lost, "no queue reads {kind}");
        }
    }
}
