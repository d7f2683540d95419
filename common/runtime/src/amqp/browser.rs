//! Browses a queue with `basic.consume`, because a quorum queue is slow with `basic.get` (about 200 messages a second,
//! and fewer with each message). The prefetch limits the messages that a consumer receives, so that few bodies are in
//! memory. When that many are unacknowledged, the next consumer continues. Messages that the caller does not settle
//! stay unacknowledged until the channels close.

use super::{
    consumer::Consuming,
    convert::short,
    delivery::delivered,
    operation::{translate, within},
};
use crate::broker::{BrokerError, Browser, Delivery, Settle};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future::join_all};
use lapin::{
    Connection,
    options::QueueDeclareOptions,
    types::{FieldTable, ShortString},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// Prefetch of the first consumer, and the maximum, in messages. Each consumer has twice the prefetch of the one
/// before, up to the maximum. A connection has 2,047 channels, enough for half a million unacknowledged messages.
const WINDOW: (u16, u16) = (16, 256);
/// Time without a delivery after which the browser asks the broker whether the queue is empty.
const SILENCE: Duration = Duration::from_millis(50);

pub(super) struct AmqpBrowser {
    connection: Arc<Connection>,
    queue: ShortString,
    namespace: String,
    deadline: Duration,
    window: u16,
    reading: Option<Reading>,
    /// Consumers whose prefetch is used up.
    full: Vec<Consuming>,
}

/// The consumer that reads now.
struct Reading {
    consuming: Consuming,
    /// Its prefetch, in messages.
    window: usize,
    unacknowledged: Arc<AtomicUsize>,
}

impl AmqpBrowser {
    pub(super) fn new(connection: Arc<Connection>, queue: &str, namespace: String, deadline: Duration) -> Self {
        let (queue, window) = (short(queue), WINDOW.0);
        Self { connection, queue, namespace, deadline, window, reading: None, full: Vec::new() }
    }

    /// Starts the first consumer, or the next one after the prefetch of the last is used up.
    async fn begin(&mut self) -> Result<Reading, BrokerError> {
        let channel = within(self.deadline, "opening a channel", self.connection.create_channel()).await?;
        let window = self.window;
        self.window = (window * 2).min(WINDOW.1);
        let consuming = Consuming::start(channel, self.queue.as_str(), Some(window), self.deadline).await?;
        Ok(Reading { consuming, window: window.into(), unacknowledged: Arc::default() })
    }

    fn hand_out(&self, reading: &Reading, delivery: lapin::message::Delivery) -> Delivery {
        reading.unacknowledged.fetch_add(1, SeqCst);
        let Delivery { properties, body, exchange, routing_key, redelivered, settle } =
            delivered(delivery, &self.namespace, self.deadline, false);
        let settle = Box::new(Counted { settle, unacknowledged: Arc::clone(&reading.unacknowledged) });
        Delivery { properties, body, exchange, routing_key, redelivered, settle }
    }

    /// Returns the next message; `None` if no more are ready.
    async fn next_of(&self, reading: &mut Reading) -> Result<Option<Delivery>, BrokerError> {
        let what = format!("browsing {}", self.queue);
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        loop {
            let mut next = tokio::time::timeout(SILENCE, reading.consuming.consumer.next()).await.ok();
            let mut ready = 1;
            if next.is_none() {
                let declared =
                    reading.consuming.channel.queue_declare(self.queue.clone(), options, FieldTable::default());
                ready = within(self.deadline, &what, declared).await?.message_count();
                // The broker sends deliveries and answers in order: one that was under way has arrived by now.
                next = reading.consuming.consumer.next().now_or_never();
            }
            match next {
                Some(Some(Ok(delivery))) => return Ok(Some(self.hand_out(reading, delivery))),
                Some(Some(Err(error))) => return Err(translate(&what, error)),
                Some(None) => return Err(BrokerError::Lost(format!("{what}: the broker ended the consumer"))),
                None if ready == 0 => return Ok(None),
                None => {}
            }
        }
    }
}

#[async_trait]
impl Browser for AmqpBrowser {
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        let mut reading = match self.reading.take() {
            Some(reading) if reading.unacknowledged.load(SeqCst) < reading.window => reading,
            Some(mut full) => {
                full.consuming.cancel().await?;
                self.full.push(full.consuming);
                self.begin().await?
            }
            None => self.begin().await?,
        };
        let next = self.next_of(&mut reading).await;
        self.reading = Some(reading);
        next
    }

    async fn close(mut self: Box<Self>) -> Result<(), BrokerError> {
        let all: Vec<Consuming> =
            self.full.drain(..).chain(self.reading.take().map(|reading| reading.consuming)).collect();
        // Waits for all of them: dropping a consumer while its channel closes would close the connection.
        join_all(all.iter().map(Consuming::close)).await.into_iter().collect()
    }
}

/// Settles a delivery, and frees its place in the prefetch.
struct Counted {
    settle: Box<dyn Settle>,
    unacknowledged: Arc<AtomicUsize>,
}

#[async_trait]
impl Settle for Counted {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        self.settle.ack().await?;
        self.unacknowledged.fetch_sub(1, SeqCst);
        Ok(())
    }

    async fn requeue(self: Box<Self>) -> Result<(), BrokerError> {
        self.settle.requeue().await?;
        self.unacknowledged.fetch_sub(1, SeqCst);
        Ok(())
    }
}
