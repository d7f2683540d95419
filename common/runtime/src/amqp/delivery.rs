//! Deliveries from RabbitMQ and their settlement.

use super::{convert, operation::within};
use crate::broker::{BrokerError, Delivery, Settle};
use async_trait::async_trait;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use std::time::Duration;

/// Converts a delivery; removes the namespace from its exchange and routing key.
pub(super) fn delivered(
    delivery: lapin::message::Delivery,
    namespace: &str,
    deadline: Duration,
    no_ack: bool,
) -> Delivery {
    let settle = AmqpSettle { acker: (!no_ack).then_some(delivery.acker), deadline };
    let plain = |name: &str| convert::printable(name.strip_prefix(namespace).unwrap_or(name));
    let exchange = plain(delivery.exchange.as_str());
    let routing_key = match convert::routes_by_queue(&exchange) {
        true => plain(delivery.routing_key.as_str()),
        false => convert::printable(delivery.routing_key.as_str()),
    };
    Delivery {
        properties: convert::from_amqp(&delivery.properties),
        body: delivery.data.into(),
        exchange,
        routing_key,
        redelivered: delivery.redelivered,
        settle: Box::new(settle),
    }
}

struct AmqpSettle {
    acker: Option<lapin::Acker>,
    deadline: Duration,
}

#[async_trait]
impl Settle for AmqpSettle {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        let Some(acker) = self.acker else { return Ok(()) };
        settled(within(self.deadline, "acknowledging", acker.ack(BasicAckOptions::default())).await?)
    }

    async fn requeue(self: Box<Self>) -> Result<(), BrokerError> {
        let Some(acker) = self.acker else { return Ok(()) };
        settled(within(self.deadline, "requeueing", acker.reject(BasicRejectOptions { requeue: true })).await?)
    }
}

/// Fails if lapin reports that the settlement did not reach the broker, because the channel was closed.
pub(super) fn settled(reached_the_broker: bool) -> Result<(), BrokerError> {
    match reached_the_broker {
        true => Ok(()),
        false => Err(BrokerError::Lost("the channel closed before the delivery was settled".to_owned())),
    }
}
