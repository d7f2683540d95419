//! Every exchange, queue, binding and retry rung of the fleet, as data. This is the one place that says who is
//! connected to whom; [`runtime::amqp`] and [`runtime::memory`] build what it says.
//!
//! ```text
//! ingest ──#──────────────────▶ splitter
//! work ────ride-chunk.#───────▶ weather-fetcher
//! work ────enriched-chunk.#───▶ merger
//! work ────batch-split.#──────▶ merger
//! events ──dataset-ready.#────▶ trainer
//! rpc ─────score-request.#────▶ scorer
//! rpc ─────weather-request.#──▶ weather-lookup, read by the weather-fetcher beside its own queue
//! events ──model-promoted.#───▶ (one temporary queue per scorer replica)
//! events ──worker-control.#───▶ (one temporary queue per replica of any worker)
//!
//! retry ───<queue>.retry.<n>──▶ <queue>.retry.<n> ── after its delay ──▶ <queue>
//! dead ────<queue>────────────▶ <queue>.dead
//! ```
//!
//! Bindings take every version of a message (`ride-chunk.#`), so that one this fleet does not know yet is parked by a
//! worker with its reason instead of being unroutable.

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
    /// In the order of the flow, then those that only answer.
    pub const ALL: [&str; 6] = [SPLITTER, WEATHER_FETCHER, MERGER, TRAINER, SCORER, WEATHER_LOOKUP];
}

/// The processes of a fleet in the order of the flow; each has a binary and a user of its name.
pub const PROCESSES: [&str; 5] =
    [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER, queue::TRAINER, queue::SCORER];

/// The process that reads a work queue: that of its name, but for the lookups, which share the weather-fetcher's caches.
pub fn process_of(queue: &str) -> &str {
    if queue == queue::WEATHER_LOOKUP { queue::WEATHER_FETCHER } else { queue }
}

/// Who hands batches in from outside, and follows them.
pub const PUBLISHER: &str = "publisher";
/// Who asks for scores and for weather from outside.
pub const CLIENT: &str = "client";
/// The HTTP service in front of the fleet: publisher and client in one, that looks at dead letters, too.
pub const GATEWAY: &str = "gateway";
/// Who looks after the fleet, as [`Publication::by`] names them.
pub const OPERATOR: &str = "operator";

/// Delay of each retry rung in milliseconds.
pub const RUNGS_MS: [u64; 4] = [1_000, 5_000, 30_000, 120_000];
/// Attempts at a message before it is a dead letter, the first included.
pub const ATTEMPTS_MAX: u32 = 5;
/// Bytes a work queue holds before it refuses publishes and so slows the stage before it.
pub const WORK_QUEUE_BYTES_MAX: i64 = 512 * 1024 * 1024;
/// Bytes a rung holds before it takes no more: messages that wait pile up no further than that, and what it does not take
/// is held by the worker, which so slows the stages before it.
pub const RUNG_BYTES_MAX: i64 = 128 * 1024 * 1024;
/// Bytes of dead letters a queue of them holds before it takes no more: 64 messages of the largest size, or millions of the usual
/// one. What it does not take stays in its work queue, and the worker says that it waits. Without a limit dead letters fill the
/// broker's disk, and then nothing can be published any more.
pub const DEAD_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// Deliveries of one message without an acknowledgement (a process that dies on it) before the broker dead-letters it.
pub const DELIVERY_LIMIT: i64 = 20;
/// Deliveries of one dead letter before the broker would drop it: more than anybody ever looks at it. Without a limit of
/// its own a queue has one of 20 since RabbitMQ 4.0, and none that 3.10 would take as "no limit".
pub const DEAD_DELIVERY_LIMIT: i64 = 1_000_000_000;
/// What every replica of every worker listens to beside its work: whether it is to pause.
pub const CONTROL_PATTERN: &str = "worker-control.#";
/// Milliseconds a request may wait when it names no deadline.
pub const REQUEST_TTL_MS: i64 = 60_000;
/// Requests a queue of them holds before it refuses more.
pub const REQUESTS_MAX: i64 = 100_000;

/// The whole topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Exchanges, all durable.
    pub exchanges: Vec<Exchange>,
    /// Queues, all durable.
    pub queues: Vec<Queue>,
    /// Bindings.
    pub bindings: Vec<Binding>,
    /// What every replica of a worker gets a copy of, through a temporary queue of its own.
    pub subscriptions: Vec<Subscription>,
    /// Who publishes what. Retries and dead letters, which a worker publishes of its own queue alone, go without saying.
    pub publications: Vec<Publication>,
}

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExchangeKind {
    /// By routing key, equal.
    Direct,
    /// By routing key, with `*` for one word and `#` for any number.
    Topic,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The `x-` arguments it is declared with. Changing one needs the queue to be deleted first.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// What a queue is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A worker reads it.
    Work,
    /// Messages wait here for another attempt.
    Rung {
        /// The work queue.
        of: String,
        /// How long at most.
        delay_ms: u64,
    },
    /// Messages that were given up, with their reason.
    Dead {
        /// The work queue.
        of: String,
    },
}

