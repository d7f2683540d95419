//! The loop that runs a worker: one session per connection, and a new one after every loss of the connection.

use super::{
    ErasedWorker, Worker,
    delivery::{Deliverer, SessionBroken},
    stalls::Stalls,
};
use crate::{
    backoff::Backoff,
    broker::{Broker, BrokerError, Connection, ConnectionState, Consumer, Delivery, Publisher, deliveries},
    control::{Control, Work},
    health::{BEAT, Health, WorkerState},
    shutdown::Shutdown,
    waiting::Recorder,
};
use common::{
    exchange,
    outcome::RetryPolicy,
    topology::{self, Topology},
};
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use records::Store;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use tracing::{error, info, warn};

/// Options for running a worker.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Number of messages handled concurrently, at least 1.
    pub concurrency: usize,
    /// Maximum number of unacknowledged deliveries; those beyond `concurrency` wait in this process.
    pub prefetch: u16,
    /// Time for running handlers to finish after a shutdown request.
    pub drain_deadline: Duration,
    /// Maximum duration of one handler, without its publishing.
    pub handle_timeout: Duration,
    /// Time after which the worker gives up without a connection.
    pub give_up_after: Duration,
    /// Version in the property `app_id`.
    pub version: &'static str,
    /// Store with the record whether the worker is paused; without one it never pauses.
    pub control: Option<Store>,
    /// Store in which the worker records why it waits; without one it records nothing.
    pub waiting: Option<Store>,
    /// Where the worker reports its state for probes; `None` if nobody asks.
    pub health: Option<Health>,
}

impl RunOptions {
    /// Reports the state of `worker`.
    fn report(&self, worker: &'static str, state: WorkerState) {
        if let Some(health) = &self.health {
            health.set(worker, state);
        }
    }

    /// Reports whether the broker blocks the publishes of `worker`.
    fn report_blocked(&self, worker: &'static str, state: &ConnectionState) {
        let blocked = if let ConnectionState::Blocked(why) = state { Some(why.clone()) } else { None };
        if let Some(health) = &self.health {
            health.set_blocked(worker, blocked);
        }
    }

    /// Reports whether `worker` is paused, if it has changed since `reported`.
    fn report_work(&self, worker: &'static str, is_paused: bool, reported: &mut Option<bool>) {
        if reported.replace(is_paused) != Some(is_paused) {
            self.report(worker, if is_paused { WorkerState::Paused } else { WorkerState::Consuming });
        }
    }

    /// Awaits `work`. Meanwhile the loop of `worker` counts as turning.
    async fn beside<T>(&self, worker: &'static str, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.beating(worker) => match never {},
        }
    }

    /// Reports every second that the loop of `worker` turns, if anybody asks; never completes.
    async fn beating(&self, worker: &'static str) -> Infallible {
        let Some(health) = &self.health else { return std::future::pending().await };
        loop {
            health.beat(worker);
            tokio::time::sleep(BEAT).await;
        }
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            concurrency: 4,
            prefetch: 8,
            drain_deadline: Duration::from_secs(20),
            handle_timeout: Duration::from_secs(20 * 60),
            give_up_after: Duration::from_secs(5 * 60),
            version: env!("CARGO_PKG_VERSION"),
            control: None,
            waiting: None,
            health: None,
        }
    }
}

/// Why a worker stopped without a clean shutdown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A retry cannot succeed.
    #[error("{worker} cannot use the broker: {why}")]
    Broker {
        /// Name of the worker.
        worker: &'static str,
        /// The broker's refusal.
        why: BrokerError,
    },
    /// The broker stayed unreachable.
    #[error("{worker} gave up after {} s without the broker: {last}", .after.as_secs())]
    GaveUp {
        /// Name of the worker.
        worker: &'static str,
        /// Time without a connection.
        after: Duration,
        /// The last error.
        last: String,
    },
    /// Handlers were still running at the drain deadline; their messages will be delivered again.
    #[error("{worker} left {} unfinished at the drain deadline, to be delivered again: {}", .messages.len(), .messages.join(", "))]
    Stragglers {
        /// Name of the worker.
        worker: &'static str,
        /// Ids of their messages.
        messages: Vec<String>,
    },
}

