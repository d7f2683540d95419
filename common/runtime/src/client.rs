//! A publisher and requester: what the command line and the gateway use to talk to a fleet.

use super::{
    broker::{Broker, BrokerError, Browser, Connection, ConnectionState, Consumer, Depth, PublishError, Publisher},
    host,
    trace::TraceContext,
};
use common::{
    envelope::TRACEPARENT,
    message::{Message, ScoreRequest, ScoreResponse, Undecodable, WeatherRequest, WeatherResponse, decode},
    outcome::{Failure, Outgoing},
    topology::{process_of, queue},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

/// Why a request to the fleet has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker cannot be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker did not take the message.
    #[error("not published")]
    Publish(#[from] PublishError),
    /// The message cannot be written.
    #[error(transparent)]
    Unencodable(#[from] Failure),
    /// Nobody answered in time.
    #[error("no answer within {} ms: is a {} running?", .after.as_millis(), process_of(.worker))]
    NoAnswer {
        /// The worker that was waited for, by the name of its queue.
        worker: &'static str,
        /// For so long.
        after: Duration,
    },
    /// The broker is short of memory or disk, and the request was not published in time.
    #[error("not asked within {} ms: the broker takes no publishes for now ({why}); `wildrydes doctor`, line alarms", .after.as_millis())]
    Blocked {
        /// As the broker says it.
        why: String,
        /// For so long.
        after: Duration,
    },
    /// The answer cannot be read.
    #[error("the answer cannot be read")]
    Undecodable(#[from] Undecodable),
}

type Waiting = Mutex<HashMap<String, oneshot::Sender<bytes::Bytes>>>;

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, oneshot::Sender<bytes::Bytes>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A question that is waited for; with whoever waits it goes, too.
struct Asked<'a> {
    waiting: &'a Waiting,
    id: String,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.id);
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
    /// Connects and declares the topology, so that what is published has somewhere to go.
    ///
    /// # Errors
    /// When the broker cannot be used.
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
                let asked = lock(&waiting_in_task).remove(&id);
                // Whoever asked may have given up in this very moment.
                if asked.is_none_or(|answer| answer.send(delivery.body).is_err()) {
                    late.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(correlation_id = id, "an answer nobody waits for any more");
                }
            }
            // Nothing will be answered any more: whoever waits learns it now.
            lock(&waiting_in_task).clear();
        });
        let app_id = format!("{name}/{}", env!("CARGO_PKG_VERSION"));
        Ok(Self { connection, publisher, app_id, reply_to, waiting, late_answers, replies })
    }

    /// Publishes a message, starting a new trace; returns the trace id once the broker has taken the message.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub async fn publish<M: Message>(&self, message: &M) -> Result<String, ClientError> {
        let mut outgoing = Outgoing::message(message)?;
        let trace = TraceContext::new();
        outgoing.properties.set_text(TRACEPARENT, trace.to_string());
        outgoing.properties.app_id = Some(self.app_id.clone());
        self.publisher.publish(outgoing).await?;
        Ok(trace.trace_id())
    }

    /// Whether publishing is possible right now.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.connection.state()
    }

    /// Asks for scores and waits for the answer.
    ///
    /// # Errors
    /// When nobody answers within `deadline`, or the broker cannot be used. A typed error of the scorer is an answer.
    pub async fn score(&self, request: &ScoreRequest, deadline: Duration) -> Result<ScoreResponse, ClientError> {
        self.call(request, queue::SCORER, deadline).await
    }

    /// Asks for the weather of some places and waits for the answer.
    ///
    /// # Errors
    /// As [`Self::score`]: a typed error of the lookup is an answer.
    pub async fn weather(&self, request: &WeatherRequest, deadline: Duration) -> Result<WeatherResponse, ClientError> {
        self.call(request, queue::WEATHER_LOOKUP, deadline).await
    }

    /// How many answers came that nobody waited for any more.
    pub fn late_answers(&self) -> u64 {
        self.late_answers.load(Ordering::Relaxed)
    }

    /// Publishes a request and waits for the answer of `worker`. Whoever stops waiting leaves nothing behind.
    async fn call<Q: Message, A: Message>(
        &self,
        request: &Q,
        worker: &'static str,
        deadline: Duration,
    ) -> Result<A, ClientError> {
        let mut outgoing = Outgoing::message(request)?;
        // Not the request's id: the same request may be asked twice at once.
        let id = format!("{:032x}", host::random_range(0..=u128::MAX));
        outgoing.properties.correlation_id = Some(id.clone());
        outgoing.properties.reply_to = Some(self.reply_to.clone());
        outgoing.properties.expiration_ms = Some(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
        outgoing.properties.persistent = false;
        outgoing.properties.app_id = Some(self.app_id.clone());
        outgoing.properties.set_text(TRACEPARENT, TraceContext::new().to_string());
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).insert(id.clone(), answer);
        let _asked = Asked { waiting: &self.waiting, id };
        let exchange = async {
            self.publisher.publish(outgoing).await?;
            answered
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

    /// Listens to what is published to an exchange from now on; `pattern` as in `dataset-ready.#`.
    ///
    /// # Errors
    /// When the broker cannot be used.
    pub async fn listen(&self, exchange: &str, pattern: &str) -> Result<Box<dyn Consumer>, ClientError> {
        /// Deliveries held at most.
        const PREFETCH: u16 = 100;
        Ok(self.connection.subscribe(exchange, pattern, PREFETCH).await?)
    }

    /// What a queue holds.
    ///
    /// # Errors
    /// When the broker cannot be used, or there is no such queue.
    pub async fn depth(&self, queue: &str) -> Result<Depth, ClientError> {
        Ok(self.connection.depth(queue).await?)
    }

    /// Looks through a queue without taking anything from it.
    ///
    /// # Errors
    /// When the broker cannot be used. That there is no such queue, RabbitMQ says at the first look.
    pub async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, ClientError> {
        Ok(self.connection.browse(queue).await?)
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.replies.abort();
    }
}
