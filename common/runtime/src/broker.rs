//! The port to a message broker: the operations that the runtime needs.
//!
//! Two brokers implement it, [`super::amqp`] and [`super::memory`]. One conformance suite
//! (`tests/interfaces/conformance`) checks that both behave as documented here.

use async_trait::async_trait;
use bytes::Bytes;
use common::{envelope::Properties, exchange, outcome::Outgoing};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::watch;

/// Maximum size of a body in bytes; the limit of RabbitMQ since 4.0.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reason of a dead letter: the message or one of its outputs exceeds [`MESSAGE_BYTES_MAX`].
pub const MESSAGE_TOO_LARGE: &str = "message_too_large";

/// Refuses a message that is too large. Retries and dead letters of any size pass: they come from the broker, and
/// brokers before 4.0 accept up to 128 MiB from other publishers.
pub(super) fn check_size(message: &Outgoing) -> Result<(), PublishError> {
    let bytes = message.body.len();
    let is_republished = [exchange::RETRY, exchange::DEAD].contains(&message.exchange);
    if bytes > MESSAGE_BYTES_MAX && !is_republished { Err(PublishError::TooLarge { bytes }) } else { Ok(()) }
}

/// A message broker.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Connects once, with a deadline. `name` appears in the broker's list of connections.
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, BrokerError>;

    /// Returns a description for logs, without credentials.
    fn describe(&self) -> String;
}

/// An open connection. Dropping it requeues every unacknowledged delivery.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Declares the missing parts of the fleet's topology.
    async fn declare(&self) -> Result<(), BrokerError>;

    /// Returns a publisher with confirms.
    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError>;

    /// Consumes a work queue with at most `prefetch` unacknowledged deliveries.
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Receives the messages published from now on to `exchange` with a routing key that matches `pattern`. They arrive
    /// through a temporary queue, which the broker deletes when the connection ends.
    async fn subscribe(&self, exchange: &str, pattern: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Declares a temporary queue for answers and returns its name for `reply_to`. Its deliveries need no
    /// acknowledgement.
    async fn reply_queue(&self) -> Result<(String, Box<dyn Consumer>), BrokerError>;

    /// Browses a queue without removing messages.
    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError>;

    /// Returns the counts of a queue.
    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError>;

    /// Returns a receiver of the connection's newest state; it may miss a state that lasted only briefly.
    fn state(&self) -> watch::Receiver<ConnectionState>;

    /// Closes the connection and ignores errors.
    async fn close(&self);
}

/// Publishes messages; any number of tasks may share it.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Publishes one message and waits for the broker's confirm. Also waits while an alarm blocks publishes.
    async fn publish(&self, message: Outgoing) -> Result<(), PublishError>;
}

/// Returns deliveries one by one.
#[async_trait]
pub trait Consumer: Send {
    /// Returns the next delivery. Fails if the consumer has ended. Cancel-safe: a dropped future loses no delivery.
    async fn next(&mut self) -> Result<Delivery, BrokerError>;

    /// Stops deliveries. Those that [`Self::next`] did not return go back to the queue; the others can be settled as
    /// long as the consumer exists.
    async fn cancel(&mut self) -> Result<(), BrokerError>;
}

/// Returns the messages of a queue one by one, each once. Unacknowledged messages stay in the queue; other consumers do
/// not see them meanwhile. Each browse of a message counts towards the broker's delivery limit.
#[async_trait]
pub trait Browser: Send {
    /// Returns the next message; `None` if no more are ready.
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError>;

    /// Requeues the unacknowledged messages, in any order. Dropping the browser does the same later.
    async fn close(self: Box<Self>) -> Result<(), BrokerError>;
}

/// Returns the deliveries of a consumer as a stream, which ends after the first error.
pub fn deliveries(consumer: Box<dyn Consumer>) -> BoxStream<'static, Result<Delivery, BrokerError>> {
    let deliveries = stream::try_unfold(consumer, |mut consumer| async {
        let delivery = consumer.next().await?;
        Ok(Some((delivery, consumer)))
    });
    deliveries.boxed()
}

