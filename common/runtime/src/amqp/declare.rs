//! Declares the topology, and says clearly when the broker has something else.

use super::{
    convert::short,
    operation::{self, translate, within},
};
use crate::broker::BrokerError;
use common::topology::{Argument, ExchangeKind, Queue, Topology};
use lapin::{
    ErrorKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::AMQPError,
    types::{AMQPValue, FieldTable},
};
use std::{collections::BTreeSet, time::Duration};

/// AMQP reply code of something that is not there; of a classic queue, too, whose node is not.
const NOT_FOUND: u16 = 404;
/// What RabbitMQ says then; it may also say nothing at all.
const NODE_AWAY: &str = "is down or inaccessible";
/// How long to wait for word of a classic queue. It lives on one node alone; with that away RabbitMQ 4.0 does not answer.
const CLASSIC_ANSWER_MAX: Duration = Duration::from_secs(5);
/// AMQP reply code of a declaration that differs from what is there.
const PRECONDITION_FAILED: u16 = 406;

/// What came of a declaration.
enum Declared {
    /// It is there.
    There,
    /// It is there, and so it was declared before, but the node of the cluster that holds it is away.
    Away(String),
}

/// Declares what is not there yet. A queue whose node is away is passed over: it is another worker's more often than not,
/// and the one that reads it learns so when it begins to consume.
pub(super) async fn declare(
    connection: &lapin::Connection,
    deadline: Duration,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let mut channel = operation::channel(connection, deadline).await?;
    for exchange in &topology.exchanges {
        let kind = match exchange.kind {
            ExchangeKind::Direct => lapin::ExchangeKind::Direct,
            ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        };
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.exchange_declare(short(&exchange.name), kind, options, FieldTable::default());
        checked(deadline, &format!("exchange {}", exchange.name), declared).await?;
    }
    let mut away = BTreeSet::new();
    for queue in &topology.queues {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let what = format!("queue {}", queue.name);
        let declared = channel.queue_declare(short(&queue.name), options, arguments(queue));
        if let Declared::Away(why) = word_of(queue, checked(deadline, &what, declared)).await? {
            tracing::warn!(queue = queue.name, why, "going on without this queue");
            away.insert(queue.name.as_str());
            // The refusal has ended the channel; one that waits for an answer is of no use.
            channel = operation::channel(connection, deadline).await?;
        }
    }
    for binding in topology.bindings.iter().filter(|binding| !away.contains(binding.queue.as_str())) {
        let bound = channel.queue_bind(
            short(&binding.queue),
            short(&binding.exchange),
            short(&binding.routing_key),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(deadline, &format!("binding {} to {}", binding.queue, binding.exchange), bound).await?;
    }
    within(deadline, "closing a channel", channel.close(200, short("declared"))).await
}

/// The arguments a queue is declared with.
pub(super) fn arguments(queue: &Queue) -> FieldTable {
    let mut arguments = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Integer(value) => AMQPValue::LongLongInt(*value),
            Argument::Text(value) => AMQPValue::LongString(value.as_str().into()),
        };
        arguments.insert(short(name), value);
    }
    arguments
}

/// What is heard of a queue; silence about a classic one means that its node is away.
async fn word_of(
    queue: &Queue,
    answer: impl Future<Output = Result<Declared, BrokerError>>,
) -> Result<Declared, BrokerError> {
    let classic = matches!(queue.arguments.get("x-queue-type"), Some(Argument::Text(kind)) if kind == "classic");
    if !classic {
        return answer.await;
    }
    let silence = || Declared::Away(format!("no answer within {} s", CLASSIC_ANSWER_MAX.as_secs()));
    tokio::time::timeout(CLASSIC_ANSWER_MAX, answer).await.unwrap_or_else(|_| Ok(silence()))
}

