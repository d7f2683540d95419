//! Tests of a training that takes longer than the broker lets a message be held.

use super::own_broker;
use common::{
    envelope::Envelope,
    message::DatasetReady,
    model::Alias,
    outcome::{Failure, Outputs},
};
use object_store::{
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
use pipeline_tests::{datasets, wait};
use records::{Store, layout, store};
use runtime::{
    AmqpBroker, Broker, Shutdown, Worker,
    client::Client,
    worker::{RunOptions, run},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use trainer::{Settings, Trainer};

/// A trainer that counts its connections, and the deliveries that it started to handle.
struct Counted {
    trainer: Trainer,
    connected: AtomicU32,
    handled: AtomicU32,
}

impl Worker for Counted {
    const NAME: &'static str = Trainer::NAME;
    const CONCURRENCY: u16 = Trainer::CONCURRENCY;
    const PREFETCH: u16 = Trainer::PREFETCH;
    type In = DatasetReady;

    async fn handle(&self, envelope: Envelope<DatasetReady>) -> Result<Outputs, Failure> {
        self.handled.fetch_add(1, Relaxed);
        self.trainer.handle(envelope).await
    }

    async fn connected(&self) -> Result<(), Failure> {
        self.connected.fetch_add(1, Relaxed);
        self.trainer.connected().await
    }

    fn stopping(&self) {
        self.trainer.stopping();
    }
}

/// Trains once from a store with slow answers. Returns the messages left, and how often the trainer connected and received the
/// message.
async fn train(broker: &AmqpBroker, hold_ms_max: u64) -> (u64, u32, u32) {
    let answers = ThrottleConfig { wait_get_per_call: Duration::from_millis(600), ..ThrottleConfig::default() };
    let objects = InMemory::new();
    let ready = datasets::write(&objects, "slow", 400).await;
    let store: Store = Arc::new(ThrottledStore::new(objects, answers));
    let trainer = Trainer::new(Settings { hold_ms_max, ..Settings::default() }, Arc::clone(&store));
    let worker = Arc::new(Counted { trainer, connected: AtomicU32::new(0), handled: AtomicU32::new(0) });
    let (shutdown, options) = (Shutdown::new(), RunOptions { concurrency: 1, prefetch: 1, ..RunOptions::default() });
    let shared: Arc<dyn Broker> = Arc::new(broker.clone());
    let running = tokio::spawn(run(Arc::clone(&worker), shared, options, shutdown.clone()));
    let client = Client::connect(broker, "test").await.unwrap();
    let mut events = client.listen("events", "model-promoted.#").await.unwrap();
    client.publish(&ready).await.unwrap();
    let text = wait::soon("a model", events.next()).await.unwrap();
    text.settle.ack().await.unwrap();
    let champion: Alias = store::read_json(&store, &layout::champion(layout::GLOBAL_MODEL)).await.unwrap().unwrap();
    assert_eq!(champion.generation, 1, "trained and promoted once");
    shutdown.cancel();
    running.await.unwrap().unwrap();
    let left = client.depth("trainer").await.unwrap().messages + client.depth("trainer.dead").await.unwrap().messages;
    client.close().await;
    (left, worker.connected.load(Relaxed), worker.handled.load(Relaxed))
}

/// With a `consumer_timeout` of three seconds and a training of ten, the message is returned and delivered again, and the
/// connection lives. A trainer that holds the message loses its connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_training_holds_no_message_past_the_consumer_timeout() {
    let container = own_broker!();
    for setting in ["consumer_timeout, 3000", "channel_tick_interval, 500"] {
        container.ctl(&["eval", &format!("application:set_env(rabbit, {setting}).")]);
    }
    let held = train(&AmqpBroker::new(container.settings()), 1_000).await;
    assert_eq!((held.0, held.1), (0, 1), "nothing left, one connection");
    assert!(held.2 > 2, "handed the message {} times", held.2);
    let clinging = train(&AmqpBroker::new(container.settings()), 600_000).await;
    assert!(clinging.1 > 1, "the control: a connection outlived the timeout, so that it was none");
}
