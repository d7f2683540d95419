//! Connections to the in-process broker.

use super::{
    consumer::MemoryConsumer,
    state::{Queue, Shared, Stored},
};
use crate::broker::{
    BrokerError, Browser, Connection, ConnectionState, Consumer, Depth, PublishError, Publisher, check_size,
};
use async_trait::async_trait;
use common::{outcome::Outgoing, reply_address::TEMPORARY_PREFIX, topology::Binding};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// A connection, which removes its temporary queues when it is dropped.
pub(super) struct MemoryConnection {
    shared: Arc<Shared>,
    state: watch::Sender<ConnectionState>,
    temporary: Mutex<Vec<String>>,
}

impl MemoryConnection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (state, _) = watch::channel(ConnectionState::Open);
        Self { shared, state, temporary: Mutex::default() }
    }

    fn consumer(&self, queue: String, prefetch: u16, no_ack: bool) -> Box<dyn Consumer> {
        self.shared.state.lock().queues.entry(queue.clone()).or_default().consumers += 1;
        let mut consumer = self.reader(queue, prefetch, no_ack);
        consumer.counted = true;
        Box::new(consumer)
    }

    fn reader(&self, queue: String, prefetch: u16, no_ack: bool) -> MemoryConsumer {
        let mut state = self.shared.state.lock();
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
        let mut state = self.shared.state.lock();
        state.next_name += 1;
        // Named as in RabbitMQ.
        let name = format!("{TEMPORARY_PREFIX}{}", state.next_name);
        state.queues.insert(name.clone(), Queue::default());
        for (exchange, routing_key) in bindings {
            state.bindings.push(Binding { exchange, routing_key, queue: name.clone() });
        }
        self.temporary.lock().push(name.clone());
        name
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.state.send_replace(ConnectionState::Closed("the connection was dropped".to_owned()));
        let mut state = self.shared.state.lock();
        for name in self.temporary.lock().drain(..) {
            state.queues.remove(&name);
            state.bindings.retain(|binding| binding.queue != name);
            state.unacked.retain(|_, held| held.queue != name);
        }
    }
}

#[async_trait]
impl Connection for MemoryConnection {
    async fn declare(&self) -> Result<(), BrokerError> {
        let mut state = self.shared.state.lock();
        for queue in &self.shared.topology.queues {
            state.queues.entry(queue.name.clone()).or_default();
        }
        Ok(())
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        Ok(Box::new(MemoryPublisher { shared: Arc::clone(&self.shared), closed: self.state.subscribe() }))
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        if !self.shared.state.lock().queues.contains_key(queue) {
            return Err(BrokerError::Lost(format!("queue {queue} does not exist")));
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
        if !self.shared.state.lock().queues.contains_key(queue) {
            return Err(BrokerError::Lost(format!("queue {queue} does not exist")));
        }
        Ok(Box::new(self.reader(queue.to_owned(), 0, false)))
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let state = self.shared.state.lock();
        let waiting = state.waiting.get(queue).map_or(0, |waiting| waiting.messages);
        match state.queues.get(queue) {
            Some(queued) => Ok(Depth {
                messages: queued.ready.len() as u64 + waiting,
                consumers: queued.consumers,
                unacknowledged: Some(state.unacked.values().filter(|held| held.queue == queue).count() as u64),
                acknowledged_total: Some(queued.acknowledged),
            }),
            None => Err(BrokerError::Lost(format!("queue {queue} does not exist"))),
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
            // Registered before the check, so that no notification is lost in between.
            room.as_mut().enable();
            {
                let mut state = self.shared.state.lock();
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