/// Whether every exchange and queue is there, which needs no permission. Bindings cannot be looked at.
///
/// What is missing may be made at any moment, so it is no refusal for good.
pub(super) async fn look(
    connection: &lapin::Connection,
    deadline: Duration,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let mut channel = operation::channel(connection, deadline).await?;
    for exchange in &topology.exchanges {
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        // A passive declaration does not compare the kind.
        let kind = lapin::ExchangeKind::Topic;
        let found = channel.exchange_declare(short(&exchange.name), kind, options, FieldTable::default());
        there(deadline, &format!("exchange {}", exchange.name), found).await?;
    }
    for queue in &topology.queues {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let found = channel.queue_declare(short(&queue.name), options, FieldTable::default());
        let what = format!("queue {}", queue.name);
        if let Declared::Away(why) = word_of(queue, there(deadline, &what, found)).await? {
            tracing::warn!(queue = queue.name, why, "going on without this queue");
            channel = operation::channel(connection, deadline).await?;
        }
    }
    within(deadline, "closing a channel", channel.close(200, short("looked"))).await
}

async fn there<T>(
    deadline: Duration,
    what: &str,
    found: impl Future<Output = lapin::Result<T>>,
) -> Result<Declared, BrokerError> {
    match tokio::time::timeout(deadline, found).await {
        Ok(Ok(_)) => Ok(Declared::There),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ProtocolError(amqp) if is_away(amqp) => Ok(Declared::Away(amqp.get_message().to_string())),
            ErrorKind::ProtocolError(amqp) if amqp.get_id() == NOT_FOUND => Err(BrokerError::Lost(format!(
                "{what} is not there, and this user may not make it: run `wildrydes topology apply` as the operator"
            ))),
            _ => Err(translate(&format!("looking at {what}"), error)),
        },
        Err(_) => Err(BrokerError::Lost(format!("looking at {what}: no answer within {} ms", deadline.as_millis()))),
    }
}

async fn checked<T>(
    deadline: Duration,
    what: &str,
    declared: impl Future<Output = lapin::Result<T>>,
) -> Result<Declared, BrokerError> {
    let Ok(result) = tokio::time::timeout(deadline, declared).await else {
        return Err(BrokerError::Lost(format!("declaring {what}: no answer within {} ms", deadline.as_millis())));
    };
    match result {
        Ok(_) => Ok(Declared::There),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(amqp) if is_away(amqp) => Ok(Declared::Away(amqp.get_message().to_string())),
            ErrorKind::ProtocolError(amqp) if amqp.get_id() == PRECONDITION_FAILED => {
                Err(BrokerError::Mismatch { what: what.to_owned(), details: both_sides(amqp.get_message().as_str()) })
            }
            _ => Err(translate(&format!("declaring {what}"), error)),
        },
    }
}

fn is_away(error: &AMQPError) -> bool {
    error.get_id() == NOT_FOUND && error.get_message().as_str().contains(NODE_AWAY)
}

/// Turns the broker's `inequivalent arg 'x' for queue 'q' in vhost '/': received 'a' but current is 'b'` into both
/// sides and the way out.
fn both_sides(message: &str) -> String {
    let between = |from: &str, to: &str| {
        let start = message.find(from)? + from.len();
        let end = message[start..].find(to)? + start;
        Some(&message[start..end])
    };
    let found = (
        between("inequivalent arg '", "'"),
        between("received ", " but current is"),
        message.split("current is ").nth(1),
    );
    let sides = match found {
        (Some(argument), Some(wanted), Some(current)) => {
            format!("{argument}: this fleet wants {wanted}, the broker has {current}.")
        }
        _ => format!("The broker says: {message}."),
    };
    format!(
        "{sides} Either drain and delete it and run `wildrydes topology apply`, or give this fleet names of its own with \
         broker.namespace."
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_mismatch_names_both_sides() {
        let said = "PRECONDITION_FAILED - inequivalent arg 'x-max-length-bytes' for queue 'splitter' in vhost '/': \
                    received '5' but current is '10'";
        let told = super::both_sides(said);
        assert!(told.starts_with("x-max-length-bytes: this fleet wants '5', the broker has '10'."), "{told}");
        assert!(super::both_sides("something else").contains("something else"));
    }
}
