//! The in-process broker: the same topology and the same behaviour as RabbitMQ, no server.
//!
//! It routes, confirms, limits by prefetch and by bytes, waits on rungs, redelivers what a lost consumer held,
//! and parks what is delivered too often, once there is room for it. It keeps nothing on disk: a batch whose process was killed is handed in again,
//! and everything downstream recognises what it has seen. It is for one process; a fleet uses RabbitMQ.

mod connection;
mod consumer;
mod state;

pub use state::Unfinished;

use crate::broker::{Broker, BrokerError, Connection};
use async_trait::async_trait;
use connection::MemoryConnection;
use state::Shared;
use std::{collections::BTreeMap, sync::Arc};

/// A broker in this process; clones share it.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
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

#[async_trait]
impl Broker for MemoryBroker {
    async fn connect(&self, _name: &str) -> Result<Box<dyn Connection>, BrokerError> {
        Ok(Box::new(MemoryConnection::new(Arc::clone(&self.shared))))
    }

    fn describe(&self) -> String {
        "the in-process broker".to_owned()
    }
}
