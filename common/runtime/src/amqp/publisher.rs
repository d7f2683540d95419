//! Publishes with confirms. One task owns each channel, because lapin assigns confirms to the wrong messages if several
//! tasks publish on one channel.

use super::{
    convert::{routing_key, short, to_amqp},
    operation::within,
};
use crate::{
    broker::{BrokerError, ConnectionState, PublishError, Publisher, check_size},
    metrics::metrics,
};
use async_trait::async_trait;
use common::outcome::Outgoing;
use futures::{StreamExt, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation, Connection, ErrorKind, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Maximum number of unconfirmed publishes.
const IN_FLIGHT_MAX: usize = 1_000;
/// Maximum number of messages that wait for the publishing task.
const WAITING_MAX: usize = 64;
/// AMQP's reply code for a missing permission (AMQP 0-9-1 §1.2).
const ACCESS_REFUSED: u16 = 403;

type Answer = oneshot::Sender<Result<(), PublishError>>;

pub(super) struct AmqpPublisher {
    jobs: mpsc::Sender<(Outgoing, Answer)>,
    state: watch::Receiver<ConnectionState>,
    deadline: Duration,
}

impl AmqpPublisher {
    pub(super) fn start(
        connection: Arc<Connection>,
        channel: Channel,
        state: watch::Receiver<ConnectionState>,
        deadline: Duration,
        namespace: String,
    ) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(publish_all(Line { connection, channel, deadline, denied: false }, waiting, namespace));
        Self { jobs, state, deadline }
    }

    /// Awaits `step` with the deadline, which does not run while the broker is blocked.
    async fn patiently<T>(&self, step: impl Future<Output = T>) -> Result<T, PublishError> {
        let mut state = self.state.clone();
        tokio::pin!(step);
        loop {
            let now = state.borrow_and_update().clone();
            if let ConnectionState::Closed(why) = now {
                return Err(PublishError::Unconfirmed(why));
            }
            tokio::select! {
                biased;
                done = &mut step => return Ok(done),
                // An alarm began or ended: the deadline restarts.
                changed = state.changed() => if changed.is_err() {
                    return Err(PublishError::Unconfirmed("the connection is closed".to_owned()));
                },
                () = tokio::time::sleep(self.deadline), if now == ConnectionState::Open => {
                    let why = format!("nothing within {} ms", self.deadline.as_millis());
                    return Err(PublishError::Unconfirmed(why));
                }
            }
        }
    }
}

#[async_trait]
impl Publisher for AmqpPublisher {
    async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let (exchange, started) = (message.exchange, Instant::now());
        let unconfirmed = metrics().unconfirmed();
        let published = self.confirmed(message).await;
        drop(unconfirmed);
        metrics().published(exchange, &published, started.elapsed());
        published
    }
}

impl AmqpPublisher {
    /// Publishes and awaits the confirm.
    async fn confirmed(&self, message: Outgoing) -> Result<(), PublishError> {
        check_size(&message)?;
        let closed = || PublishError::Unconfirmed("the connection is closed".to_owned());
        let (answer, confirmed) = oneshot::channel();
        self.patiently(self.jobs.send((message, answer))).await?.map_err(|_| closed())?;
        self.patiently(confirmed).await?.map_err(|_| closed())?
    }
}

/// Opens a channel with publisher confirms.
pub(super) async fn confirming(connection: &Connection, deadline: Duration) -> Result<Channel, BrokerError> {
    let channel = within(deadline, "opening a channel", connection.create_channel()).await?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    within(deadline, "turning confirms on", confirms).await?;
    Ok(channel)
}

/// A publishing channel that is replaced when the broker closes it. The broker does so on a publish without permission,
/// and every unconfirmed publish on the channel then fails.
struct Line {
    connection: Arc<Connection>,
    channel: Channel,
    deadline: Duration,
    /// Whether the broker closed the channel because of a missing permission.
    denied: bool,
}

impl Line {
    async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &str,
        message: &Outgoing,
    ) -> lapin::Result<PublisherConfirm> {
        if self.denied && !self.channel.status().connected() {
            // If that fails, publishing on the old channel reports that it is closed.
            if let Ok(channel) = confirming(&self.connection, self.deadline).await {
                (self.channel, self.denied) = (channel, false);
            }
        }
        self.channel
            .basic_publish(
                short(exchange),
                short(routing_key),
                BasicPublishOptions { mandatory: message.mandatory, immediate: false },
                &message.body,
                to_amqp(&message.properties),
            )
            .await
    }
}

async fn publish_all(mut line: Line, mut jobs: mpsc::Receiver<(Outgoing, Answer)>, namespace: String) {
    let mut confirms = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            // Confirms first, to make room in the window.
            Some(denied) = confirms.next(), if !confirms.is_empty() => line.denied |= denied,
            job = jobs.recv(), if confirms.len() < IN_FLIGHT_MAX => {
                let Some((message, answer)) = job else { break };
                let exchange = match message.exchange {
                    "" => String::new(),
                    named => format!("{namespace}{named}"),
                };
                let routing_key = routing_key(&namespace, message.exchange, &message.routing_key);
                let mut published = line.publish(&exchange, &routing_key, &message).await;
                if published.is_err() && !line.channel.status().connected() {
                    // The channel closed during this publish; the earlier confirms contain the cause.
                    while let Some(denied) = confirms.next().await {
                        line.denied |= denied;
                    }
                    if line.denied {
                        published = line.publish(&exchange, &routing_key, &message).await;
                    }
                }
                match published {
                    Ok(confirm) => confirms.push(async move {
                        let result = judge(confirm.await, exchange, routing_key);
                        let denied = matches!(result, Err(PublishError::Denied { .. }));
                        // The caller may have stopped waiting.
                        let _ = answer.send(result);
                        denied
                    }),
                    Err(error) => {
                        let _ = answer.send(Err(PublishError::Unconfirmed(error.to_string())));
                    }
                }
            }
        }
    }
    while confirms.next().await.is_some() {}
}

/// Returns the result of a publish. It succeeded only if the broker sent an ack and did not return the message.
fn judge(confirm: lapin::Result<Confirmation>, exchange: String, routing_key: String) -> Result<(), PublishError> {
    match confirm {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(Confirmation::Ack(Some(_))) => Err(PublishError::Unroutable { exchange, routing_key }),
        Ok(Confirmation::Nack(_)) => Err(PublishError::Refused),
        Ok(Confirmation::NotRequested) => Err(PublishError::Unconfirmed("confirms are off".to_owned())),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(amqp) if amqp.get_id() == ACCESS_REFUSED => {
                Err(PublishError::Denied { exchange, routing_key, why: amqp.get_message().to_string() })
            }
            _ => Err(PublishError::Unconfirmed(error.to_string())),
        },
    }
}
