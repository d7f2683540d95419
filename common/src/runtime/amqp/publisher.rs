//! Publishing with confirms: one task per channel, because confirms of a channel that several tasks publish on are
//! handed to the wrong ones.

use super::convert::{routing_key, short, to_amqp};
use crate::{
    contract::outcome::Outgoing,
    runtime::broker::{ConnectionState, PublishError, Publisher, check_size},
};
use async_trait::async_trait;
use futures::{StreamExt, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, options::BasicPublishOptions};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Publishes without a confirm at any time, at most.
const IN_FLIGHT_MAX: usize = 1_000;
/// Messages handed over but not yet written.
const WAITING_MAX: usize = 64;

type Answer = oneshot::Sender<Result<(), PublishError>>;

pub(super) struct AmqpPublisher {
    jobs: mpsc::Sender<(Outgoing, Answer)>,
    state: watch::Receiver<ConnectionState>,
    deadline: Duration,
}

impl AmqpPublisher {
    pub(super) fn start(
        channel: Channel,
        state: watch::Receiver<ConnectionState>,
        deadline: Duration,
        namespace: String,
    ) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(publish_all(channel, waiting, namespace));
        Self { jobs, state, deadline }
    }

    /// Awaits `step` under the deadline, which does not run while the broker is blocked.
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
                // Starts the deadline anew: an alarm came or went.
                changed = state.changed() => if changed.is_err() {
                    return Err(PublishError::Unconfirmed("the connection is gone".to_owned()));
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
        check_size(&message)?;
        let gone = || PublishError::Unconfirmed("the connection is closed".to_owned());
        let (answer, confirmed) = oneshot::channel();
        self.patiently(self.jobs.send((message, answer))).await?.map_err(|_| gone())?;
        self.patiently(confirmed).await?.map_err(|_| gone())?
    }
}

async fn publish_all(channel: Channel, mut jobs: mpsc::Receiver<(Outgoing, Answer)>, namespace: String) {
    let mut confirms = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            // Settled ones first: the window has room again.
            Some(()) = confirms.next(), if !confirms.is_empty() => {}
            job = jobs.recv(), if confirms.len() < IN_FLIGHT_MAX => {
                let Some((message, answer)) = job else { break };
                let exchange = match message.exchange {
                    "" => String::new(),
                    named => format!("{namespace}{named}"),
                };
                let routing_key = routing_key(&namespace, message.exchange, &message.routing_key);
                let published = channel
                    .basic_publish(
                        short(&exchange),
                        short(&routing_key),
                        BasicPublishOptions { mandatory: message.mandatory, immediate: false },
                        &message.body,
                        to_amqp(&message.properties),
                    )
                    .await;
                match published {
                    Ok(confirm) => confirms.push(async move {
                        let result = judge(confirm.await, exchange, routing_key);
                        // Whoever asked may have given up by now.
                        let _ = answer.send(result);
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

/// Success is exactly an ack without a returned message.
fn judge(confirm: lapin::Result<Confirmation>, exchange: String, routing_key: String) -> Result<(), PublishError> {
    match confirm {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(Confirmation::Ack(Some(_))) => Err(PublishError::Unroutable { exchange, routing_key }),
        Ok(Confirmation::Nack(_)) => Err(PublishError::Refused),
        Ok(Confirmation::NotRequested) => Err(PublishError::Unconfirmed("confirms are off".to_owned())),
        Err(error) => Err(PublishError::Unconfirmed(error.to_string())),
    }
}
