//! Looking through a queue. With `basic.consume`, because a replicated queue keeps books of every `basic.get` (some 200 a
//! second, ever slower). A consumer is sent no more than its prefetch, so that few bodies are in memory; when all of that is
//! in hand, another one goes on from there. What was seen is unacknowledged until the channels close.

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

/// Prefetch of the first consumer and of the largest; each has twice that of the one before. A connection has 2,047
/// channels, so that half a million messages can be in hand.
const WINDOW: (u16, u16) = (16, 256);
/// How long nothing comes before the queue is asked whether there is anything.
const SILENCE: Duration = Duration::from_millis(50);

pub(super) struct AmqpBrowser {
    connection: Arc<Connection>,
    queue: ShortString,
    namespace: String,
    deadline: Duration,
    window: u16,
    reading: Option<Reading>,
    /// Consumers that gave all they may.
    full: Vec<Consuming>,
}

struct Reading {
    consuming: Consuming,
    window: usize,
    in_hand: Arc<AtomicUsize>,
}

impl AmqpBrowser {
    pub(super) fn new(connection: Arc<Connection>, queue: &str, namespace: String, deadline: Duration) -> Self {
        let (queue, window) = (short(queue), WINDOW.0);
        Self { connection, queue, namespace, deadline, window, reading: None, full: Vec::new() }
    }

    /// Begins, or goes on with another consumer where one has given all it may.
    async fn begin(&mut self) -> Result<Reading, BrokerError> {
        let channel = within(self.deadline, "opening a channel", self.connection.create_channel()).await?;
        let window = self.window;
        self.window = (window * 2).min(WINDOW.1);
        let consuming = Consuming::start(channel, self.queue.as_str(), Some(window), self.deadline).await?;
        Ok(Reading { consuming, window: window.into(), in_hand: Arc::default() })
    }

    fn hand_out(&self, reading: &Reading, delivery: lapin::message::Delivery) -> Delivery {
        reading.in_hand.fetch_add(1, SeqCst);
        let Delivery { properties, body, exchange, routing_key, redelivered, settle } =
            delivered(delivery, &self.namespace, self.deadline, false);
        let settle = Box::new(Counted { settle, in_hand: Arc::clone(&reading.in_hand) });
        Delivery { properties, body, exchange, routing_key, redelivered, settle }
    }

    /// What comes next; `None` when the queue has nothing more for this consumer.
    async fn next_of(&self, reading: &mut Reading) -> Result<Option<Delivery>, BrokerError> {
        let what = format!("looking through {}", self.queue);
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        loop {
            let mut come = tokio::time::timeout(SILENCE, reading.consuming.consumer.next()).await.ok();
            let mut ready = 1;
            if come.is_none() {
                let asked = reading.consuming.channel.queue_declare(self.queue.clone(), options, FieldTable::default());
                ready = within(self.deadline, &what, asked).await?.message_count();
                // What was on its way came before the answer.
                come = reading.consuming.consumer.next().now_or_never();
            }
            match come {
                Some(Some(Ok(delivery))) => return Ok(Some(self.hand_out(reading, delivery))),
                Some(Some(Err(error))) => return Err(translate(&what, error)),
                Some(None) => return Err(BrokerError::Lost(format!("{what}: the broker ended it"))),
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
            Some(reading) if reading.in_hand.load(SeqCst) < reading.window => reading,
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
        // To the end, all of them: what is dropped beside a channel that is closing takes the connection along.
        join_all(all.iter().map(Consuming::close)).await.into_iter().collect()
    }
}

/// Settles, and makes room for another delivery.
struct Counted {
    settle: Box<dyn Settle>,
    in_hand: Arc<AtomicUsize>,
}

#[async_trait]
impl Settle for Counted {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        self.settle.ack().await?;
        self.in_hand.fetch_sub(1, SeqCst);
        Ok(())
    }

    async fn requeue(self: Box<Self>) -> Result<(), BrokerError> {
        self.settle.requeue().await?;
        self.in_hand.fetch_sub(1, SeqCst);
        Ok(())
    }
}
