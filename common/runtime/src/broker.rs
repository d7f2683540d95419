//! The port to a message broker: what the runtime needs of one, and nothing more.
//!
//! Two brokers stand behind it, [`super::amqp`] and [`super::memory`]; one conformance suite (`tests/`) holds both to the
//! words written here.

use async_trait::async_trait;
use bytes::Bytes;
use common::{envelope::Properties, exchange, outcome::Outgoing};
use futures::stream::{self, Stream};
use tokio::sync::watch;

/// The largest body RabbitMQ takes since 4.0.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reason of a message that is larger, or whose answer is.
pub const MESSAGE_TOO_LARGE: &str = "message_too_large";

/// What both brokers refuse by its size. Retries and dead letters pass, whatever it is: they came from the broker, and
/// brokers before 4.0 take up to 128 MiB from others.
pub(super) fn check_size(message: &Outgoing) -> Result<(), PublishError> {
    let bytes = message.body.len();
    let came_from_there = [exchange::RETRY, exchange::DEAD].contains(&message.exchange);
    if bytes > MESSAGE_BYTES_MAX && !came_from_there { Err(PublishError::TooLarge { bytes }) } else { Ok(()) }
}

/// A broker one can connect to.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Connects once, under a deadline. `name` shows in the broker's own list of connections.
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, BrokerError>;

    /// What it is, for logs; without credentials.
    fn describe(&self) -> String;
}

/// An open connection. Dropping it gives every unacknowledged delivery back.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Declares the fleet's topology; changes nothing where it is there already.
    async fn declare(&self) -> Result<(), BrokerError>;

    /// A publisher whose confirms are on.
    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError>;

    /// Reads a work queue; at most `prefetch` deliveries are unacknowledged at any time.
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Reads what is published to `exchange` with a matching routing key from now on, through a temporary queue that
    /// ends with the connection.
    async fn subscribe(&self, exchange: &str, pattern: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError>;

    /// A temporary queue for answers, with its name for `reply_to`. Deliveries count as acknowledged.
    async fn reply_queue(&self) -> Result<(String, Box<dyn Consumer>), BrokerError>;

    /// Looks through a queue without taking anything from it.
    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError>;

    /// How many messages wait in a queue, how many consumers it has, and what else the broker tells of it.
    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError>;

    /// Whether publishing is possible right now; changes are seen by every receiver.
    fn state(&self) -> watch::Receiver<ConnectionState>;

    /// Says goodbye; errors are of no consequence.
    async fn close(&self);
}

/// Publishes; shared by any number of tasks.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Publishes one message and waits until the broker has taken responsibility for it. Waits, too, while the broker
    /// is blocked by an alarm.
    async fn publish(&self, message: Outgoing) -> Result<(), PublishError>;
}

/// Deliveries, one after the other.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery; an error when there can be none any more. Whoever stops waiting loses none.
    async fn next(&mut self) -> Result<Delivery, BrokerError>;

    /// No more deliveries: those that came and were not asked for go back into the queue, those that were handed out can
    /// still be settled while the consumer lives.
    async fn cancel(&mut self) -> Result<(), BrokerError>;
}

/// Messages of a queue, one after the other, each once. What is not acknowledged stays where it is; meanwhile nobody else
/// sees it, and each look counts towards the broker's delivery limit.
#[async_trait]
pub trait Browser: Send {
    /// The next message; `None` when no more are ready.
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError>;

    /// Gives back, in whatever order, what was looked at and not acknowledged. Dropping it does the same, later.
    async fn close(self: Box<Self>) -> Result<(), BrokerError>;
}

/// The deliveries of a consumer as a stream, for who listens to several; it ends with the first error.
pub fn deliveries(consumer: Box<dyn Consumer>) -> impl Stream<Item = Result<Delivery, BrokerError>> {
    stream::try_unfold(consumer, |mut consumer| async {
        let delivery = consumer.next().await?;
        Ok(Some((delivery, consumer)))
    })
}

/// Settles one delivery. Dropping it unsettled leaves the message unacknowledged: the broker delivers it again once
/// the connection ends.
#[async_trait]
pub trait Settle: Send + Sync {
    /// The message is done with.
    async fn ack(self: Box<Self>) -> Result<(), BrokerError>;
    /// Back into the queue; counted by the broker's delivery limit.
    async fn requeue(self: Box<Self>) -> Result<(), BrokerError>;
}

/// A message as it came.
pub struct Delivery {
    /// Its properties.
    pub properties: Properties,
    /// Its body.
    pub body: Bytes,
    /// The exchange it came through, by its logical name.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Whether the broker knows that it was delivered before.
    pub redelivered: bool,
    /// Settles it.
    pub settle: Box<dyn Settle>,
}

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages ready for delivery.
    pub messages: u64,
    /// Consumers.
    pub consumers: u64,
    /// Messages delivered and not settled yet; `None` from a broker that does not tell.
    pub unacknowledged: Option<u64>,
    /// Messages settled since the broker started, so that two looks give a rate; `None` from a broker that does not tell.
    pub acknowledged_total: Option<u64>,
}

/// Whether a connection can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// It can.
    Open,
    /// The broker takes no publishes for now (an alarm), for this reason.
    Blocked(String),
    /// It is gone, for this reason.
    Closed(String),
}

/// Why a publish did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue is full: try again later. This is how a slow stage pushes back.
    #[error("the broker refused the message: the queue is full")]
    Refused,
    /// No queue takes it: the topology is not what it should be.
    #[error(
        "no queue takes {routing_key:?} from exchange {exchange:?}: a binding is missing; `wildrydes topology apply` makes it anew, \
         `wildrydes doctor` names it"
    )]
    Unroutable {
        /// Exchange.
        exchange: String,
        /// Routing key.
        routing_key: String,
    },
    /// The broker does not let this user publish there: a permission is missing.
    #[error(
        "this user may not publish {routing_key:?} to exchange {exchange:?}: {why}. `wildrydes topology users` prints what each \
         user needs, `wildrydes doctor` checks it"
    )]
    Denied {
        /// Exchange.
        exchange: String,
        /// Routing key.
        routing_key: String,
        /// As the broker says it, with the user.
        why: String,
    },
    /// No broker takes it: it would close the channel and with it everything that is under way.
    #[error(
        "a message of {bytes} bytes is more than the {MESSAGE_BYTES_MAX} a broker takes; put large batches into the object \
         store and publish a reference, ask for fewer scores at once, or cut smaller chunks (splitter.chunk_size)"
    )]
    TooLarge {
        /// Size of the body.
        bytes: usize,
    },
    /// The connection was lost, or no confirm came in time; the message may or may not have arrived.
    #[error("no confirm: {0}")]
    Unconfirmed(String),
}

/// Why a broker cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Lost, unreachable, or too slow: connecting again may help.
    #[error("{0}")]
    Lost(String),
    /// The broker has something else under that name than the topology says.
    #[error("{what} is there already with other arguments. {details}")]
    Mismatch {
        /// Queue or exchange.
        what: String,
        /// Both sides, and the way out.
        details: String,
    },
    /// Refused for good: credentials, permissions, protocol.
    #[error("{0}")]
    Refused(String),
}
