//! Looking at what a broker has, without changing it.

use super::{
    broker::AmqpBroker,
    convert::{depth, short},
    declare::arguments,
    operation::{translate, within},
};
use crate::broker::{BrokerError, Depth};
use common::topology::{ExchangeKind, Topology};
use lapin::{
    Connection, ErrorKind,
    options::{ExchangeDeclareOptions, ExchangeUnbindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use std::time::Duration;

/// AMQP reply codes (AMQP 0-9-1 §1.2).
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
/// A routing key that nothing is bound with.
const NOBODYS_KEY: &str = "wildrydes-doctor";

/// What became of looking for an exchange or a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is there; what it holds, for a queue.
    There(Option<Depth>),
    /// It is not.
    Missing,
    /// This user may not look, or it is held by another connection, as the broker says it.
    Refused(String),
}

impl AmqpBroker {
    /// Looks for every exchange and queue of the fleet by passive declaration, for which RabbitMQ asks no permission.
    ///
    /// # Errors
    /// When the broker cannot be used.
    pub async fn inspect(&self) -> Result<Vec<(String, Presence)>, BrokerError> {
        let connection = self.open("wildrydes doctor").await?;
        let deadline = Duration::from_millis(self.settings.confirm_timeout_ms);
        let topology = Topology::of_fleet(&self.settings.namespace);
        let mut found = Vec::new();
        for exchange in &topology.exchanges {
            let presence = look_for_exchange(&connection, &exchange.name, exchange.kind, deadline).await?;
            found.push((format!("exchange {}", exchange.name), presence));
        }
        for queue in &topology.queues {
            found.push((format!("queue {}", queue.name), look_for_queue(&connection, &queue.name, deadline).await?));
        }
        within(deadline, "closing", connection.close(200, short("goodbye"))).await?;
        Ok(found)
    }

    /// Tries what an operator must be allowed to with everything of the fleet that is there, in ways that change nothing:
    /// declaring it as it is asks for `configure`, taking away a binding that nobody made for `write` and `read`. What the
    /// broker refused, in its words.
    ///
    /// # Errors
    /// When the broker cannot be used.
    pub async fn refused(&self) -> Result<Vec<String>, BrokerError> {
        let connection = self.open("wildrydes doctor").await?;
        let deadline = Duration::from_millis(self.settings.confirm_timeout_ms);
        let topology = Topology::of_fleet(&self.settings.namespace);
        let channel = async || within(deadline, "opening a channel", connection.create_channel()).await;
        let mut refused = Vec::new();
        let mut exchange_there = None;
        for exchange in &topology.exchanges {
            let name = || short(&exchange.name);
            let found = look_for_exchange(&connection, &exchange.name, exchange.kind, deadline).await?;
            if !matches!(found, Presence::There(_)) {
                continue;
            }
            exchange_there = Some(&exchange.name);
            let declaring = channel().await?;
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let declared = declaring.exchange_declare(name(), kind_of(exchange.kind), options, FieldTable::default());
            refused.extend(denied(deadline, &format!("configure exchange {}", exchange.name), declared).await?);
            let (unbinding, options) = (channel().await?, ExchangeUnbindOptions::default());
            let unbound = unbinding.exchange_unbind(name(), name(), short(NOBODYS_KEY), options, FieldTable::default());
            refused.extend(denied(deadline, &format!("write to and read exchange {}", exchange.name), unbound).await?);
        }
        for queue in &topology.queues {
            let name = || short(&queue.name);
            if !matches!(look_for_queue(&connection, &queue.name, deadline).await?, Presence::There(_)) {
                continue;
            }
            let declaring = channel().await?;
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            let declared = declaring.queue_declare(name(), options, arguments(queue));
            refused.extend(denied(deadline, &format!("configure queue {}", queue.name), declared).await?);
            if let Some(exchange) = exchange_there {
                let unbinding = channel().await?;
                let unbound =
                    unbinding.queue_unbind(name(), short(exchange), short(NOBODYS_KEY), FieldTable::default());
                refused.extend(denied(deadline, &format!("bind queue {} to {exchange}", queue.name), unbound).await?);
            }
        }
        // A channel that was refused something may still be closing; the broker notices by itself that this is the end.
        let _ = within(deadline, "closing", connection.close(200, short("goodbye"))).await;
        Ok(refused)
    }
}

/// What the broker says if it refuses this for want of a permission; any other answer means that there is one.
async fn denied<T>(
    deadline: Duration,
    what: &str,
    tried: impl Future<Output = lapin::Result<T>>,
) -> Result<Option<String>, BrokerError> {
    let Ok(result) = tokio::time::timeout(deadline, tried).await else {
        return Err(BrokerError::Lost(format!("trying to {what}: no answer within {} ms", deadline.as_millis())));
    };
    match result.as_ref().map_err(lapin::Error::kind) {
        Err(ErrorKind::ProtocolError(amqp)) if amqp.get_id() == ACCESS_REFUSED => {
            Ok(Some(format!("{what}: {}", amqp.get_message())))
        }
        _ => Ok(None),
    }
}

fn kind_of(kind: ExchangeKind) -> lapin::ExchangeKind {
    match kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
    }
}

async fn look_for_exchange(
    connection: &Connection,
    name: &str,
    kind: ExchangeKind,
    deadline: Duration,
) -> Result<Presence, BrokerError> {
    // A channel for each: the broker closes it when something is not there.
    let channel = within(deadline, "opening a channel", connection.create_channel()).await?;
    let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let declared = channel.exchange_declare(short(name), kind_of(kind), options, FieldTable::default());
    let presence = presence(name, deadline, async { declared.await.map(|()| None) }).await?;
    closed(&channel, deadline, presence).await
}

async fn look_for_queue(connection: &Connection, name: &str, deadline: Duration) -> Result<Presence, BrokerError> {
    let channel = within(deadline, "opening a channel", connection.create_channel()).await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let declared = channel.queue_declare(short(name), options, FieldTable::default());
    let depth = async {
        let queue = declared.await?;
        Ok(Some(depth(&queue)))
    };
    let presence = presence(name, deadline, depth).await?;
    closed(&channel, deadline, presence).await
}

async fn closed(channel: &lapin::Channel, deadline: Duration, presence: Presence) -> Result<Presence, BrokerError> {
    if matches!(presence, Presence::There(_)) {
        within(deadline, "closing a channel", channel.close(200, short("looked"))).await?;
    }
    Ok(presence)
}

async fn presence(
    name: &str,
    deadline: Duration,
    declared: impl Future<Output = lapin::Result<Option<Depth>>>,
) -> Result<Presence, BrokerError> {
    let what = format!("looking at {name}");
    let Ok(result) = tokio::time::timeout(deadline, declared).await else {
        return Err(BrokerError::Lost(format!("{what}: no answer within {} ms", deadline.as_millis())));
    };
    let error = match result {
        Ok(depth) => return Ok(Presence::There(depth)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if amqp.get_id() == NOT_FOUND => Ok(Presence::Missing),
        ErrorKind::ProtocolError(amqp) if matches!(amqp.get_id(), ACCESS_REFUSED | RESOURCE_LOCKED) => {
            Ok(Presence::Refused(amqp.get_message().to_string()))
        }
        _ => Err(translate(&what, error)),
    }
}
