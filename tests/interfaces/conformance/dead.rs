//! Tests of full dead-letter queues: a message without room stays where it is, and continues once there is room.

use super::{control::waiting_record, next, worker};
use common::{
    envelope::{self, Properties},
    exchange,
    outcome::{Failure, Outgoing},
    topology::{self, Argument, Topology, queue},
};
use lapin::{
    options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use pipeline_tests::{containers::Container, rabbitmq};
use records::{StoreSettings, store};
use runtime::{
    AmqpBroker, Broker, MemoryBroker,
    broker::{Connection, PublishError},
    config::{BrokerSettings, Declare},
    worker::RunOptions,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Capacity of the merger's dead-letter queue, bytes: less than the dead letters of a test.
const ROOM_BYTES: usize = 2_000;

/// A fleet on RabbitMQ whose merger has this capacity for dead letters.
async fn with_little_room(settings: &BrokerSettings) -> Arc<dyn Broker> {
    let connection = AmqpBroker::new(settings.clone()).connect("conformance").await.unwrap();
    connection.declare().await.unwrap();
    connection.close().await;
    let topology = Topology::of_fleet(&settings.namespace);
    let [dead, of] = [topology::dead_queue(queue::MERGER), queue::MERGER.to_owned()]
        .map(|plain| format!("{}{plain}", settings.namespace));
    let mut arguments = FieldTable::default();
    for (name, value) in &topology.queue(&dead).unwrap().arguments {
        let value = match value {
            Argument::Integer(_) if *name == "x-max-length-bytes" => AMQPValue::LongLongInt(ROOM_BYTES as i64),
            Argument::Integer(value) => AMQPValue::LongLongInt(*value),
            Argument::Text(value) => AMQPValue::LongString(value.as_str().into()),
        };
        arguments.insert((*name).into(), value);
    }
    let raw = lapin::Connection::connect(settings.url.reveal(), Default::default()).await.unwrap();
    let channel = raw.create_channel().await.unwrap();
    channel.queue_delete(dead.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(dead.as_str().into(), durable, arguments).await.unwrap();
    let exchange = format!("{}{}", settings.namespace, exchange::DEAD);
    let bound = channel.queue_bind(
        dead.as_str().into(),
        exchange.as_str().into(),
        of.as_str().into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
    raw.close(200, "done".into()).await.unwrap();
    // Checks only that the queues exist.
    Arc::new(AmqpBroker::new(BrokerSettings { declare: Declare::Never, ..settings.clone() }))
}

#[tokio::test]
async fn a_worker_waits_for_room_for_a_dead_letter_in_process() {
    a_worker_waits_for_room_for_a_dead_letter(Arc::new(MemoryBroker::with_dead_bytes_max(ROOM_BYTES))).await;
}

#[tokio::test]
async fn a_worker_waits_for_room_for_a_dead_letter_on_rabbitmq() {
    let settings = rabbitmq::settings();
    a_worker_waits_for_room_for_a_dead_letter(with_little_room(&settings).await).await;
    AmqpBroker::new(settings).remove_topology().await.unwrap();
}

/// While its dead-letter queue is full, a worker holds the message, starts no other, and records what it waits for. As dead
/// letters are removed it continues, every message becomes a dead letter once, and the record is removed.
async fn a_worker_waits_for_room_for_a_dead_letter(broker: Arc<dyn Broker>) {
    const MESSAGES: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings { url: folder.path().display().to_string(), ..StoreSettings::default() };
    let store = store::open(&settings).unwrap();
    let handled = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&handled);
    let options = RunOptions { concurrency: 1, prefetch: 2, waiting: Some(store.clone()), ..worker::options() };
    let running = worker::start_apart(&broker, Arc::clone(&broker), options, move |_| {
        counting.fetch_add(1, Ordering::SeqCst);
        async { Err(Failure::permanent("never", "on purpose")) }
    })
    .await;
    let mut expected = BTreeSet::new();
    for id in 0..MESSAGES {
        let input = Outgoing::message(&worker::input(&id.to_string())).unwrap();
        expected.insert(input.properties.message_id.clone().unwrap());
        running.publish(input).await;
    }
    let record = waiting_record(&store, true).await.unwrap();
    assert!(record.why.starts_with("merger.dead is full: `wildrydes dead list --summary`"), "{record:?}");
    assert!(record.outages > 0 && record.attempt.is_none() && record.batch_id.is_some(), "{record:?}");
    let dead = topology::dead_queue(queue::MERGER);
    let depth = async |name: &str| running.connection.depth(name).await.unwrap().messages;
    let fitted = depth(&dead).await;
    assert!(fitted < MESSAGES, "{fitted} letters where some {ROOM_BYTES} bytes should be the limit");
    assert_eq!(handled.load(Ordering::SeqCst), fitted + 1, "it waits with one in hand");
    let left = depth(queue::MERGER).await;
    assert!(left + 2 >= MESSAGES - fitted, "the others wait in their queue: {left} and the two delivered");

    let mut letters = running.connection.consume(&dead, 4).await.unwrap();
    while !expected.is_empty() {
        let letter = next(&mut letters).await;
        assert_eq!(letter.properties.text(envelope::REASON), Some("never"));
        let id = letter.properties.message_id.unwrap();
        assert!(expected.remove(&id), "{id} is a letter twice");
        letter.settle.ack().await.unwrap();
    }
    waiting_record(&store, false).await;
    running.finish().await;
}

#[tokio::test]
async fn a_dead_letter_by_the_broker_waits_for_room_in_process() {
    what_the_broker_parks_waits_for_room(Arc::new(MemoryBroker::with_dead_bytes_max(ROOM_BYTES))).await;
}

#[tokio::test]
async fn a_dead_letter_by_the_broker_waits_for_room_on_rabbitmq() {
    let Some(own) = Container::start() else { return };
    // The broker retries after this interval; the default is 3 minutes.
    own.ctl(&["eval", "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000)."]);
    what_the_broker_parks_waits_for_room(with_little_room(&own.settings()).await).await;
}

/// A message beyond the delivery limit is not lost while the dead-letter queue is full: it becomes a dead letter once there is
/// room.
async fn what_the_broker_parks_waits_for_room(broker: Arc<dyn Broker>) {
    let connection = broker.connect("conformance").await.unwrap();
    connection.declare().await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    let message = |exchange, routing_key: &str, id: &str| Outgoing {
        exchange,
        routing_key: routing_key.to_owned(),
        properties: Properties { message_id: Some(id.to_owned()), persistent: true, ..Properties::default() },
        body: vec![b' '; ROOM_BYTES / 4].into(),
        mandatory: true,
    };
    let mut letters = 0;
    loop {
        match publisher.publish(message(exchange::DEAD, queue::MERGER, "letter")).await {
            Ok(()) => letters += 1,
            Err(PublishError::Refused) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(letters < 1_000, "there is no limit");
    }
    publisher.publish(message(exchange::WORK, "batch-split.v1", "poison")).await.unwrap();
    let mut consumer = connection.consume(queue::MERGER, 1).await.unwrap();
    for _ in 0..=topology::DELIVERY_LIMIT {
        next(&mut consumer).await.settle.requeue().await.unwrap();
    }
    let dead = topology::dead_queue(queue::MERGER);
    assert_eq!(ready(connection.as_ref(), &dead).await, letters, "the queue is full");
    let mut taken = connection.consume(&dead, 1).await.unwrap();
    let mut parked = 0;
    for _ in 0..=letters {
        let letter = next(&mut taken).await;
        parked += u32::from(letter.properties.message_id.as_deref() == Some("poison"));
        letter.settle.ack().await.unwrap();
    }
    assert_eq!(parked, 1);
    assert_eq!(ready(connection.as_ref(), queue::MERGER).await, 0);
    connection.close().await;
}

async fn ready(connection: &dyn Connection, queue: &str) -> u64 {
    connection.depth(queue).await.unwrap().messages
}
