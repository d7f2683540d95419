//! The in-process broker: the same topology and the same behaviour as RabbitMQ, no server.
//!
//! It routes, confirms, limits by prefetch and by bytes, waits on rungs, redelivers what a lost consumer held,
//! and parks what is delivered too often, once there is room for it. It keeps nothing on disk: a batch whose process was killed is handed in again,
//! and everything downstream recognises what it has seen. It is for one process; a fleet uses RabbitMQ.

mod consumer;

use super::broker::{
    Broker, BrokerError, Browser, Connection, ConnectionState, Consumer, Depth, PublishError, Publisher, check_size,
};
use async_trait::async_trait;
use bytes::Bytes;
use common::{
    envelope::{Header, Properties},
    exchange,
    outcome::Outgoing,
    reply_address::TEMPORARY_PREFIX,
    topology::{Argument, Binding, ExchangeKind, Role, Topology, topic_matches},
};
use consumer::MemoryConsumer;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// Bytes a work queue holds before it lets publishers wait.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A broker in this process; clones share it.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

struct Shared {
    topology: Topology,
    /// Bytes at which a work queue makes publishers wait, and a retry queue refuses messages.
    queue_bytes_max: usize,
    /// Bytes a dead-letter queue holds before it refuses; what the topology declares unless a test wants less.
    dead_bytes_max: Option<usize>,
    state: Mutex<State>,
    /// Something became ready for delivery.
    ready: Notify,
    /// Something was taken: a waiting publisher may find room.
    room: Notify,
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
struct State {
    queues: HashMap<String, Queue>,
    /// Bindings of temporary queues.
    bindings: Vec<Binding>,
    /// Unacknowledged deliveries by tag.
    unacked: BTreeMap<u64, Held>,
    /// Messages on each rung.
    waiting: BTreeMap<String, Unfinished>,
    /// Messages that were delivered too often, by their work queue, and for which the dead-letter queue has no room yet.
    parked: BTreeMap<String, VecDeque<Stored>>,
    next_tag: u64,
    next_name: u64,
}

/// What a queue holds that is not done with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: usize,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Stored>,
    bytes: usize,
    consumers: u64,
    /// Deliveries settled for good.
    acknowledged: u64,
}

struct Held {
    queue: String,
    consumer: u64,
    message: Stored,
}

#[derive(Clone)]
struct Stored {
    exchange: String,
    routing_key: String,
    properties: Properties,
    body: Bytes,
    deliveries: i64,
    expires: Option<Instant>,
}

impl MemoryBroker {
    /// An empty broker.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty broker whose work queues let publishers wait once they hold that many bytes.
    pub fn with_queue_bytes_max(queue_bytes_max: usize) -> Self {
        Self { shared: Arc::new(Shared { queue_bytes_max, ..Shared::default() }) }
    }

    /// An empty broker whose dead-letter queues refuse more once they hold that many bytes.
    pub fn with_dead_bytes_max(dead_bytes_max: usize) -> Self {
        Self { shared: Arc::new(Shared { dead_bytes_max: Some(dead_bytes_max), ..Shared::default() }) }
    }

