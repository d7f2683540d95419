//! Looking through a queue with `basic.get`. Each get of a replicated queue is a round through its log, so that several
//! are under way, each on a channel of its own; what was got is unacknowledged until the channels close.

use super::{delivered, translate, within};
use crate::runtime::broker::{BrokerError, Browser, Delivery};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use lapin::{Channel, message::BasicGetMessage, options::BasicGetOptions, types::ShortString};
use std::time::Duration;

/// Gets under way at the same time; as many bodies are in memory at most, beside the one that was handed out.
pub(super) const WINDOW_MAX: usize = 16;

type Got = (usize, lapin::Result<Option<BasicGetMessage>>);

pub(super) struct AmqpBrowser {
    pub(super) channels: Vec<Channel>,
    pub(super) queue: ShortString,
    pub(super) namespace: String,
    pub(super) deadline: Duration,
    idle: Vec<usize>,
    asked: FuturesOrdered<BoxFuture<'static, Got>>,
    /// Begins with one, so that whoever wants a single message does not take many.
    window: usize,
}

impl AmqpBrowser {
    pub(super) fn new(channels: Vec<Channel>, queue: ShortString, namespace: String, deadline: Duration) -> Self {
        let idle = (0..channels.len()).collect();
        Self { channels, queue, namespace, deadline, idle, asked: FuturesOrdered::new(), window: 1 }
    }

    fn ask(&mut self) {
        while self.asked.len() < self.window
            && let Some(at) = self.idle.pop()
        {
            let (channel, queue) = (self.channels[at].clone(), self.queue.clone());
            self.asked
                .push_back(async move { (at, channel.basic_get(queue, BasicGetOptions::default()).await) }.boxed());
        }
    }
}

#[async_trait]
impl Browser for AmqpBrowser {
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        let what = format!("looking through {}", self.queue);
        let mut empty = false;
        loop {
            if !empty {
                self.ask();
            }
            let Ok(got) = tokio::time::timeout(self.deadline, self.asked.next()).await else {
                let why = format!("{what}: no answer within {} ms", self.deadline.as_millis());
                return Err(BrokerError::Lost(why));
            };
            let Some((at, got)) = got else { return Ok(None) };
            self.idle.push(at);
            match got.map_err(|error| translate(&what, error))? {
                Some(message) => {
                    self.window = (self.window * 2).min(WINDOW_MAX);
                    return Ok(Some(delivered(message.delivery, &self.namespace, self.deadline, false)));
                }
                None => empty = true,
            }
        }
    }

    async fn close(self: Box<Self>) -> Result<(), BrokerError> {
        for channel in &self.channels {
            within(self.deadline, "closing a channel", channel.close(200, "looked".into())).await?;
        }
        Ok(())
    }
}
