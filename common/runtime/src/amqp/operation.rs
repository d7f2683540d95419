//! Awaits AMQP operations with a deadline, and translates their errors.

use crate::broker::BrokerError;
use lapin::{Channel, ErrorKind};
use std::time::Duration;

/// Opens a channel; fails after `deadline`.
pub(super) async fn channel(connection: &lapin::Connection, deadline: Duration) -> Result<Channel, BrokerError> {
    within(deadline, "opening a channel", connection.create_channel()).await
}

/// Awaits an AMQP operation; fails after `deadline`. `what` names the operation in errors.
pub(super) async fn within<T>(
    deadline: Duration,
    what: &str,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    answer(deadline, what, operation).await?.map_err(|error| translate(what, error))
}

/// Awaits the answer to an AMQP operation; fails after `deadline`.
pub(super) async fn answer<T>(
    deadline: Duration,
    what: &str,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<lapin::Result<T>, BrokerError> {
    let late = |_| BrokerError::Lost(format!("{what}: no answer within {} ms", deadline.as_millis()));
    tokio::time::timeout(deadline, operation).await.map_err(late)
}

pub(super) fn translate(what: &str, error: lapin::Error) -> BrokerError {
    /// AMQP reply codes after which a retry cannot succeed (AMQP 0-9-1 §1.2).
    const PERMANENT: [u16; 3] = [402, 403, 530];
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if PERMANENT.contains(&amqp.get_id()) => {
            BrokerError::Refused(format!("{what}: {}", amqp.get_message()))
        }
        _ => BrokerError::Lost(format!("{what}: {error}")),
    }
}