    /// Every message of the fleet's own queues that is not done with, by queue: ready, waiting on a rung, delivered and
    /// unacknowledged, or on its way into a full dead-letter queue. Queues without any are left out.
    pub fn unfinished(&self) -> BTreeMap<String, Unfinished> {
        let state = self.shared.state();
        let mut all: BTreeMap<String, Unfinished> = BTreeMap::new();
        let ready = state.queues.iter().map(|(name, queue)| (name, queue.ready.len() as u64, queue.bytes));
        let held = state.unacked.values().map(|held| (&held.queue, 1, held.message.body.len()));
        let waiting = state.waiting.iter().map(|(name, waiting)| (name, waiting.messages, waiting.bytes));
        let parked = state
            .parked
            .iter()
            .map(|(name, parked)| (name, parked.len() as u64, parked.iter().map(|message| message.body.len()).sum()));
        for (name, messages, bytes) in ready.chain(held).chain(waiting).chain(parked) {
            if messages > 0 && self.shared.topology.queue(name).is_some() {
                let of_queue = all.entry(name.clone()).or_default();
                of_queue.messages += messages;
                of_queue.bytes += bytes;
            }
        }
        all
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queues a message goes to.
    fn route(&self, state: &State, exchange: &str, routing_key: &str) -> Vec<String> {
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

    fn limit(&self, queue: &str, argument: &str) -> Option<i64> {
        match self.topology.queue(queue)?.arguments.get(argument)? {
            Argument::Integer(value) => Some(*value),
            Argument::Text(_) => None,
        }
    }

    /// Puts a message into one queue; a rung gives it back after its delay.
    fn enqueue(self: &Arc<Self>, state: &mut State, queue: &str, mut message: Stored) {
        if let Some(Role::Rung { of, delay_ms }) = self.topology.queue(queue).map(|found| &found.role) {
            let delay_ms = message.properties.expiration_ms.take().map_or(*delay_ms, |wish| wish.min(*delay_ms));
            let waiting = state.waiting.entry(queue.to_owned()).or_default();
            waiting.messages += 1;
            waiting.bytes += message.body.len();
            let (shared, rung, of) = (Arc::downgrade(self), queue.to_owned(), of.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                if let Some(shared) = shared.upgrade() {
                    message.exchange = exchange::RETRY.to_owned();
                    message.routing_key.clone_from(&of);
                    let mut state = shared.state();
                    if let Some(waiting) = state.waiting.get_mut(&rung) {
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

    fn is_full(&self, state: &State, queue: &str) -> bool {
        let Some(declared) = self.limit(queue, "x-max-length-bytes") else { return false };
        let bytes_max = match self.topology.queue(queue).map(|found| &found.role) {
            Some(Role::Dead { .. }) => {
                self.dead_bytes_max.unwrap_or_else(|| usize::try_from(declared).unwrap_or(usize::MAX))
            }
            _ => self.queue_bytes_max,
        };
        let ready = state.queues.get(queue).map_or(0, |queue| queue.bytes);
        let waiting = state.waiting.get(queue).map_or(0, |waiting| waiting.bytes);
        ready + waiting >= bytes_max
    }

    /// Whether a full queue refuses at once; a full work queue lets its publishers wait, which comes to the same.
    fn refuses(&self, queue: &str) -> bool {
        self.topology.queue(queue).is_some_and(|found| matches!(found.role, Role::Rung { .. } | Role::Dead { .. }))
    }

    /// Dead-letters what was delivered too often, at least once: what finds no room waits for it.
    fn park(self: &Arc<Self>, state: &mut State) {
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

    /// Gives a delivery back to the front of its queue, or parks it when that happened too often.
    fn give_back(self: &Arc<Self>, state: &mut State, held: Held) {
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
        if let Some(found) = state.queues.get_mut(&queue) {
            found.bytes += message.body.len();
            found.ready.push_front(message);
        }
        self.ready.notify_waiters();
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn connect(&self, _name: &str) -> Result<Box<dyn Connection>, BrokerError> {
        let (state, _) = watch::channel(ConnectionState::Open);
        Ok(Box::new(MemoryConnection { shared: Arc::clone(&self.shared), state, temporary: Mutex::default() }))
    }

    fn describe(&self) -> String {
        "the in-process broker".to_owned()
    }
}

struct MemoryConnection {
    shared: Arc<Shared>,
    state: watch::Sender<ConnectionState>,
    temporary: Mutex<Vec<String>>,
}

impl MemoryConnection {
    fn consumer(&self, queue: String, prefetch: u16, no_ack: bool) -> Box<dyn Consumer> {
        self.shared.state().queues.entry(queue.clone()).or_default().consumers += 1;
        let mut consumer = self.reader(queue, prefetch, no_ack);
        consumer.counted = true;
        Box::new(consumer)
    }

    fn reader(&self, queue: String, prefetch: u16, no_ack: bool) -> MemoryConsumer {
        let mut state = self.shared.state();
        state.next_tag += 1;
        MemoryConsumer {
            shared: Arc::clone(&self.shared),
            id: state.next_tag,
            queue,
            prefetch: if prefetch == 0 { usize::MAX } else { prefetch.into() },
            no_ack,
            counted: false,
            closed: self.state.subscribe(),
        }
    }

    fn temporary_queue(&self, bindings: impl IntoIterator<Item = (String, String)>) -> String {
        let mut state = self.shared.state();
        state.next_name += 1;
        // As RabbitMQ names them.
        let name = format!("{TEMPORARY_PREFIX}{}", state.next_name);
        state.queues.insert(name.clone(), Queue::default());
        for (exchange, routing_key) in bindings {
            state.bindings.push(Binding { exchange, routing_key, queue: name.clone() });
        }
        self.temporary.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        name
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.state.send_replace(ConnectionState::Closed("the connection was dropped".to_owned()));
        let mut state = self.shared.state();
        for name in self.temporary.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            state.queues.remove(&name);
            state.bindings.retain(|binding| binding.queue != name);
            state.unacked.retain(|_, held| held.queue != name);
        }
    }
}

#[async_trait]
impl Connection for MemoryConnection {
    async fn declare(&self) -> Result<(), BrokerError> {
        let mut state = self.shared.state();
        for queue in &self.shared.topology.queues {
            state.queues.entry(queue.name.clone()).or_default();
        }
        Ok(())
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        Ok(Box::new(MemoryPublisher { shared: Arc::clone(&self.shared), closed: self.state.subscribe() }))
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        if !self.shared.state().queues.contains_key(queue) {
            return Err(BrokerError::Lost(format!("there is no queue {queue}")));
        }
        Ok(self.consumer(queue.to_owned(), prefetch, false))
    }

    async fn subscribe(&self, exchange: &str, pattern: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let queue = self.temporary_queue([(exchange.to_owned(), pattern.to_owned())]);
        Ok(self.consumer(queue, prefetch, false))
    }

    async fn reply_queue(&self) -> Result<(String, Box<dyn Consumer>), BrokerError> {
        let queue = self.temporary_queue([]);
        Ok((queue.clone(), self.consumer(queue, 0, true)))
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        if !self.shared.state().queues.contains_key(queue) {
            return Err(BrokerError::Lost(format!("there is no queue {queue}")));
        }
        Ok(Box::new(self.reader(queue.to_owned(), 0, false)))
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let state = self.shared.state();
        let waiting = state.waiting.get(queue).map_or(0, |waiting| waiting.messages);
        match state.queues.get(queue) {
            Some(found) => Ok(Depth {
                messages: found.ready.len() as u64 + waiting,
                consumers: found.consumers,
                unacknowledged: Some(state.unacked.values().filter(|held| held.queue == queue).count() as u64),
                acknowledged_total: Some(found.acknowledged),
            }),
            None => Err(BrokerError::Lost(format!("there is no queue {queue}"))),
        }
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    async fn close(&self) {
        self.state.send_replace(ConnectionState::Closed("closed".to_owned()));
    }
}

struct MemoryPublisher {
    shared: Arc<Shared>,
    closed: watch::Receiver<ConnectionState>,
}

#[async_trait]
impl Publisher for MemoryPublisher {
    async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        check_size(&message)?;
        let mut closed = self.closed.clone();
        loop {
            if let ConnectionState::Closed(why) = &*closed.borrow_and_update() {
                return Err(PublishError::Unconfirmed(why.clone()));
            }
            let room = self.shared.room.notified();
            tokio::pin!(room);
            // Registered before looking, so that room made in between is not missed.
            room.as_mut().enable();
            {
                let mut state = self.shared.state();
                let queues = self.shared.route(&state, message.exchange, &message.routing_key);
                if queues.is_empty() {
                    return match message.mandatory {
                        false => Ok(()),
                        true => Err(PublishError::Unroutable {
                            exchange: message.exchange.to_owned(),
                            routing_key: message.routing_key,
                        }),
                    };
                }
                let full = queues.iter().find(|queue| self.shared.is_full(&state, queue));
                if full.is_some_and(|queue| self.shared.refuses(queue)) {
                    return Err(PublishError::Refused);
                }
                if full.is_none() {
                    for queue in queues {
                        let stored = Stored {
                            exchange: message.exchange.to_owned(),
                            routing_key: message.routing_key.clone(),
                            properties: message.properties.clone(),
                            body: message.body.clone(),
                            deliveries: 0,
                            expires: None,
                        };
                        self.shared.enqueue(&mut state, &queue, stored);
                    }
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                () = room => {}
                _ = closed.changed() => {}
            }
        }
    }
}
