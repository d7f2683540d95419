//! RabbitMQ behind the port, through lapin: the only place that names it.
//!
//! Two TCP connections a process: one publishes, one consumes, because a broker under an alarm stops reading from the
//! connection that publishes, acknowledgements included. No automatic recovery: when anything breaks, the caller
//! connects anew, declares and consumes from the top. Every await has a deadline.

mod browser;
mod consumer;
mod convert;
mod declare;
mod inspect;
mod legible;
mod publisher;
mod tls;
mod transport;

use super::broker::{
    Broker, BrokerError, Browser, Connection, ConnectionState, Consumer, Delivery, Depth, Publisher, Settle,
};
use super::config::{BrokerSettings, Declare};
use async_trait::async_trait;
use common::topology::Topology;
use consumer::{AmqpConsumer, Consuming};
use convert::short;
use futures::StreamExt;
pub use inspect::Presence;
use lapin::{
    Channel, ConnectionProperties, ErrorKind, Event,
    options::{
        BasicAckOptions, BasicRejectOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    protocol::AMQPErrorKind,
    types::FieldTable,
    uri::{AMQPScheme, AMQPUri},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Seconds between heartbeats unless the URL says otherwise (`?heartbeat=30`); after two without a word either side takes
/// the connection for dead. The broker proposes 60, with which a consumer would sit beside a dead wire for two minutes.
const HEARTBEAT_S: u16 = 10;

/// A RabbitMQ broker.
#[derive(Debug, Clone)]
pub struct AmqpBroker {
    settings: BrokerSettings,
}

impl AmqpBroker {
    /// The broker the settings name. Nothing is connected yet.
    pub fn new(settings: BrokerSettings) -> Self {
        Self { settings }
    }

    async fn open(&self, name: &str) -> Result<lapin::Connection, BrokerError> {
        let deadline = Duration::from_millis(self.settings.connect_timeout_ms);
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .configure_backoff(|backoff| backoff.with_max_times(0));
        let uri = self.uri()?;
        let connector = match uri.scheme {
            AMQPScheme::AMQPS => Some(tls::connector(&self.settings)?),
            AMQPScheme::AMQP => None,
        };
        let connecting = tls::connect(uri, connector, properties);
        let error = match tokio::time::timeout(deadline, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => match tls::refusal(&error) {
                Some(why) => BrokerError::Refused(why),
                None => translate("connecting", error),
            },
            Err(_) => BrokerError::Lost(format!("connecting: no answer within {} ms", deadline.as_millis())),
        };
        let place = &self.settings.url;
        Err(match error {
            BrokerError::Lost(why) => BrokerError::Lost(format!("{place}: {why}")),
            BrokerError::Refused(why) => BrokerError::Refused(format!("{place}: {why}")),
            other => other,
        })
    }

    /// The address, with the password where a file holds it.
    fn uri(&self) -> Result<AMQPUri, BrokerError> {
        let mut uri = self.uri_as_given()?;
        if let Some(file) = &self.settings.password_file {
            let wrong = |why: String| BrokerError::Refused(format!("broker.password_file = {file}: {why}"));
            let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
            let password = text.trim_end_matches(['\r', '\n']);
            if password.is_empty() || password.contains('\n') {
                return Err(wrong("expected the password in its one line".to_owned()));
            }
            password.clone_into(&mut uri.authority.userinfo.password);
        }
        Ok(uri)
    }

    /// The virtual host the address names.
    ///
    /// # Errors
    /// When the address cannot be read.
    pub fn virtual_host(&self) -> Result<String, BrokerError> {
        Ok(self.uri_as_given()?.vhost)
    }

    fn uri_as_given(&self) -> Result<AMQPUri, BrokerError> {
        let url = &self.settings.url;
        // The parser's own words may hold the password.
        let unreadable = |_| BrokerError::Refused(format!("broker.url = {url}: expected amqp://user@host:5672/vhost"));
        let mut uri: AMQPUri = url.reveal().parse().map_err(unreadable)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        Ok(uri)
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, BrokerError> {
        let publishing = self.open(&format!("{name} (publishing)")).await?;
        let consuming = self.open(&format!("{name} (consuming)")).await?;
        let (state, _) = watch::channel(ConnectionState::Open);
        for connection in [&publishing, &consuming] {
            tokio::spawn(follow_events(connection.events_listener().boxed(), state.clone()));
        }
        let deadline = Duration::from_millis(self.settings.confirm_timeout_ms);
        let BrokerSettings { namespace, declare, .. } = self.settings.clone();
        let (publishing, consuming) = (Arc::new(publishing), Arc::new(consuming));
        Ok(Box::new(AmqpConnection { publishing, consuming, state, deadline, namespace, declare }))
    }

    fn describe(&self) -> String {
        self.settings.url.to_string()
    }
}

/// lapin's events do not fan out: this one listener tells the others.
async fn follow_events(mut events: futures::stream::BoxStream<'static, Event>, state: watch::Sender<ConnectionState>) {
    while let Some(event) = events.next().await {
        let next = match event {
            Event::ConnectionBlocked(reason) => ConnectionState::Blocked(reason),
            Event::ConnectionUnblocked => ConnectionState::Open,
            // The end of one channel, which whoever used it learns there.
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

struct AmqpConnection {
    publishing: Arc<lapin::Connection>,
    consuming: Arc<lapin::Connection>,
    state: watch::Sender<ConnectionState>,
    deadline: Duration,
    namespace: String,
    declare: Declare,
}

impl AmqpConnection {
    async fn channel(&self, connection: &lapin::Connection) -> Result<Channel, BrokerError> {
        within(self.deadline, "opening a channel", connection.create_channel()).await
    }

    /// A queue of our own that ends with the connection. 4.3 refuses transient queues that are not exclusive.
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
            match declare::declare(self, &topology).await {
                // A worker's own user may not, and need not.
                Err(BrokerError::Refused(why)) if self.declare == Declare::Auto => {
                    tracing::debug!(why, "this user declares nothing; looking whether all is there");
                }
                declared => return declared,
            }
        }
        declare::look(self, &topology).await
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        let channel = publisher::confirming(&self.publishing, self.deadline).await?;
        let (connection, state) = (Arc::clone(&self.publishing), self.state.subscribe());
        Ok(Box::new(publisher::AmqpPublisher::start(connection, channel, state, self.deadline, self.namespace.clone())))
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let channel = self.channel(&self.consuming).await?;
        self.start(channel, &format!("{}{queue}", self.namespace), Some(prefetch)).await
    }

    async fn subscribe(&self, exchange: &str, pattern: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let channel = self.channel(&self.consuming).await?;
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
        let channel = self.channel(&self.consuming).await?;
        let queue = self.temporary_queue(&channel).await?;
        let consumer = self.start(channel, &queue, None).await?;
        Ok((queue, consumer))
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        let (connection, name) = (Arc::clone(&self.consuming), format!("{}{queue}", self.namespace));
        Ok(Box::new(browser::AmqpBrowser::new(connection, &name, self.namespace.clone(), self.deadline)))
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let channel = self.channel(&self.consuming).await?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let name = format!("{}{queue}", self.namespace);
        let declared = channel.queue_declare(short(&name), options, FieldTable::default());
        let found = within(self.deadline, &format!("looking at {name}"), declared).await?;
        let depth = inspect::depth(&found);
        within(self.deadline, "closing a channel", channel.close(200, short("looked"))).await?;
        Ok(depth)
    }

    fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    async fn close(&self) {
        for connection in [&self.consuming, &self.publishing] {
            // The broker notices by itself if the goodbye does not get through.
            let _ = within(Duration::from_secs(2), "closing", connection.close(200, short("goodbye"))).await;
        }
    }
}

/// A delivery with the names it has within the fleet.
fn delivered(delivery: lapin::message::Delivery, namespace: &str, deadline: Duration, no_ack: bool) -> Delivery {
    let settle = AmqpSettle { acker: (!no_ack).then_some(delivery.acker), deadline };
    let plain = |name: &str| convert::told(name.strip_prefix(namespace).unwrap_or(name));
    let exchange = plain(delivery.exchange.as_str());
    let routing_key = match convert::routes_by_queue(&exchange) {
        true => plain(delivery.routing_key.as_str()),
        false => convert::told(delivery.routing_key.as_str()),
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

/// `Ok(false)` means the channel had died and nothing was settled.
fn settled(reached_the_broker: bool) -> Result<(), BrokerError> {
    match reached_the_broker {
        true => Ok(()),
        false => Err(BrokerError::Lost("the channel closed before the delivery was settled".to_owned())),
    }
}

impl AmqpBroker {
    /// Deletes the fleet's exchanges and queues with all that is in them: for benchmarks and tests that made their own.
    ///
    /// # Errors
    /// When the broker cannot be used.
    pub async fn remove_topology(&self) -> Result<(), BrokerError> {
        let connection = self.open("removing a topology").await?;
        let deadline = Duration::from_millis(self.settings.confirm_timeout_ms);
        let channel = within(deadline, "opening a channel", connection.create_channel()).await?;
        let topology = Topology::of_fleet(&self.settings.namespace);
        for queue in &topology.queues {
            let deleted = channel.queue_delete(short(&queue.name), QueueDeleteOptions::default());
            within(deadline, &format!("deleting queue {}", queue.name), deleted).await?;
        }
        for exchange in &topology.exchanges {
            let deleted = channel.exchange_delete(short(&exchange.name), ExchangeDeleteOptions::default());
            within(deadline, &format!("deleting exchange {}", exchange.name), deleted).await?;
        }
        within(deadline, "closing", connection.close(200, short("goodbye"))).await
    }
}

/// Awaits an AMQP operation under a deadline.
async fn within<T>(
    deadline: Duration,
    what: &str,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(deadline, operation).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(translate(what, error)),
        Err(_) => Err(BrokerError::Lost(format!("{what}: no answer within {} ms", deadline.as_millis()))),
    }
}

fn translate(what: &str, error: lapin::Error) -> BrokerError {
    /// AMQP reply codes after which trying again as before cannot help (AMQP 0-9-1 §1.2).
    const FOR_GOOD: [u16; 3] = [402, 403, 530];
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if FOR_GOOD.contains(&amqp.get_id()) => {
            BrokerError::Refused(format!("{what}: {}", amqp.get_message()))
        }
        _ => BrokerError::Lost(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{AmqpBroker, BrokerSettings};
    use crate::config::AmqpUrl;

    #[test]
    fn a_url_keeps_the_heartbeat_it_names() {
        for (given, expected) in [
            ("amqp://host", 10),
            ("amqp://host/%2f?frame_max=8192", 10),
            ("amqp://host/%2f?frame_max=8192&heartbeat=3", 3),
        ] {
            let settings = BrokerSettings { url: AmqpUrl::new(given), ..BrokerSettings::default() };
            assert_eq!(AmqpBroker::new(settings).uri().unwrap().query.heartbeat, Some(expected), "{given}");
        }
    }
}
