//! Inspects the topology on a broker without changing it.

use super::{
    broker::AmqpBroker,
    convert::{depth, kind_of, short},
    declare::arguments,
    operation::{self, answer, translate, within},
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
/// A routing key that no binding uses.
const UNBOUND_KEY: &str = "wildrydes-doctor";

/// Whether an exchange or queue exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It exists. For a queue, with its counts; for an exchange, with `None`.
    Exists(Option<Depth>),
    /// It does not exist.
    Missing,
    /// The broker refused the check, with this message: a permission is missing, or another connection owns the queue.
    Refused(String),
}

impl AmqpBroker {
    /// Looks for every exchange and queue of the fleet by passive declarations, which need no `configure` permission.
    /// Returns one entry for each, named as in `queue splitter`.
    ///
    /// # Errors
    /// Fails if the broker cannot be used.
    pub async fn inspect(&self) -> Result<Vec<(String, Presence)>, BrokerError> {
        let connection = self.open("wildrydes doctor").await?;
        let deadline = Duration::from_millis(self.settings.confirm_timeout_ms);
        let topology = Topology::of_fleet(&self.settings.namespace);
        let mut presences = Vec::new();
        for exchange in &topology.exchanges {
            let presence = look_for_exchange(&connection, &exchange.name, exchange.kind, deadline).await?;
            presences.push((format!("exchange {}", exchange.name), presence));
        }
        for queue in &topology.queues {
            presences
                .push((format!("queue {}", queue.name), look_for_queue(&connection, &queue.name, deadline).await?));
        }
        within(deadline, "closing", connection.close(200, short("goodbye"))).await?;
        Ok(presences)
    }

    /// Tests an operator's permissions for every existing exchange and queue, with operations that change nothing: a
    /// repeated declaration needs `configure`, the removal of a binding that does not exist needs `write` and `read`.
    /// Returns the broker's refusals.
    ///
    /// # Errors
    /// Fails if the broker cannot be used.
    pub async fn refused(&self) -> Result<Vec<String>, BrokerError> {
        let connection = self.open("wildrydes doctor").await?;
        let deadline = Duration::from_millis(self.settings.confirm_timeout_ms);
        let topology = Topology::of_fleet(&self.settings.namespace);
        let channel = async || operation::channel(&connection, deadline).await;
        let mut refused = Vec::new();
        let mut existing_exchange = None;
        for exchange in &topology.exchanges {
            let name = || short(&exchange.name);
            let presence = look_for_exchange(&connection, &exchange.name, exchange.kind, deadline).await?;
            if !matches!(presence, Presence::Exists(_)) {
                continue;
            }
            existing_exchange = Some(&exchange.name);
            let declaring = channel().await?;
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let declared = declaring.exchange_declare(name(), kind_of(exchange.kind), options, FieldTable::default());
            refused.extend(denied(deadline, &format!("configure exchange {}", exchange.name), declared).await?);
            let (unbinding, options) = (channel().await?, ExchangeUnbindOptions::default());
            let unbound = unbinding.exchange_unbind(name(), name(), short(UNBOUND_KEY), options, FieldTable::default());
            refused.extend(denied(deadline, &format!("write to and read exchange {}", exchange.name), unbound).await?);
        }
        for queue in &topology.queues {
            let name = || short(&queue.name);
            if !matches!(look_for_queue(&connection, &queue.name, deadline).await?, Presence::Exists(_)) {
                continue;
            }
            let declaring = channel().await?;
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            let declared = declaring.queue_declare(name(), options, arguments(queue));
            refused.extend(denied(deadline, &format!("configure queue {}", queue.name), declared).await?);
            if let Some(exchange) = existing_exchange {
                let unbinding = channel().await?;
                let unbound =
                    unbinding.queue_unbind(name(), short(exchange), short(UNBOUND_KEY), FieldTable::default());
                refused.extend(denied(deadline, &format!("bind queue {} to {exchange}", queue.name), unbound).await?);
            }
        }
        // A channel may still be closing after a refusal, so an error here is ignored.
        let _ = within(deadline, "closing", connection.close(200, short("goodbye"))).await;
        Ok(refused)
    }
}

/// Returns the broker's message if it refuses an operation because a permission is missing. Any other answer means that
/// the user has the permission.
async fn denied<T>(
    deadline: Duration,
    what: &str,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<Option<String>, BrokerError> {
    let result = answer(deadline, &format!("trying to {what}"), operation).await?;
    match result.as_ref().map_err(lapin::Error::kind) {
        Err(ErrorKind::ProtocolError(amqp)) if amqp.get_id() == ACCESS_REFUSED => {
            Ok(Some(format!("{what}: {}", amqp.get_message())))
        }
        _ => Ok(None),
    }
}

async fn look_for_exchange(
    connection: &Connection,
    name: &str,
    kind: ExchangeKind,
    deadline: Duration,
) -> Result<Presence, BrokerError> {
    // Each check opens its own channel: the broker closes the channel if the exchange does not exist.
    let channel = operation::channel(connection, deadline).await?;
    let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let declared = channel.exchange_declare(short(name), kind_of(kind), options, FieldTable::default());
    let presence = presence(name, deadline, async { declared.await.map(|()| None) }).await?;
    closed(&channel, deadline, presence).await
}

async fn look_for_queue(connection: &Connection, name: &str, deadline: Duration) -> Result<Presence, BrokerError> {
    let channel = operation::channel(connection, deadline).await?;
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
    if matches!(presence, Presence::Exists(_)) {
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
    let error = match answer(deadline, &what, declared).await? {
        Ok(depth) => return Ok(Presence::Exists(depth)),
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