/// A queue argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Argument {
    /// A number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// Messages of `exchange` whose routing key matches go to `queue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// From.
    pub exchange: String,
    /// Pattern for topic exchanges, the key itself for direct ones.
    pub routing_key: String,
    /// To.
    pub queue: String,
}

/// Messages that every replica of `worker` gets a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// The worker.
    pub worker: String,
    /// From.
    pub exchange: String,
    /// Pattern.
    pub routing_key: String,
}

/// Messages that a worker, or somebody outside, publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Publication {
    /// The worker, or [`PUBLISHER`], [`CLIENT`] or [`OPERATOR`]; a [`GATEWAY`] does what the first two do.
    pub by: String,
    /// To; empty for answers, which go to the queue that the request names.
    pub exchange: String,
    /// Name of the message, without its version.
    pub message: String,
}

impl Topology {
    /// The topology of a fleet, every name prefixed by `namespace` (empty for none), so that several fleets can share a
    /// virtual host.
    pub fn of_fleet(namespace: &str) -> Self {
        let name = |plain: &str| format!("{namespace}{plain}");
        let exchange = |plain: &str, kind| Exchange { name: name(plain), kind };
        let exchanges = vec![
            exchange(INGEST, ExchangeKind::Topic),
            exchange(WORK, ExchangeKind::Topic),
            exchange(EVENTS, ExchangeKind::Topic),
            exchange(RPC, ExchangeKind::Topic),
            // By equal keys both of them; but only to topic exchanges can a user's routing keys be limited.
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
            for (index, delay_ms) in rungs_of(plain).iter().enumerate() {
                let rung = rung_queue(plain, index);
                queues.push(Queue {
                    name: name(&rung),
                    role: Role::Rung { of: of.clone(), delay_ms: *delay_ms },
                    arguments: rung_arguments(plain, *delay_ms, namespace),
                });
                bindings.push(Binding { exchange: name(RETRY), routing_key: name(&rung), queue: name(&rung) });
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

    /// The queue of that name.
    pub fn queue(&self, name: &str) -> Option<&Queue> {
        self.queues.iter().find(|queue| queue.name == name)
    }
}

/// Whether a work queue holds requests, which are answered or expire.
pub fn holds_requests(queue: &str) -> bool {
    matches!(queue, queue::SCORER | queue::WEATHER_LOOKUP)
}

/// The rungs of a work queue. A request is never retried.
pub fn rungs_of(queue: &str) -> &'static [u64] {
    if holds_requests(queue) { &[] } else { &RUNGS_MS }
}

/// Name of a rung queue.
pub fn rung_queue(queue: &str, rung: usize) -> String {
    format!("{queue}.retry.{rung}")
}

/// Name of a dead-letter queue.
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
        // Requests live for seconds: no replication, and an expired one is no dead letter.
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
        // Both together, else the broker may lose a message while it dead-letters it.
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-max-length-bytes", Argument::Integer(WORK_QUEUE_BYTES_MAX)),
    ])
}

fn rung_arguments(plain: &str, delay_ms: u64, namespace: &str) -> BTreeMap<&'static str, Argument> {
    BTreeMap::from([
        ("x-queue-type", text("quorum")),
        ("x-message-ttl", Argument::Integer(i64::try_from(delay_ms).unwrap_or(i64::MAX))),
        ("x-dead-letter-exchange", text(format!("{namespace}{RETRY}"))),
        ("x-dead-letter-routing-key", text(format!("{namespace}{plain}"))),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-max-length-bytes", Argument::Integer(RUNG_BYTES_MAX)),
    ])
}

fn dead_arguments() -> BTreeMap<&'static str, Argument> {
    BTreeMap::from([
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", Argument::Integer(DEAD_DELIVERY_LIMIT)),
        // Refused, not dropped: the broker too keeps what it parks at least once until there is room.
        ("x-overflow", text("reject-publish")),
        ("x-max-length-bytes", Argument::Integer(DEAD_BYTES_MAX)),
    ])
}

/// Whether a topic exchange's `pattern` takes `routing_key` (AMQP 0-9-1 §3.1.3.3).
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
    fn topic_patterns_match_as_amqp_says() {
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
    fn every_binding_and_dead_letter_leads_somewhere() {
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
                "{} dead-letters to nowhere",
                queue.name
            );
        }
    }

    /// What a full queue does not take stays where it is: a quorum queue that dead-letters at least once (which RabbitMQ does only
    /// from a queue that refuses) keeps it, and every target refuses. At most once, or out of a queue that drops, it would be lost.
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
            assert!(bounded.contains(&true), "{} fills the disk", queue.name);
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
            let takers = topology.bindings.iter().filter(|b| {
                topology.exchanges.iter().any(|e| e.name == b.exchange && e.kind == ExchangeKind::Topic)
                    && b.routing_key != "#"
                    && topic_matches(&b.routing_key, &key)
            });
            assert_eq!(takers.count(), usize::from(kind.name != "ride-batch"), "{kind}");
        }
    }
}
