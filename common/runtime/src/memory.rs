//! The in-process broker: the same topology and behaviour as RabbitMQ, without a server.
//!
//! It routes, confirms, enforces prefetch and size limits, delays messages in retry queues, redelivers the messages of
//! a lost consumer, and dead-letters a message that is delivered too often as soon as there is room. It stores nothing
//! on disk: after a kill the batch is submitted again, and every later stage recognises work that is already done. It
//! serves one process; a fleet uses RabbitMQ.

mod connection;
mod consumer;
mod state;

pub use state::Unfinished;

use crate::broker::{Broker, BrokerError, Connection};
use async_trait::async_trait;
use connection::MemoryConnection;
use state::Shared;
use std::{collections::BTreeMap, sync::Arc};

/// A broker in this process; clones share its state.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

impl MemoryBroker {
    /// Returns an empty broker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty broker whose publishers wait while a work queue holds that many bytes.
    pub fn with_queue_bytes_max(queue_bytes_max: usize) -> Self {
        Self { shared: Arc::new(Shared { queue_bytes_max, ..Shared::default() }) }
    }

    /// Returns an empty broker whose dead-letter queues refuse messages while they hold that many bytes.
    pub fn with_dead_bytes_max(dead_bytes_max: usize) -> Self {
        Self { shared: Arc::new(Shared { dead_bytes_max: Some(dead_bytes_max), ..Shared::default() }) }
    }

    /// Returns the numbers of unfinished messages by queue of the fleet: ready, waiting in a retry queue, delivered and
    /// unacknowledged, or waiting for room in a full dead-letter queue. Omits queues without any.
    pub fn unfinished(&self) -> BTreeMap<String, Unfinished> {
        let state = self.shared.state.lock();
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
