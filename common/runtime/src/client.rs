//! A client of a fleet, for the command line and the gateway: publishes messages and sends requests.

use super::{
    broker::{Broker, BrokerError, Browser, Connection, ConnectionState, Consumer, Depth, PublishError, Publisher},
    host,
    trace::{self, Span},
};
use common::{
    envelope::TRACEPARENT,
    message::{Message, ScoreRequest, ScoreResponse, Undecodable, WeatherRequest, WeatherResponse, decode},
    outcome::{Failure, Outgoing},
    topology::{process_of, queue},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

/// Why an operation of a client failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker cannot be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker did not accept the message.
    #[error("not published")]
    Publish(#[from] PublishError),
    /// The message cannot be encoded.
    #[error(transparent)]
    Unencodable(#[from] Failure),
    /// No worker answered in time.
    #[error("no answer within {} ms: is a {} running?", .after.as_millis(), process_of(.worker))]
    NoAnswer {
        /// Queue of the worker that should have answered.
        worker: &'static str,
        /// Time waited.
        after: Duration,
    },
    /// An alarm of the broker (memory or disk) blocked the request until the deadline.
    #[error("not asked within {} ms: the broker takes no publishes for now ({why}); `wildrydes doctor`, line alarms", .after.as_millis())]
    Blocked {
        /// The broker's message.
        why: String,
        /// Time waited.
        after: Duration,
    },
    /// The answer cannot be decoded.
    #[error("the answer cannot be read")]
    Undecodable(#[from] Undecodable),
}

type Waiting = Mutex<HashMap<String, oneshot::Sender<bytes::Bytes>>>;

/// A pending request; it is forgotten when its caller stops waiting.
struct Pending<'a> {
    waiting: &'a Waiting,
    id: String,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

/// A connection to a fleet.
pub struct Client {
    connection: Box<dyn Connection>,
    publisher: Box<dyn Publisher>,
    app_id: String,
    reply_to: String,
    waiting: Arc<Waiting>,
    late_answers: Arc<AtomicU64>,
    replies: JoinHandle<()>,
}

impl Client {
    /// Connects and declares the topology, so that publishes are routable.
    ///
    /// # Errors
    /// Fails if the broker cannot be used.
    pub async fn connect(broker: &dyn Broker, name: &str) -> Result<Self, ClientError> {
        let connection = broker.connect(name).await?;
        connection.declare().await?;
        let publisher = connection.publisher().await?;
        let (reply_to, mut consumer) = connection.reply_queue().await?;
        let (waiting, late_answers) = (Arc::<Waiting>::default(), Arc::<AtomicU64>::default());
        let (waiting_in_task, late) = (Arc::clone(&waiting), Arc::clone(&late_answers));
        let replies = tokio::spawn(async move {
            while let Ok(delivery) = consumer.next().await {
                let id = delivery.properties.correlation_id.unwrap_or_default();
                let pending = waiting_in_task.lock().remove(&id);
                // The caller may have stopped waiting at this moment.
                if pending.is_none_or(|answer| answer.send(delivery.body).is_err()) {
                    late.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(correlation_id = id, "an answer after the end of its request");
                }
            }
            // No further answer can arrive: all pending requests fail now.
            waiting_in_task.lock().clear();
        });
        let app_id = format!("{name}/{}", env!("CARGO_PKG_VERSION"));
        Ok(Self { connection, publisher, app_id, reply_to, waiting, late_answers, replies })
    }

    /// Publishes a message with a new trace. Returns the trace id after the broker's confirm.
    ///
    /// # Errors
    /// Fails if the broker does not accept the message.
    pub async fn publish<M: Message>(&self, message: &M) -> Result<String, ClientError> {
        let mut outgoing = Outgoing::message(message)?;
        let published = Span::publish(outgoing.exchange, &outgoing.routing_key, &trace::current());
        let trace = published.context();
        outgoing.properties.set_text(TRACEPARENT, trace.to_string());
        outgoing.properties.app_id = Some(self.app_id.clone());
        self.publisher.publish(outgoing).await?;
        Ok(trace.trace_id())
    }

    /// Returns a receiver of the connection's state.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.connection.state()
    }

    /// Requests scores and waits for the answer.
    ///
    /// # Errors
    /// Fails if no answer arrives within `deadline`, or the broker cannot be used. An answer with an error is not a
    /// failure.
    pub async fn score(&self, request: &ScoreRequest, deadline: Duration) -> Result<ScoreResponse, ClientError> {
        self.call(request, queue::SCORER, deadline).await
    }

    /// Requests the weather of places and waits for the answer.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub async fn weather(&self, request: &WeatherRequest, deadline: Duration) -> Result<WeatherResponse, ClientError> {
        self.call(request, queue::WEATHER_LOOKUP, deadline).await
    }

    /// Returns the number of answers that arrived after the end of their request.
    pub fn late_answers(&self) -> u64 {
        self.late_answers.load(Ordering::Relaxed)
    }

    /// Publishes a request and waits for the answer of `worker`. Dropping the future frees its resources.
    async fn call<Q: Message, A: Message>(
        &self,
        request: &Q,
        worker: &'static str,
        deadline: Duration,
    ) -> Result<A, ClientError> {
        let mut outgoing = Outgoing::message(request)?;
        // Not the request's id: a client may send the same request twice at once.
        let id = format!("{:032x}", host::random_range(0..=u128::MAX));
        outgoing.properties.correlation_id = Some(id.clone());
        outgoing.properties.reply_to = Some(self.reply_to.clone());
        outgoing.properties.expiration_ms = Some(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
        outgoing.properties.persistent = false;
        outgoing.properties.app_id = Some(self.app_id.clone());
        let published = Span::publish(outgoing.exchange, &outgoing.routing_key, &trace::current());
        outgoing.properties.set_text(TRACEPARENT, published.context().to_string());
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(id.clone(), sender);
        let _pending = Pending { waiting: &self.waiting, id };
        let exchange = async {
            self.publisher.publish(outgoing).await?;
            answer
                .await
                .map_err(|_| BrokerError::Lost("the connection was lost before the answer came".to_owned()).into())
        };
        let body = match tokio::time::timeout(deadline, exchange).await {
            Ok(done) => done,
            Err(_) => Err(match &*self.connection.state().borrow() {
                ConnectionState::Blocked(why) => ClientError::Blocked { why: why.clone(), after: deadline },
                _ => ClientError::NoAnswer { worker, after: deadline },
            }),
        };
        Ok(decode(&body?)?)
    }

    /// Subscribes to the messages published to an exchange from now on with a routing key that matches `pattern`, for
    /// example `dataset-ready.#`.
    ///
    /// # Errors
    /// Fails if the broker cannot be used.
    pub async fn listen(&self, exchange: &str, pattern: &str) -> Result<Box<dyn Consumer>, ClientError> {
        /// Maximum number of unacknowledged deliveries.
        const PREFETCH: u16 = 100;
        Ok(self.connection.subscribe(exchange, pattern, PREFETCH).await?)
    }

    /// Returns the counts of a queue.
    ///
    /// # Errors
    /// Fails if the broker cannot be used, or the queue does not exist.
    pub async fn depth(&self, queue: &str) -> Result<Depth, ClientError> {
        Ok(self.connection.depth(queue).await?)
    }

    /// Browses a queue without removing messages.
    ///
    /// # Errors
    /// Fails if the broker cannot be used. With RabbitMQ, a missing queue is reported when the first message is requested.
    pub async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, ClientError> {
        Ok(self.connection.browse(queue).await?)
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.replies.abort();
    }
}
