//! Consumers. Each has its own channel, which is always closed before the consumer is dropped.

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

/// A consumer and its channel. When a consumer is dropped, lapin cancels it in a background task; if the channel closes
/// at that moment, lapin closes the whole connection. So the channel is always closed first, which ends its consumer.
pub(super) struct Consuming {
    pub(super) consumer: lapin::Consumer,
    pub(super) channel: Channel,
    no_ack: bool,
    deadline: Duration,
}

impl Consuming {
    /// Starts to consume with at most `prefetch` unacknowledged deliveries; with `None`, deliveries need no
    /// acknowledgement.
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

    /// Cancels the consumer and requeues the deliveries that arrived before the broker's answer. Deliveries that were
    /// returned can still be settled.
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

    /// Closes the channel; unacknowledged deliveries return to the queue.
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
        // Without a tokio runtime there is no connection either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let closed = within(deadline, "closing a channel", channel.close(200, short("done"))).await;
                if let Err(error) = closed {
                    tracing::debug!(%error, "closing a consumer's channel failed");
                }
                drop(consumer);
            });
        }
    }
}

/// Implements [`Consumer`] for RabbitMQ.
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
