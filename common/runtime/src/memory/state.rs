//! The queues of the in-process broker and the rules by which messages move between them.

use bytes::Bytes;
use common::{
    envelope::{Header, Properties},
    exchange,
    topology::{Argument, Binding, ExchangeKind, Role, Topology, topic_matches},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Size in bytes at which a work queue makes publishers wait.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) struct Shared {
    pub(super) topology: Topology,
    /// Size in bytes at which a work queue makes publishers wait, and a retry queue refuses messages.
    pub(super) queue_bytes_max: usize,
    /// Size in bytes at which a dead-letter queue refuses messages; `None`: the limit of the topology.
    pub(super) dead_bytes_max: Option<usize>,
    pub(super) state: Mutex<State>,
    /// Notified when a message becomes ready for delivery.
    pub(super) ready: Notify,
    /// Notified when a message leaves a queue, so that waiting publishers check for room.
    pub(super) room: Notify,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            topology: Topology::of_fleet(""),
            queue_bytes_max: QUEUE_BYTES_MAX,
            dead_bytes_max: None,
            state: Mutex::default(),
            ready: Notify::new(),
            room: Notify::new(),
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queues: HashMap<String, Queue>,
    /// Bindings of temporary queues.
    pub(super) bindings: Vec<Binding>,
    /// Unacknowledged deliveries by tag.
    pub(super) unacked: BTreeMap<u64, Held>,
    /// Messages that wait in each retry queue.
    pub(super) waiting: BTreeMap<String, Unfinished>,
    /// Messages that were delivered too often and wait for room in the dead-letter queue, by work queue.
    pub(super) parked: BTreeMap<String, VecDeque<Stored>>,
    pub(super) next_tag: u64,
    pub(super) next_name: u64,
}

/// The unfinished messages of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Number of messages.
    pub messages: u64,
    /// Total size of their bodies in bytes.
    pub bytes: usize,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) ready: VecDeque<Stored>,
    pub(super) bytes: usize,
    pub(super) consumers: u64,
    /// Number of acknowledged deliveries.
    pub(super) acknowledged: u64,
}

pub(super) struct Held {
    pub(super) queue: String,
    pub(super) consumer: u64,
    pub(super) message: Stored,
}

#[derive(Clone)]
pub(super) struct Stored {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) properties: Properties,
    pub(super) body: Bytes,
    pub(super) deliveries: i64,
    pub(super) expires: Option<Instant>,
}

impl Shared {
    /// Returns the queues to which a message is routed.
    pub(super) fn route(&self, state: &State, exchange: &str, routing_key: &str) -> Vec<String> {
        if exchange.is_empty() {
            return state.queues.keys().filter(|name| *name == routing_key).cloned().collect();
        }
        let topic = self.topology.exchanges.iter().any(|e| e.name == exchange && e.kind == ExchangeKind::Topic);
        let takes = |binding: &&Binding| {
            binding.exchange == exchange
                && if topic {
                    topic_matches(&binding.routing_key, routing_key)
                } else {
                    binding.routing_key == routing_key
                }
        };
        let mut queues: Vec<String> =
            self.topology.bindings.iter().chain(&state.bindings).filter(takes).map(|b| b.queue.clone()).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    pub(super) fn limit(&self, queue: &str, argument: &str) -> Option<i64> {
        match self.topology.queue(queue)?.arguments.get(argument)? {
            Argument::Integer(value) => Some(*value),
            Argument::Text(_) => None,
        }
    }

    /// Adds a message to one queue. A message in a retry queue returns to its work queue after the delay.
    pub(super) fn enqueue(self: &Arc<Self>, state: &mut State, queue: &str, mut message: Stored) {
        if let Some(Role::Retry { of, delay_ms }) = self.topology.queue(queue).map(|declared| &declared.role) {
            let delay_ms = message.properties.expiration_ms.take().map_or(*delay_ms, |own_ms| own_ms.min(*delay_ms));
            let waiting = state.waiting.entry(queue.to_owned()).or_default();
            waiting.messages += 1;
            waiting.bytes += message.body.len();
            let (shared, retry_queue, of) = (Arc::downgrade(self), queue.to_owned(), of.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                if let Some(shared) = shared.upgrade() {
                    message.exchange = exchange::RETRY.to_owned();
                    message.routing_key.clone_from(&of);
                    let mut state = shared.state.lock();
                    if let Some(waiting) = state.waiting.get_mut(&retry_queue) {
                        waiting.messages -= 1;
                        waiting.bytes -= message.body.len();
                    }
                    shared.enqueue(&mut state, &of, message);
                }
            });
            return;
        }
        let ttl_ms = self.limit(queue, "x-message-ttl").and_then(|ms| u64::try_from(ms).ok());
        let expiration_ms = [message.properties.expiration_ms, ttl_ms].into_iter().flatten().min();
        message.expires = expiration_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        let queue = state.queues.entry(queue.to_owned()).or_default();
        queue.bytes += message.body.len();
        queue.ready.push_back(message);
        self.ready.notify_waiters();
    }

    pub(super) fn is_full(&self, state: &State, queue: &str) -> bool {
        let Some(limit) = self.limit(queue, "x-max-length-bytes") else { return false };
        let bytes_max = match self.topology.queue(queue).map(|declared| &declared.role) {
            Some(Role::Dead { .. }) => {
                self.dead_bytes_max.unwrap_or_else(|| usize::try_from(limit).unwrap_or(usize::MAX))
            }
            _ => self.queue_bytes_max,
        };
        let ready = state.queues.get(queue).map_or(0, |queue| queue.bytes);
        let waiting = state.waiting.get(queue).map_or(0, |waiting| waiting.bytes);
        ready + waiting >= bytes_max
    }

    /// Returns whether a full queue refuses messages at once. A full work queue makes its publishers wait instead,
    /// which has the same effect.
    pub(super) fn refuses(&self, queue: &str) -> bool {
        self.topology
            .queue(queue)
            .is_some_and(|declared| matches!(declared.role, Role::Retry { .. } | Role::Dead { .. }))
    }

    /// Dead-letters messages that were delivered too often, at least once. A message waits until there is room.
    pub(super) fn park(self: &Arc<Self>, state: &mut State) {
        for (queue, mut parked) in std::mem::take(&mut state.parked) {
            let dead = self.route(state, exchange::DEAD, &queue);
            while !dead.iter().any(|dead| self.is_full(state, dead))
                && let Some(message) = parked.pop_front()
            {
                for dead in &dead {
                    self.enqueue(state, dead, message.clone());
                }
            }
            if !parked.is_empty() {
                state.parked.insert(queue, parked);
            }
        }
    }

    /// Returns a delivery to the front of its queue, or dead-letters it if it was delivered too often.
    pub(super) fn give_back(self: &Arc<Self>, state: &mut State, held: Held) {
        let Held { queue, mut message, .. } = held;
        let limit = self.limit(&queue, "x-delivery-limit");
        if limit.is_some_and(|limit| message.deliveries > limit) {
            message
                .properties
                .headers
                .insert("x-first-death-reason".to_owned(), Header::Text("delivery_limit".to_owned()));
            state.parked.entry(queue).or_default().push_back(message);
            return self.park(state);
        }
        if let Some(queue) = state.queues.get_mut(&queue) {
            queue.bytes += message.body.len();
            queue.ready.push_front(message);
        }
        self.ready.notify_waiters();
    }
}
