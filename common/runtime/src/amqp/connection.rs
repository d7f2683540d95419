//! A connection to RabbitMQ: one TCP connection for publishing, one for consuming.

use super::{
    browser,
    consumer::{AmqpConsumer, Consuming},
    convert::{self, short},
    declare,
    operation::{self, within},
    publisher,
};
use crate::{
    broker::{BrokerError, Browser, Connection, ConnectionState, Consumer, Depth, Publisher},
    config::{BrokerSettings, Declare},
};
use async_trait::async_trait;
use common::topology::Topology;
use futures::StreamExt;
use lapin::{
    Channel, ErrorKind, Event,
    options::{QueueBindOptions, QueueDeclareOptions},
    protocol::AMQPErrorKind,
    types::FieldTable,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Forwards the events of a connection to all watchers of its state, because lapin delivers events to one listener
/// only.
async fn follow_events(mut events: futures::stream::BoxStream<'static, Event>, state: watch::Sender<ConnectionState>) {
    while let Some(event) = events.next().await {
        let next = match event {
            Event::ConnectionBlocked(reason) => ConnectionState::Blocked(reason),
            Event::ConnectionUnblocked => ConnectionState::Open,
            // The end of one channel; its user receives the error there.
            Event::Error(error) if ends_one_channel(&error) => continue,
            Event::Error(error) => ConnectionState::Closed(error.to_string()),
            _ => continue,
        };
        let closed = matches!(next, ConnectionState::Closed(_));
        state.send_if_modified(|now| {
            let changes = !matches!(now, ConnectionState::Closed(_)) && *now != next;
            if changes {
                *now = next;
            }
            changes
        });
        if closed {
            return;
        }
    }
}

fn ends_one_channel(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(amqp) if matches!(amqp.kind(), AMQPErrorKind::Soft(_)))
}

/// The two TCP connections of a process.
pub(super) struct AmqpConnection {
    publishing: Arc<lapin::Connection>,
    consuming: Arc<lapin::Connection>,
    state: watch::Sender<ConnectionState>,
    deadline: Duration,
    namespace: String,
    declare: Declare,
}

impl AmqpConnection {
    /// Wraps two open connections of lapin.
    pub(super) fn new(publishing: lapin::Connection, consuming: lapin::Connection, settings: &BrokerSettings) -> Self {
        let (state, _) = watch::channel(ConnectionState::Open);
        for connection in [&publishing, &consuming] {
            tokio::spawn(follow_events(connection.events_listener().boxed(), state.clone()));
        }
        let deadline = Duration::from_millis(settings.confirm_timeout_ms);
        let BrokerSettings { namespace, declare, .. } = settings.clone();
        let (publishing, consuming) = (Arc::new(publishing), Arc::new(consuming));
        Self { publishing, consuming, state, deadline, namespace, declare }
    }

    /// Declares a temporary queue that ends with the connection. RabbitMQ 4.3 refuses transient queues that are not
    /// exclusive.
    async fn temporary_queue(&self, channel: &Channel) -> Result<String, BrokerError> {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let declared = channel.queue_declare(short(""), options, FieldTable::default());
        let queue = within(self.deadline, "declaring a temporary queue", declared).await?;
        Ok(queue.name().to_string())
    }

    async fn start(
        &self,
        channel: Channel,
        queue: &str,
        prefetch: Option<u16>,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        let consuming = Consuming::start(channel, queue, prefetch, self.deadline).await?;
        Ok(Box::new(AmqpConsumer { consuming, namespace: self.namespace.clone() }))
    }
}

#[async_trait]
impl Connection for AmqpConnection {
    async fn declare(&self) -> Result<(), BrokerError> {
        let topology = Topology::of_fleet(&self.namespace);
        if self.declare != Declare::Never {
            match declare::declare(&self.consuming, self.deadline, &topology).await {
                // The user of a worker has no permission to declare, and needs none.
                Err(BrokerError::Refused(why)) if self.declare == Declare::Auto => {
                    tracing::debug!(why, "this user may not declare; checking that the topology exists");
                }
                declared => return declared,
            }
        }
        declare::check(&self.consuming, self.deadline, &topology).await
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        let channel = publisher::confirming(&self.publishing, self.deadline).await?;
        let (connection, state) = (Arc::clone(&self.publishing), self.state.subscribe());
        Ok(Box::new(publisher::AmqpPublisher::start(connection, channel, state, self.deadline, self.namespace.clone())))
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let channel = operation::channel(&self.consuming, self.deadline).await?;
        self.start(channel, &format!("{}{queue}", self.namespace), Some(prefetch)).await
    }

    async fn subscribe(&self, exchange: &str, pattern: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let channel = operation::channel(&self.consuming, self.deadline).await?;
        let queue = self.temporary_queue(&channel).await?;
        let pattern = convert::routing_key(&self.namespace, exchange, pattern);
        let exchange = format!("{}{exchange}", self.namespace);
        let bound = channel.queue_bind(
            short(&queue),
            short(&exchange),
            short(&pattern),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(self.deadline, &format!("binding to {exchange}"), bound).await?;
        self.start(channel, &queue, Some(prefetch)).await
    }

    async fn reply_queue(&self) -> Result<(String, Box<dyn Consumer>), BrokerError> {
        let channel = operation::channel(&self.consuming, self.deadline).await?;
        let queue = self.temporary_queue(&channel).await?;
        let consumer = self.start(channel, &queue, None).await?;
        Ok((queue, consumer))
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        let (connection, name) = (Arc::clone(&self.consuming), format!("{}{queue}", self.namespace));
        Ok(Box::new(browser::AmqpBrowser::new(connection, &name, self.namespace.clone(), self.deadline)))
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let channel = operation::channel(&self.consuming, self.deadline).await?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let name = format!("{}{queue}", self.namespace);
        let declared = channel.queue_declare(short(&name), options, FieldTable::default());
        let declared = within(self.deadline, &format!("looking at {name}"), declared).await?;
        let depth = convert::depth(&declared);
        within(self.deadline, "closing a channel", channel.close(200, short("looked"))).await?;
        Ok(depth)
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    async fn close(&self) {
        for connection in [&self.consuming, &self.publishing] {
            // If this fails, the broker notices the end by itself.
            let _ = within(Duration::from_secs(2), "closing", connection.close(200, short("goodbye"))).await;
        }
    }
}