/// Settles one delivery. If it is dropped without settling, the message stays unacknowledged, and the broker delivers
/// it again after the connection ends.
#[async_trait]
pub trait Settle: Send + Sync {
    /// Acknowledges the message, which removes it from its queue.
    async fn ack(self: Box<Self>) -> Result<(), BrokerError>;
    /// Returns the message to its queue. This counts towards the broker's delivery limit.
    async fn requeue(self: Box<Self>) -> Result<(), BrokerError>;
}

/// A message from the broker.
pub struct Delivery {
    /// The properties of the message.
    pub properties: Properties,
    /// The body of the message.
    pub body: Bytes,
    /// Name of the exchange, without the namespace.
    pub exchange: String,
    /// Routing key; without the namespace if it names a queue.
    pub routing_key: String,
    /// Whether the broker delivered the message before.
    pub redelivered: bool,
    /// Acknowledges or requeues the delivery.
    pub settle: Box<dyn Settle>,
}

/// Counts of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Number of messages ready for delivery.
    pub messages: u64,
    /// Number of consumers.
    pub consumers: u64,
    /// Number of delivered and unsettled messages; `None` if the broker does not report it.
    pub unacknowledged: Option<u64>,
    /// Number of messages acknowledged since the broker started, from which callers compute a rate; `None` if the
    /// broker does not report it.
    pub acknowledged_total: Option<u64>,
}

/// State of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// The connection can be used.
    Open,
    /// The broker blocks publishes because of an alarm, for this reason.
    Blocked(String),
    /// The connection is closed, for this reason.
    Closed(String),
}

/// Why a publish failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue is full; a later retry may succeed. In this way a slow stage exerts back-pressure.
    #[error("the broker refused the message: the queue is full")]
    Refused,
    /// No queue takes the message: a binding is missing.
    #[error(
        "no queue takes {routing_key:?} from exchange {exchange:?}: a binding is missing; `wildrydes topology apply` restores it, \
         `wildrydes doctor` names it"
    )]
    Unroutable {
        /// Name of the exchange.
        exchange: String,
        /// Routing key of the message.
        routing_key: String,
    },
    /// The user has no permission to publish to the exchange with the routing key.
    #[error(
        "this user may not publish {routing_key:?} to exchange {exchange:?}: {why}. `wildrydes topology users` prints what each \
         user needs, `wildrydes doctor` checks it"
    )]
    Denied {
        /// Name of the exchange.
        exchange: String,
        /// Routing key of the message.
        routing_key: String,
        /// The broker's message, which names the user.
        why: String,
    },
    /// The body exceeds [`MESSAGE_BYTES_MAX`]. It is not sent, because the broker would close the channel with all
    /// unconfirmed publishes.
    #[error(
        "a message of {bytes} bytes is more than the {MESSAGE_BYTES_MAX} a broker takes; put large batches into the object \
         store and publish a reference, ask for fewer scores at once, or cut smaller chunks (splitter.chunk_size)"
    )]
    TooLarge {
        /// Size of the body in bytes.
        bytes: usize,
    },
    /// The connection was lost, or the confirm did not arrive in time; the message may have been published.
    #[error("no confirm: {0}")]
    Unconfirmed(String),
}

/// Why a broker cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The connection is lost, the broker is unreachable or too slow: a reconnect may help.
    #[error("{0}")]
    Lost(String),
    /// The broker has a queue or exchange of the same name with other arguments.
    #[error("{what} exists with other arguments. {details}")]
    Mismatch {
        /// The queue or exchange, for example `queue splitter`.
        what: String,
        /// Both values and the remedy.
        details: String,
    },
    /// The broker refuses permanently: credentials, permissions or protocol.
    #[error("{0}")]
    Refused(String),
}