/// Runs a worker until `shutdown`, and reconnects after every loss of the connection.
///
/// # Errors
/// Fails with a [`RunError`]. The process should then exit with a failure, so that its supervisor notices.
pub async fn run<W: Worker>(
    worker: Arc<W>,
    broker: Arc<dyn Broker>,
    options: RunOptions,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let result = run_erased(Arc::clone(&worker) as Arc<dyn ErasedWorker>, broker, options, shutdown).await;
    if tokio::time::timeout(ENDING_TIMEOUT, worker.ended()).await.is_err() {
        warn!(worker = W::NAME, "the worker's cleanup took too long and was cancelled");
    }
    result
}

/// Maximum duration of [`Worker::ended`].
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);
/// Age at which a session without a delivery counts as healthy; with a delivery it does at once. Failures of sessions
/// that are not healthy count towards the give-up.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// First and longest pause between two attempts to connect, in milliseconds.
const PAUSE_MS: (u64, u64) = (200, 10_000);
/// Part of lapin's error about a frame that it cannot parse, for example because of an unknown type of header.
const UNPARSABLE: &str = "failed to parse";
/// Time for which the worker then reads one message at a time.
const CAREFUL_FOR: Duration = Duration::from_secs(30);

async fn run_erased(
    worker: Arc<dyn ErasedWorker>,
    broker: Arc<dyn Broker>,
    options: RunOptions,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let name = worker.name();
    let mut attempts = Attempts::new();
    // A frame that cannot be parsed ends the connection, and every unacknowledged delivery returns and counts towards
    // the broker's delivery limit. With one message at a time only the culprit counts, until the broker dead-letters
    // it.
    let mut careful: Option<RunOptions> = None;
    loop {
        let leave = shutdown.child_token();
        let ended = {
            let options = careful.as_ref().unwrap_or(&options);
            let stopping = || {
                if shutdown.is_cancelled() {
                    worker.stopping();
                }
            };
            let session = session(&worker, broker.as_ref(), options, &leave, stopping, || attempts = Attempts::new());
            tokio::pin!(session);
            tokio::select! {
                biased;
                ended = &mut session => ended,
                () = tokio::time::sleep(CAREFUL_FOR), if careful.is_some() => {
                    leave.cancel();
                    session.await
                }
            }
        };
        let problem = match ended {
            Ok(()) | Err(Ended::Stragglers(_)) if leave.is_cancelled() && !shutdown.is_cancelled() => {
                careful = None;
                continue;
            }
            Ok(()) => return Ok(()),
            Err(Ended::Stragglers(messages)) => return Err(RunError::Stragglers { worker: name, messages }),
            Err(Ended::Broken(why @ (BrokerError::Refused(_) | BrokerError::Mismatch { .. }))) => {
                return Err(RunError::Broker { worker: name, why });
            }
            Err(Ended::Broken(BrokerError::Lost(why))) => why,
        };
        if shutdown.is_cancelled() {
            return Ok(());
        }
        if problem.contains(UNPARSABLE) {
            error!(
                worker = name,
                problem, "a message breaks the protocol: reading one at a time until the broker dead-letters it"
            );
            careful = Some(RunOptions { concurrency: 1, prefetch: 1, ..options.clone() });
            attempts.pauses = pauses();
        }
        let Some(pause) = attempts.next_pause(options.give_up_after) else {
            return Err(RunError::GaveUp { worker: name, after: options.give_up_after, last: problem });
        };
        options.report(name, WorkerState::Disconnected(problem.clone()));
        warn!(worker = name, broker = broker.describe(), problem, retry_in_ms = pause.as_millis() as u64, "no broker");
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Attempts to connect since the last healthy session.
struct Attempts {
    failing_since: Option<Instant>,
    pauses: Backoff,
}

impl Attempts {
    fn new() -> Self {
        Self { failing_since: None, pauses: pauses() }
    }

    /// Returns the pause before the next attempt; `None` if the attempts have failed for longer than `give_up_after`.
    fn next_pause(&mut self, give_up_after: Duration) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        (since.elapsed() <= give_up_after).then(|| self.pauses.next_pause())
    }
}

fn pauses() -> Backoff {
    Backoff::new(Duration::from_millis(PAUSE_MS.0), Duration::from_millis(PAUSE_MS.1))
}

enum Ended {
    Broken(BrokerError),
    Stragglers(Vec<String>),
}

impl From<BrokerError> for Ended {
    fn from(error: BrokerError) -> Self {
        Self::Broken(error)
    }
}

async fn session(
    worker: &Arc<dyn ErasedWorker>,
    broker: &dyn Broker,
    options: &RunOptions,
    shutdown: &Shutdown,
    stopping: impl FnOnce(),
    mut healthy: impl FnMut(),
) -> Result<(), Ended> {
    let name = worker.name();
    let connection = tokio::select! {
        biased;
        connected = options.beside(name, broker.connect(name)) => connected?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let mut control = Control::new(name, options.control.clone());
    let Opened { publisher, subscriptions, mut controls } = tokio::select! {
        biased;
        opened = options.beside(name, open(worker, connection.as_ref(), &mut control, options)) => opened?,
        () = shutdown.cancelled() => return Ok(()),
    };
    info!(worker = name, broker = broker.describe(), "connected");

    let deliverer = Arc::new(deliverer(worker, publisher, options, shutdown));
    let active = Active::default();
    let mut state = connection.state();
    options.report_blocked(name, &state.borrow());
    let mut work = Work::new(name, options.prefetch);
    let mut events = stream::select_all(subscriptions.into_iter().map(deliveries));
    let mut running: JoinSet<Result<(), SessionBroken>> = JoinSet::new();
    let mut proven = false;
    let mut reported = None;
    let (tending, beating, quiet) = (tend(worker.as_ref()), options.beating(name), tokio::time::sleep(HEALTHY_AFTER));
    tokio::pin!(tending, beating, quiet);
    loop {
        work.follow(&control, connection.as_ref(), running.is_empty()).await?;
        options.report_work(name, control.is_paused(), &mut reported);
        // A fixed order, so that a simulation can repeat a run. No branch can starve the later ones for ever.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(done) = running.join_next() => {
                finished(done)?;
                if !std::mem::replace(&mut proven, true) {
                    healthy();
                }
            }
            () = &mut quiet, if !proven => {
                proven = true;
                healthy();
            }
            changed = state.changed() => {
                options.report_blocked(name, &state.borrow());
                changed_to(name, state.borrow_and_update().clone())?;
                changed.map_err(|_| BrokerError::Lost("the connection is closed".to_owned()))?;
            }
            never = &mut tending => match never {},
            never = &mut beating => match never {},
            event = controls.next() => control.receive(event?).await?,
            delivery = next_of(&mut events, &mut work), if running.len() < options.concurrency => {
                running.spawn(handled(Arc::clone(&deliverer), &active, delivery?));
            }
        }
    }
    options.report(name, WorkerState::Draining);
    let drained = options.beside(name, drain_in_halves(&mut running, options.drain_deadline, stopping)).await;
    let stragglers = active.names();
    connection.close().await;
    if drained { Ok(()) } else { Err(Ended::Stragglers(stragglers)) }
}

