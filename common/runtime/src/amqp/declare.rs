//! Declares or checks the topology, and explains differences from what the broker has.

use super::{
    convert::{kind_of, short},
    operation::{self, answer, translate, within},
};
use crate::broker::BrokerError;
use common::topology::{Argument, Queue, Topology};
use lapin::{
    ErrorKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::AMQPError,
    types::{AMQPValue, FieldTable},
};
use std::{collections::BTreeSet, time::Duration};

/// AMQP reply code for a missing exchange or queue, and for a classic queue whose node is down.
const NOT_FOUND: u16 = 404;
/// Part of RabbitMQ's message about a classic queue whose node is down.
const NODE_DOWN: &str = "is down or inaccessible";
/// Maximum wait for an answer about a classic queue. It exists on one node only; while that node is down, RabbitMQ 4.0
/// does not answer.
const CLASSIC_ANSWER_MAX: Duration = Duration::from_secs(5);
/// AMQP reply code for a declaration that differs from the existing queue or exchange.
const PRECONDITION_FAILED: u16 = 406;

/// Result of a declaration.
enum Declared {
    /// The exchange or queue exists.
    Exists,
    /// The queue exists, but the cluster node that holds it is down, for this reason.
    NodeDown(String),
}

/// Declares the missing exchanges, queues and bindings. Skips a queue whose node is down: it usually belongs to another
/// worker, and the worker that reads it fails when it starts to consume.
pub(super) async fn declare(
    connection: &lapin::Connection,
    deadline: Duration,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let mut channel = operation::channel(connection, deadline).await?;
    for exchange in &topology.exchanges {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declared =
            channel.exchange_declare(short(&exchange.name), kind_of(exchange.kind), options, FieldTable::default());
        checked(deadline, &format!("exchange {}", exchange.name), declared).await?;
    }
    let mut down = BTreeSet::new();
    for queue in &topology.queues {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let what = format!("queue {}", queue.name);
        let declared = channel.queue_declare(short(&queue.name), options, arguments(queue));
        if let Declared::NodeDown(why) = answer_about(queue, checked(deadline, &what, declared)).await? {
            tracing::warn!(queue = queue.name, why, "continuing without this queue");
            down.insert(queue.name.as_str());
            // The refusal closed the channel, or the channel still waits for an answer.
            channel = operation::channel(connection, deadline).await?;
        }
    }
    for binding in topology.bindings.iter().filter(|binding| !down.contains(binding.queue.as_str())) {
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

/// Returns the arguments of a queue's declaration.
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

/// Awaits the answer about a queue. No answer about a classic queue means that its node is down.
async fn answer_about(
    queue: &Queue,
    answer: impl Future<Output = Result<Declared, BrokerError>>,
) -> Result<Declared, BrokerError> {
    let classic = matches!(queue.arguments.get("x-queue-type"), Some(Argument::Text(kind)) if kind == "classic");
    if !classic {
        return answer.await;
    }
    let silence = || Declared::NodeDown(format!("no answer within {} s", CLASSIC_ANSWER_MAX.as_secs()));
    tokio::time::timeout(CLASSIC_ANSWER_MAX, answer).await.unwrap_or_else(|_| Ok(silence()))
}

/// Checks that every exchange and queue exists, which needs no permission. Bindings cannot be checked.
///
/// A missing one is reported as [`BrokerError::Lost`], because an operator may declare it at any moment.
pub(super) async fn check(
    connection: &lapin::Connection,
    deadline: Duration,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let mut channel = operation::channel(connection, deadline).await?;
    for exchange in &topology.exchanges {
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        // A passive declaration does not compare the kind.
        let kind = lapin::ExchangeKind::Topic;
        let declared = channel.exchange_declare(short(&exchange.name), kind, options, FieldTable::default());
        existing(deadline, &format!("exchange {}", exchange.name), declared).await?;
    }
    for queue in &topology.queues {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = channel.queue_declare(short(&queue.name), options, FieldTable::default());
        let what = format!("queue {}", queue.name);
        if let Declared::NodeDown(why) = answer_about(queue, existing(deadline, &what, declared)).await? {
            tracing::warn!(queue = queue.name, why, "continuing without this queue");
            channel = operation::channel(connection, deadline).await?;
        }
    }
    within(deadline, "closing a channel", channel.close(200, short("looked"))).await
}

async fn existing<T>(
    deadline: Duration,
    what: &str,
    declared: impl Future<Output = lapin::Result<T>>,
) -> Result<Declared, BrokerError> {
    let looking = &format!("looking at {what}");
    match answer(deadline, looking, declared).await? {
        Ok(_) => Ok(Declared::Exists),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(amqp) if is_node_down(amqp) => {
                Ok(Declared::NodeDown(amqp.get_message().to_string()))
            }
            ErrorKind::ProtocolError(amqp) if amqp.get_id() == NOT_FOUND => Err(BrokerError::Lost(format!(
                "{what} does not exist, and this user may not declare it: run `wildrydes topology apply` as the operator"
            ))),
            _ => Err(translate(looking, error)),
        },
    }
}

async fn checked<T>(
    deadline: Duration,
    what: &str,
    declared: impl Future<Output = lapin::Result<T>>,
) -> Result<Declared, BrokerError> {
    let declaring = &format!("declaring {what}");
    match answer(deadline, declaring, declared).await? {
        Ok(_) => Ok(Declared::Exists),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(amqp) if is_node_down(amqp) => {
                Ok(Declared::NodeDown(amqp.get_message().to_string()))
            }
            ErrorKind::ProtocolError(amqp) if amqp.get_id() == PRECONDITION_FAILED => {
                Err(BrokerError::Mismatch { what: what.to_owned(), details: both_sides(amqp.get_message().as_str()) })
            }
            _ => Err(translate(declaring, error)),
        },
    }
}

fn is_node_down(error: &AMQPError) -> bool {
    error.get_id() == NOT_FOUND && error.get_message().as_str().contains(NODE_DOWN)
}

/// Explains the broker's `inequivalent arg 'x' for queue 'q' in vhost '/': received 'a' but current is 'b'`: names both
/// values and the remedy.
fn both_sides(message: &str) -> String {
    let between = |from: &str, to: &str| {
        let start = message.find(from)? + from.len();
        let end = message[start..].find(to)? + start;
        Some(&message[start..end])
    };
    let values = (
        between("inequivalent arg '", "'"),
        between("received ", " but current is"),
        message.split("current is ").nth(1),
    );
    let sides = match values {
        (Some(argument), Some(declared), Some(current)) => {
            format!("{argument}: this fleet declares {declared}, the broker has {current}.")
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
    fn a_mismatch_names_both_values() {
        let message = "PRECONDITION_FAILED - inequivalent arg 'x-max-length-bytes' for queue 'splitter' in vhost '/': \
                    received '5' but current is '10'";
        let explanation = super::both_sides(message);
        assert!(
            explanation.starts_with("x-max-length-bytes: this fleet declares '5', the broker has '10'."),
            "{explanation}"
        );
        assert!(super::both_sides("something else").contains("something else"));
    }
}
