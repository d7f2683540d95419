//! The gateway's one connection to the broker. It reconnects whenever the connection is lost.

use crate::http::problem::{Problem, error_chain};
use common::topology::{process, process_of, queue};
use runtime::{
    Broker, Shutdown,
    backoff::Backoff,
    broker::ConnectionState,
    client::{Client, ClientError},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Interval between two counts of the consumers of the request queues.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// First and longest pause between two attempts to connect.
const CONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Whether the broker is connected.
#[derive(Clone)]
pub(crate) enum Reach {
    /// No; the reason.
    Away(String),
    /// Yes, through this client.
    Up(Arc<Client>),
}

/// The state of the broker, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BrokerState {
    Open,
    Blocked(String),
    Away(String),
}

/// The connection.
pub(crate) struct Link {
    reach: watch::Receiver<Reach>,
    consumers: Arc<Consumers>,
    /// Late answers of earlier connections.
    late_answers: Arc<AtomicU64>,
    name: String,
}

/// Number of consumers of the request queues at the last count; `u64::MAX` before the first.
struct Consumers {
    scorer: AtomicU64,
    weather: AtomicU64,
}

impl Link {
    /// Connects and reconnects in the background until `shutdown`.
    pub(crate) fn start(broker: Arc<dyn Broker>, shutdown: Shutdown) -> Self {
        let (state, reach) = watch::channel(Reach::Away("not connected yet".to_owned()));
        let consumers = Arc::new(Consumers { scorer: AtomicU64::new(u64::MAX), weather: AtomicU64::new(u64::MAX) });
        let late_answers = Arc::new(AtomicU64::new(0));
        let name = broker.describe();
        tokio::spawn(keep(broker, state, Arc::clone(&consumers), Arc::clone(&late_answers), shutdown));
        Self { reach, consumers, late_answers, name }
    }

    /// Returns the broker's address without credentials.
    pub(crate) fn broker_name(&self) -> &str {
        &self.name
    }

    /// Returns the current state of the broker.
    pub(crate) fn broker_state(&self) -> BrokerState {
        match &*self.reach.borrow() {
            Reach::Away(why) => BrokerState::Away(why.clone()),
            Reach::Up(client) => match &*client.state().borrow() {
                ConnectionState::Open => BrokerState::Open,
                ConnectionState::Blocked(why) => BrokerState::Blocked(why.clone()),
                ConnectionState::Closed(why) => BrokerState::Away(why.clone()),
            },
        }
    }

    /// Returns a receiver that changes with every connection made or lost.
    pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.clone()
    }

    /// Returns the client, even while the broker blocks publishers.
    pub(crate) fn reader(&self) -> Result<Arc<Client>, Problem> {
        match &*self.reach.borrow() {
            Reach::Up(client) => Ok(Arc::clone(client)),
            Reach::Away(why) => Err(away(why)),
        }
    }

    /// Returns the client if it can publish now.
    pub(crate) fn publisher(&self) -> Result<Arc<Client>, Problem> {
        match self.broker_state() {
            BrokerState::Open => self.reader(),
            BrokerState::Away(why) => Err(away(&why)),
            BrokerState::Blocked(why) => {
                let detail = format!("the broker accepts no messages now ({why}); nothing was lost, try again");
                Err(Problem::unavailable("broker-blocked", detail))
            }
        }
    }

    /// Returns the client if `queue` (one of the request queues) has a consumer.
    pub(crate) fn requester(&self, queue: &'static str) -> Result<Arc<Client>, Problem> {
        let client = self.publisher()?;
        if self.reads(queue) { Ok(client) } else { Err(no_consumer(queue)) }
    }

    /// Returns whether `queue` had a consumer at the last count.
    pub(crate) fn reads(&self, queue: &'static str) -> bool {
        let consumers = if queue == queue::SCORER { &self.consumers.scorer } else { &self.consumers.weather };
        consumers.load(Ordering::Relaxed) > 0
    }

    /// Returns the number of answers that arrived after their deadline.
    pub(crate) fn late_answers(&self) -> u64 {
        let now = if let Reach::Up(client) = &*self.reach.borrow() { client.late_answers() } else { 0 };
        self.late_answers.load(Ordering::Relaxed) + now
    }
}

