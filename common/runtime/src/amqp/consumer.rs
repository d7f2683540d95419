//! Consuming. Each consumer has a channel of its own, and both end in one order.

use super::{
    convert::short,
    delivery::{delivered, settled},
    operation::{translate, within},
};
use crate::broker::{BrokerError, Consumer, Delivery};
use async_trait::async_trait;
use futures::StreamExt;
use lapin::{
    Channel,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use std::time::Duration;

/// A consumer and its channel. The library cancels a consumer that is dropped in a task of its own, and where the channel
/// closes in that moment it gives up the whole connection. So a channel is always closed first, which ends its consumer.
pub(super) struct Consuming {
    pub(super) consumer: lapin::Consumer,
    pub(super) channel: Channel,
    no_ack: bool,
    deadline: Duration,
}

impl Consuming {
    /// Begins to consume with as many unacknowledged deliveries as `prefetch`; with `None` nothing is to be acknowledged.
    pub(super) async fn start(
        channel: Channel,
        queue: &str,
        prefetch: Option<u16>,
        deadline: Duration,
    ) -> Result<Self, BrokerError> {
        if let Some(prefetch) = prefetch {
            let set = channel.basic_qos(prefetch, BasicQosOptions::default());
            within(deadline, "setting the prefetch", set).await?;
        }
        let no_ack = prefetch.is_none();
        let options = BasicConsumeOptions { no_ack, ..Default::default() };
        let started = channel.basic_consume(short(queue), short(""), options, FieldTable::default());
        let consumer = within(deadline, &format!("consuming from {queue}"), started).await?;
        Ok(Self { consumer, channel, no_ack, deadline })
    }

    /// Takes no more, and gives back what came before the broker's answer. What was handed out can still be settled.
    pub(super) async fn cancel(&mut self) -> Result<(), BrokerError> {
        let cancelled = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        within(self.deadline, "cancelling a consumer", cancelled).await?;
        while let Some(delivery) = self.consumer.next().await {
            let delivery = delivery.map_err(|error| translate("cancelling a consumer", error))?;
            if !self.no_ack {
                let back = delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false });
                settled(within(self.deadline, "giving back a delivery", back).await?)?;
            }
        }
        Ok(())
    }

    /// Ends it; what is unacknowledged goes back to the queue.
    pub(super) async fn close(&self) -> Result<(), BrokerError> {
        within(self.deadline, "closing a channel", self.channel.close(200, short("done"))).await
    }
}

impl Drop for Consuming {
    fn drop(&mut self) {
        if !self.channel.status().connected() {
            return;
        }
        let (consumer, channel, deadline) = (self.consumer.clone(), self.channel.clone(), self.deadline);
        // Without a runtime there is no connection either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let closed = within(deadline, "closing a channel", channel.close(200, short("done"))).await;
                if let Err(error) = closed {
                    tracing::debug!(%error, "a consumer's channel was gone before it closed");
                }
                drop(consumer);
            });
        }
    }
}

/// The port's consumer.
pub(super) struct AmqpConsumer {
    pub(super) consuming: Consuming,
    pub(super) namespace: String,
}

#[async_trait]
impl Consumer for AmqpConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let Consuming { consumer, no_ack, deadline, .. } = &mut self.consuming;
        match consumer.next().await {
            Some(Ok(delivery)) => Ok(delivered(delivery, &self.namespace, *deadline, *no_ack)),
            Some(Err(error)) => Err(translate("consuming", error)),
            None => Err(BrokerError::Lost("the broker ended the consumer (was the queue deleted?)".to_owned())),
        }
    }

    async fn cancel(&mut self) -> Result<(), BrokerError> {
        self.consuming.cancel().await
    }
}
