//! Deliveries from the in-process broker and their settlement.

use super::state::{Held, Shared, State};
use crate::broker::{BrokerError, Browser, ConnectionState, Consumer, Delivery, Settle};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::{sync::watch, time::Instant};

pub(super) struct MemoryConsumer {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) queue: String,
    pub(super) prefetch: usize,
    pub(super) no_ack: bool,
    /// Whether the queue counts it as a consumer; a browser or cancelled consumer is not counted.
    pub(super) counted: bool,
    pub(super) closed: watch::Receiver<ConnectionState>,
}

impl MemoryConsumer {
    fn uncount(&mut self, state: &mut State) {
        if let Some(queue) = state.queues.get_mut(&self.queue)
            && std::mem::take(&mut self.counted)
        {
            queue.consumers -= 1;
        }
    }

    fn take(&self) -> Result<Option<Delivery>, BrokerError> {
        let mut state = self.shared.state.lock();
        let held = state.unacked.values().filter(|held| held.consumer == self.id).count();
        if held >= self.prefetch {
            return Ok(None);
        }
        let Some(queue) = state.queues.get_mut(&self.queue) else {
            return Err(BrokerError::Lost(format!("queue {} no longer exists", self.queue)));
        };
        let now = Instant::now();
        let mut message = loop {
            let Some(message) = queue.ready.pop_front() else { return Ok(None) };
            queue.bytes -= message.body.len();
            if message.expires.is_none_or(|at| at > now) {
                break message;
            }
        };
        message.deliveries += 1;
        state.next_tag += 1;
        let tag = state.next_tag;
        let delivery = Delivery {
            properties: message.properties.clone(),
            body: message.body.clone(),
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
            redelivered: message.deliveries > 1,
            settle: Box::new(MemorySettle { shared: Arc::clone(&self.shared), tag: (!self.no_ack).then_some(tag) }),
        };
        if !self.no_ack {
            state.unacked.insert(tag, Held { queue: self.queue.clone(), consumer: self.id, message });
        }
        self.shared.park(&mut state);
        drop(state);
        self.shared.room.notify_waiters();
        Ok(Some(delivery))
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        loop {
            let shared = Arc::clone(&self.shared);
            let ready = shared.ready.notified();
            tokio::pin!(ready);
            ready.as_mut().enable();
            if let ConnectionState::Closed(why) = &*self.closed.borrow() {
                return Err(BrokerError::Lost(why.clone()));
            }
            if !self.counted {
                return Err(BrokerError::Lost("the consumer was cancelled".to_owned()));
            }
            if let Some(delivery) = self.take()? {
                return Ok(delivery);
            }
            tokio::select! {
                biased;
                () = ready => {}
                _ = self.closed.changed() => {}
            }
        }
    }

    async fn cancel(&mut self) -> Result<(), BrokerError> {
        // The consumer prefetches nothing, so there is nothing to give back.
        let shared = Arc::clone(&self.shared);
        self.uncount(&mut shared.state.lock());
        Ok(())
    }
}

#[async_trait]
impl Browser for MemoryConsumer {
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        match &*self.closed.borrow() {
            ConnectionState::Closed(why) => Err(BrokerError::Lost(why.clone())),
            _ => self.take(),
        }
    }

    async fn close(self: Box<Self>) -> Result<(), BrokerError> {
        Ok(())
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        self.uncount(&mut state);
        let own: Vec<u64> =
            state.unacked.iter().filter(|(_, held)| held.consumer == self.id).map(|(tag, _)| *tag).collect();
        // Newest first, so that the oldest is at the front of the queue again.
        for tag in own.into_iter().rev() {
            if let Some(held) = state.unacked.remove(&tag) {
                shared.give_back(&mut state, held);
            }
        }
    }
}

struct MemorySettle {
    shared: Arc<Shared>,
    tag: Option<u64>,
}

impl MemorySettle {
    fn settle(&self, done: impl FnOnce(&Arc<Shared>, &mut State, Held)) -> Result<(), BrokerError> {
        let Some(tag) = self.tag else { return Ok(()) };
        let mut state = self.shared.state.lock();
        let Some(held) = state.unacked.remove(&tag) else {
            return Err(BrokerError::Lost("the delivery is already back in its queue".to_owned()));
        };
        done(&self.shared, &mut state, held);
        drop(state);
        // The prefetch has room again.
        self.shared.ready.notify_waiters();
        Ok(())
    }
}

#[async_trait]
impl Settle for MemorySettle {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        self.settle(|_, state, held| {
            if let Some(queue) = state.queues.get_mut(&held.queue) {
                queue.acknowledged += 1;
            }
        })
    }

    async fn requeue(self: Box<Self>) -> Result<(), BrokerError> {
        self.settle(|shared, state, held| shared.give_back(state, held))
    }
}