async fn keep(
    broker: Arc<dyn Broker>,
    state: watch::Sender<Reach>,
    consumers: Arc<Consumers>,
    late_answers: Arc<AtomicU64>,
    shutdown: Shutdown,
) {
    let mut pauses = Backoff::new(CONNECT_PAUSE.0, CONNECT_PAUSE.1);
    let mut logged = String::new();
    loop {
        let connected = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            connected = Client::connect(broker.as_ref(), process::GATEWAY.name) => connected,
        };
        let why = match connected {
            Ok(client) => {
                tracing::info!(broker = broker.describe(), "connected");
                pauses = Backoff::new(CONNECT_PAUSE.0, CONNECT_PAUSE.1);
                logged.clear();
                let client = Arc::new(client);
                // Consumers are counted first, so that no request waits for an answer that cannot come.
                let _ = tokio::time::timeout(COUNT_EVERY, count_consumers(&client, &consumers)).await;
                state.send_replace(Reach::Up(Arc::clone(&client)));
                let why = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    why = until_lost(&client, &consumers) => why,
                };
                late_answers.fetch_add(client.late_answers(), Ordering::Relaxed);
                tracing::warn!(why, "lost the connection to the broker; refusing requests until it is back");
                why
            }
            Err(error) => {
                let why = error_chain(&error);
                if why != logged {
                    tracing::warn!(why, "cannot connect to the broker; retrying");
                    logged.clone_from(&why);
                }
                why
            }
        };
        state.send_replace(Reach::Away(why));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pauses.next_pause()) => {}
        }
    }
}

/// Counts the consumers of the request queues.
async fn count_consumers(client: &Client, consumers: &Consumers) {
    for (queue, consumers) in [(queue::SCORER, &consumers.scorer), (queue::WEATHER_LOOKUP, &consumers.weather)] {
        if let Ok(depth) = client.depth(queue).await {
            consumers.store(depth.consumers, Ordering::Relaxed);
        }
    }
}

/// Counts the consumers at intervals until the connection is lost. Returns why it was lost.
async fn until_lost(client: &Client, consumers: &Consumers) -> String {
    let mut state = client.state();
    let counting = async {
        loop {
            tokio::time::sleep(COUNT_EVERY).await;
            count_consumers(client, consumers).await;
        }
    };
    tokio::select! {
        biased;
        lost = state.wait_for(|now| matches!(now, ConnectionState::Closed(_))) => match lost.as_deref() {
            Ok(ConnectionState::Closed(why)) => why.clone(),
            _ => "the connection is gone".to_owned(),
        },
        never = counting => never,
    }
}

fn away(why: &str) -> Problem {
    let detail = format!("the broker cannot be reached ({why}); the gateway reconnects by itself");
    Problem::unavailable("broker-away", detail)
}

fn no_consumer(queue: &str) -> Problem {
    let worker = process_of(queue);
    Problem::unavailable(&format!("no-{worker}"), format!("no {worker} is running; start one, and try again"))
}

/// Returns the problem of a request over the queues that failed. `asked` names the worker.
pub(crate) fn request_failed(error: &ClientError, asked: &str) -> Problem {
    match error {
        ClientError::NoAnswer { .. } => Problem::no_answer(format!("waited for {asked}: {error}")),
        ClientError::Broker(_) | ClientError::Publish(_) | ClientError::Blocked { .. } => {
            let detail = format!("asking {asked}: {}; nothing was changed, try again", error_chain(error));
            Problem::unavailable("broker-away", detail)
        }
        ClientError::Unencodable(_) => Problem::too_large(error_chain(error)),
        ClientError::Undecodable(_) => {
            Problem::internal(format!("the answer of {asked} cannot be read: {}", error_chain(error)))
        }
    }
}
