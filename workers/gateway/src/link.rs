//! The gateway's one connection to the fleet, made anew whenever it is lost.

use crate::http::problem::{Problem, reasons};
use common::topology::queue;
use runtime::{
    Broker, Shutdown,
    broker::ConnectionState,
    client::{Client, ClientError},
    host,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Between one look at who reads the request queues and the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to connect.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Whether the fleet can be reached.
#[derive(Clone)]
pub(crate) enum Reach {
    /// Not, and why.
    Away(String),
    /// Through this client.
    Up(Arc<Client>),
}

/// How the broker is, in a word and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BrokerState {
    Open,
    Blocked(String),
    Away(String),
}

/// The connection.
pub(crate) struct Link {
    reach: watch::Receiver<Reach>,
    readers: Arc<Readers>,
    /// Of connections that are gone.
    late_answers: Arc<AtomicU64>,
    name: String,
}

/// Who reads the request queues, as of the last look; `u64::MAX` before the first.
struct Readers {
    scorer: AtomicU64,
    weather: AtomicU64,
}

impl Link {
    /// Connects in the background, again and again, until `shutdown`.
    pub(crate) fn start(broker: Arc<dyn Broker>, shutdown: Shutdown) -> Self {
        let (state, reach) = watch::channel(Reach::Away("not connected yet".to_owned()));
        let readers = Arc::new(Readers { scorer: AtomicU64::new(u64::MAX), weather: AtomicU64::new(u64::MAX) });
        let late_answers = Arc::new(AtomicU64::new(0));
        let name = broker.describe();
        tokio::spawn(keep(broker, state, Arc::clone(&readers), Arc::clone(&late_answers), shutdown));
        Self { reach, readers, late_answers, name }
    }

    /// What the broker is called, without credentials.
    pub(crate) fn broker_name(&self) -> &str {
        &self.name
    }

    /// How the broker is at this moment.
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

    /// Told of every connection made or lost.
    pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.clone()
    }

    /// The client, whatever the broker's alarms say.
    pub(crate) fn reader(&self) -> Result<Arc<Client>, Problem> {
        match &*self.reach.borrow() {
            Reach::Up(client) => Ok(Arc::clone(client)),
            Reach::Away(why) => Err(away(why)),
        }
    }

    /// The client, when it can publish now.
    pub(crate) fn publisher(&self) -> Result<Arc<Client>, Problem> {
        match self.broker_state() {
            BrokerState::Open => self.reader(),
            BrokerState::Away(why) => Err(away(&why)),
            BrokerState::Blocked(why) => {
                let detail = format!("the broker takes no messages for now ({why}); nothing was lost, try again");
                Err(Problem::unavailable("broker-blocked", detail))
            }
        }
    }

    /// The client, when somebody reads `queue` (one of the request queues).
    pub(crate) fn asker(&self, queue: &'static str) -> Result<Arc<Client>, Problem> {
        let client = self.publisher()?;
        if self.reads(queue) { Ok(client) } else { Err(nobody_reads(queue)) }
    }

    /// Whether somebody read `queue` when it was last looked at.
    pub(crate) fn reads(&self, queue: &'static str) -> bool {
        let readers = if queue == queue::SCORER { &self.readers.scorer } else { &self.readers.weather };
        readers.load(Ordering::Relaxed) > 0
    }

    /// Answers that came after whoever asked had given up.
    pub(crate) fn late_answers(&self) -> u64 {
        let now = if let Reach::Up(client) = &*self.reach.borrow() { client.late_answers() } else { 0 };
        self.late_answers.load(Ordering::Relaxed) + now
    }
}

async fn keep(
    broker: Arc<dyn Broker>,
    state: watch::Sender<Reach>,
    readers: Arc<Readers>,
    late_answers: Arc<AtomicU64>,
    shutdown: Shutdown,
) {
    let mut backoff = Duration::from_millis(100);
    let mut told = String::new();
    loop {
        let connected = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            connected = Client::connect(broker.as_ref(), "gateway") => connected,
        };
        let why = match connected {
            Ok(client) => {
                tracing::info!(broker = broker.describe(), "connected");
                backoff = Duration::from_millis(100);
                told.clear();
                let client = Arc::new(client);
                // Nobody waits for an answer that nobody will give: who reads is known before anyone asks.
                let _ = tokio::time::timeout(LOOK_EVERY, look(&client, &readers)).await;
                state.send_replace(Reach::Up(Arc::clone(&client)));
                let why = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    why = until_lost(&client, &readers) => why,
                };
                late_answers.fetch_add(client.late_answers(), Ordering::Relaxed);
                tracing::warn!(why, "the connection to the broker is lost; requests are turned away until it is back");
                why
            }
            Err(error) => {
                let why = reasons(&error);
                if why != told {
                    tracing::warn!(why, "cannot connect to the broker; trying on");
                    told.clone_from(&why);
                }
                why
            }
        };
        state.send_replace(Reach::Away(why));
        let jitter = Duration::from_millis(host::random_range(0..=50));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff + jitter) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Looks who reads the request queues.
async fn look(client: &Client, readers: &Readers) {
    for (queue, readers) in [(queue::SCORER, &readers.scorer), (queue::WEATHER_LOOKUP, &readers.weather)] {
        if let Ok(depth) = client.depth(queue).await {
            readers.store(depth.consumers, Ordering::Relaxed);
        }
    }
}

/// Looks again and again, until the connection is gone.
async fn until_lost(client: &Client, readers: &Readers) -> String {
    let mut state = client.state();
    let looking = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            look(client, readers).await;
        }
    };
    tokio::select! {
        biased;
        lost = state.wait_for(|now| matches!(now, ConnectionState::Closed(_))) => match lost.as_deref() {
            Ok(ConnectionState::Closed(why)) => why.clone(),
            _ => "the connection is gone".to_owned(),
        },
        never = looking => never,
    }
}

fn away(why: &str) -> Problem {
    let detail = format!("the broker cannot be reached ({why}); the gateway connects again by itself");
    Problem::unavailable("broker-away", detail)
}

fn nobody_reads(queue: &str) -> Problem {
    let (code, who) = match queue {
        queue::SCORER => ("no-scorer", "scorer"),
        _ => ("no-weather-fetcher", "weather-fetcher"),
    };
    Problem::unavailable(code, format!("no {who} is running, so nobody would answer; start one, and try again"))
}

/// What to tell of a request over the queues that has no answer.
pub(crate) fn unanswered(error: &ClientError, asked: &str) -> Problem {
    match error {
        ClientError::NoAnswer { .. } => Problem::no_answer(format!("waited for {asked}: {error}")),
        ClientError::Broker(_) | ClientError::Publish(_) | ClientError::Blocked { .. } => {
            let detail = format!("asking {asked}: {}; nothing was changed, try again", reasons(error));
            Problem::unavailable("broker-away", detail)
        }
        ClientError::Unencodable(_) => Problem::too_large(reasons(error)),
        ClientError::Undecodable(_) => {
            Problem::internal(format!("the answer of {asked} cannot be read: {}", reasons(error)))
        }
    }
}