/// Waits for running handlers. Calls `stopping` after half of the deadline. Returns whether all ended.
async fn drain_in_halves(
    running: &mut JoinSet<Result<(), SessionBroken>>,
    deadline: Duration,
    stopping: impl FnOnce(),
) -> bool {
    drain(running, deadline / 2).await || {
        stopping();
        drain(running, deadline / 2).await
    }
}

fn deliverer(
    worker: &Arc<dyn ErasedWorker>,
    publisher: Box<dyn Publisher>,
    options: &RunOptions,
    shutdown: &Shutdown,
) -> Deliverer {
    let name = worker.name();
    Deliverer {
        worker: Arc::clone(worker),
        publisher,
        policy: RetryPolicy {
            delays_ms: topology::retry_delays_of(name).to_vec(),
            attempts_max: topology::ATTEMPTS_MAX,
        },
        app_id: format!("{name}/{}", options.version),
        handle_timeout: options.handle_timeout,
        shutdown: shutdown.clone(),
        stalls: Stalls::default(),
        recorder: Recorder::start(name, options.waiting.clone()),
    }
}

/// Handles one delivery and registers it as active meanwhile.
fn handled(
    deliverer: Arc<Deliverer>,
    active: &Active,
    delivery: Delivery,
) -> impl Future<Output = Result<(), SessionBroken>> + use<> {
    let guard = active.enter(delivery.properties.message_id.as_deref());
    async move {
        let done = deliverer.deliver(delivery).await;
        drop(guard);
        done
    }
}

