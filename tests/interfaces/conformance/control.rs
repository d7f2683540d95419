//! Tests of pausing a worker, and of its waiting record, on both brokers.

use super::{on_both_brokers, worker::options};
use common::{
    envelope::Envelope,
    message::{BatchSplit, WorkerControl},
    outcome::{Failure, Outgoing, Outputs},
    topology::queue,
    waiting::Waiting,
};
use pipeline_tests::wait;
use records::{Store, StoreSettings, control, store};
use runtime::{
    Broker, Shutdown, Worker,
    broker::Connection,
    host,
    worker::{RunError, RunOptions, run},
};
use std::sync::Arc;
use tokio::{sync::Semaphore, task::JoinHandle};

on_both_brokers! {
    a_paused_worker_finishes_started_work_only;
    a_control_event_of_another_store_is_ignored;
    what_a_worker_waits_for_is_recorded_until_the_message_succeeds;
}

/// Reads the merger's queue. Each handler signals its start and waits to be released.
struct Held {
    connected: Arc<Semaphore>,
    began: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Worker for Held {
    const NAME: &'static str = queue::MERGER;
    type In = BatchSplit;

    async fn connected(&self) -> Result<(), Failure> {
        self.connected.add_permits(1);
        Ok(())
    }

    async fn handle(&self, _: Envelope<BatchSplit>) -> Result<Outputs, Failure> {
        self.began.add_permits(1);
        self.go.acquire().await.expect("open").forget();
        Ok(Outputs::none())
    }
}

fn split(batch_id: &str) -> Outgoing {
    let split = BatchSplit {
        batch_id: batch_id.to_owned(),
        sha256: "a".repeat(64),
        split_id: None,
        digest: None,
        refresh: None,
        chunks: 0,
        received: 0,
        accepted: 0,
        rejected: 0,
        rejected_by_reason: Default::default(),
    };
    Outgoing::message(&split).unwrap()
}

fn word(worker: &str, paused: bool) -> WorkerControl {
    let (by, at) = ("a test".to_owned(), "2026-11-24T03:12:40Z".to_owned());
    WorkerControl { worker: worker.to_owned(), paused, by, at, why: None }
}

async fn say(connection: &dyn Connection, store: &Store, worker: &str, paused: bool) {
    let word = word(worker, paused);
    control::write(store, &word).await.unwrap();
    connection.publisher().await.unwrap().publish(Outgoing::message(&word).unwrap()).await.unwrap();
}

/// Waits for a number of messages and, if given, of consumers: a quorum queue counts a consumer until every delivery to it is
/// settled.
async fn reaches(connection: &dyn Connection, messages: u64, consumers: impl Into<Option<u64>>) {
    let consumers = consumers.into();
    wait::until(format!("{messages} messages and {consumers:?} consumers"), async || {
        let depth = connection.depth(queue::MERGER).await.unwrap();
        ((depth.messages, depth.consumers) == (messages, consumers.unwrap_or(depth.consumers)), depth)
    })
    .await;
}

/// The merger's waiting record, once it waits, or once it no longer does.
pub(super) async fn waiting_record(store: &Store, waits: bool) -> Option<Waiting> {
    wait::until(format!("a waiting record: {waits}"), async || {
        let record = control::wait(store, queue::MERGER, host::now()).await.unwrap();
        (record.is_some() == waits, record)
    })
    .await
}

async fn a_paused_worker_finishes_started_work_only(broker: Arc<dyn Broker>) {
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings { url: folder.path().display().to_string(), ..StoreSettings::default() };
    let store = store::open(&settings).unwrap();
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    let [connected, began, go] = [0; 3].map(|permits| Arc::new(Semaphore::new(permits)));
    let options = RunOptions { concurrency: 1, control: Some(store.clone()), ..options() };
    let start = |shutdown: &Shutdown| -> JoinHandle<Result<(), RunError>> {
        let worker = Held { connected: Arc::clone(&connected), began: Arc::clone(&began), go: Arc::clone(&go) };
        tokio::spawn(run(Arc::new(worker), Arc::clone(&broker), options.clone(), shutdown.clone()))
    };
    let begun = || wait::soon("the start of a handler", began.acquire());
    let is_connected = || wait::soon("the worker to connect", connected.acquire());
    let publisher = connection.publisher().await.unwrap();
    for batch_id in ["a", "b", "c"] {
        publisher.publish(split(batch_id)).await.unwrap();
    }
    let shutdown = Shutdown::new();
    let running = start(&shutdown);
    is_connected().await.unwrap().forget();
    begun().await.unwrap().forget();
    // Another worker's pause has no effect.
    say(connection.as_ref(), &store, queue::TRAINER, true).await;
    say(connection.as_ref(), &store, queue::MERGER, true).await;
    reaches(connection.as_ref(), 2, None).await;
    go.add_permits(1);
    reaches(connection.as_ref(), 2, 0).await;
    shutdown.cancel();
    running.await.unwrap().expect("it settled what it began");

    // A process that starts later is paused as well, and resumes on request.
    let shutdown = Shutdown::new();
    let running = start(&shutdown);
    is_connected().await.unwrap().forget();
    reaches(connection.as_ref(), 2, 0).await;
    assert_eq!(began.available_permits(), 0, "nothing begins while paused");
    say(connection.as_ref(), &store, queue::MERGER, false).await;
    go.add_permits(2);
    for _ in 0..2 {
        begun().await.unwrap().forget();
    }
    reaches(connection.as_ref(), 0, 1).await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// The object store decides: an event without a record there has no effect.
async fn a_control_event_of_another_store_is_ignored(broker: Arc<dyn Broker>) {
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings { url: folder.path().display().to_string(), ..StoreSettings::default() };
    let store = store::open(&settings).unwrap();
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    let [connected, began, go] = [0, 0, 10].map(|permits| Arc::new(Semaphore::new(permits)));
    let shutdown = Shutdown::new();
    let worker = Held { connected, began: Arc::clone(&began), go };
    let options = RunOptions { control: Some(store), ..options() };
    let running = tokio::spawn(run(Arc::new(worker), Arc::clone(&broker), options, shutdown.clone()));
    reaches(connection.as_ref(), 0, 1).await;
    let publisher = connection.publisher().await.unwrap();
    publisher.publish(Outgoing::message(&word(queue::MERGER, true)).unwrap()).await.unwrap();
    publisher.publish(split("a")).await.unwrap();
    wait::soon("the start of a handler", began.acquire()).await.unwrap().forget();
    reaches(connection.as_ref(), 0, 1).await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// Reads the merger's queue. Its dependency is down until the test releases it.
struct Dependent {
    back: Arc<Semaphore>,
}

impl Worker for Dependent {
    const NAME: &'static str = queue::MERGER;
    type In = BatchSplit;

    async fn handle(&self, _: Envelope<BatchSplit>) -> Result<Outputs, Failure> {
        match self.back.try_acquire() {
            Ok(_) => Ok(Outputs::none()),
            Err(_) => Err(Failure::outage("a service", "it answers 503")),
        }
    }
}

/// While a dependency is down, the store has a record that names it and the batch. The record is removed once the message
/// succeeds.
async fn what_a_worker_waits_for_is_recorded_until_the_message_succeeds(broker: Arc<dyn Broker>) {
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings { url: folder.path().display().to_string(), ..StoreSettings::default() };
    let store = store::open(&settings).unwrap();
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    connection.publisher().await.unwrap().publish(split("a")).await.unwrap();
    let (back, shutdown) = (Arc::new(Semaphore::new(0)), Shutdown::new());
    let options = RunOptions { waiting: Some(store.clone()), ..options() };
    let worker = Arc::new(Dependent { back: Arc::clone(&back) });
    let running = tokio::spawn(run(worker, Arc::clone(&broker), options, shutdown.clone()));
    let record = waiting_record(&store, true).await.unwrap();
    assert_eq!((record.why.as_str(), record.batch_id.as_deref()), ("a service is away: it answers 503", Some("a")));
    assert!(record.worker == queue::MERGER && record.outages > 0, "{record:?}");
    back.add_permits(1);
    waiting_record(&store, false).await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