/// Logs a new state of the connection; fails if it is closed.
fn changed_to(worker: &str, state: ConnectionState) -> Result<(), BrokerError> {
    match state {
        ConnectionState::Blocked(reason) => warn!(worker, reason, "the broker takes no publishes for now; waiting"),
        ConnectionState::Open => info!(worker, "the broker takes publishes again"),
        ConnectionState::Closed(why) => return Err(BrokerError::Lost(why)),
    }
    Ok(())
}

/// Calls [`Worker::tend`](super::Worker::tend) now and every hour.
async fn tend(worker: &dyn ErasedWorker) -> Infallible {
    const EVERY: Duration = Duration::from_secs(60 * 60);
    loop {
        if let Err(error) = worker.tend().await {
            warn!(worker = worker.name(), %error, "removing obsolete data failed; the next attempt is in an hour");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Returns the next event, or the next delivery of work if no event is ready.
async fn next_of(
    events: &mut (impl Stream<Item = Result<Delivery, BrokerError>> + Unpin),
    work: &mut Work,
) -> Result<Delivery, BrokerError> {
    tokio::select! {
        biased;
        Some(event) = events.next() => event,
        delivery = work.next() => delivery,
    }
}

struct Opened {
    publisher: Box<dyn Publisher>,
    subscriptions: Vec<Box<dyn Consumer>>,
    controls: Box<dyn Consumer>,
}

/// Declares, opens the subscriptions, lets the worker catch up, and reads whether it is paused; in this order, so that
/// no event is missed.
async fn open(
    worker: &Arc<dyn ErasedWorker>,
    connection: &dyn Connection,
    control: &mut Control,
    options: &RunOptions,
) -> Result<Opened, BrokerError> {
    connection.declare().await?;
    let publisher = connection.publisher().await?;
    let mut subscriptions = Vec::new();
    let own = Topology::of_fleet("").subscriptions.into_iter().filter(|s| s.worker == worker.name());
    for events in own.filter(|events| events.routing_key != topology::CONTROL_PATTERN) {
        subscriptions.push(connection.subscribe(&events.exchange, &events.routing_key, options.prefetch).await?);
    }
    let controls = connection.subscribe(exchange::EVENTS, topology::CONTROL_PATTERN, options.prefetch).await?;
    let ready = tokio::time::timeout(options.handle_timeout, worker.connected()).await;
    let not_ready = |why: String| BrokerError::Lost(format!("not ready: {why}"));
    ready.map_err(|_| not_ready("catching up took too long".to_owned()))?.map_err(|why| not_ready(why.to_string()))?;
    control.read_record().await?;
    Ok(Opened { publisher, subscriptions, controls })
}

fn finished(done: Result<Result<(), SessionBroken>, tokio::task::JoinError>) -> Result<(), BrokerError> {
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(SessionBroken(why))) => Err(BrokerError::Lost(why)),
        Err(error) => Err(BrokerError::Lost(format!("a delivery task ended unexpectedly: {error}"))),
    }
}

/// Waits for running handlers; returns `false` if the deadline passes first.
async fn drain(running: &mut JoinSet<Result<(), SessionBroken>>, deadline: Duration) -> bool {
    let all = async {
        while let Some(done) = running.join_next().await {
            if let Err(error) = finished(done) {
                warn!(%error, "while draining; the message will be delivered again");
            }
        }
    };
    tokio::time::timeout(deadline, all).await.is_ok()
}

/// Ids of the messages in progress, to name those that are unfinished at the drain deadline.
#[derive(Default, Clone)]
struct Active(Arc<Mutex<(u64, BTreeMap<u64, String>)>>);

struct Guard {
    active: Active,
    key: u64,
}

impl Active {
    fn enter(&self, message_id: Option<&str>) -> Guard {
        let mut inner = self.0.lock();
        inner.0 += 1;
        let key = inner.0;
        inner.1.insert(key, message_id.unwrap_or("a message without an id").to_owned());
        Guard { active: self.clone(), key }
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().1.values().cloned().collect()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.active.0.lock().1.remove(&self.key);
    }
}
