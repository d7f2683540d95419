//! Tests of what happens to connections of a real broker: a connection cut in the middle of the work, a full queue, an alarm,
//! no broker at the address.

use super::{
    next,
    worker::{input, options, output, start_apart},
};
use common::{
    envelope::Properties,
    exchange,
    message::Message,
    outcome::{Failure, Outgoing, Outputs},
    topology::{self, queue},
};
use lapin::{
    options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use pipeline_tests::{containers::Container, proxy::Proxy, rabbitmq, wait};
use runtime::{
    AmqpBroker, Broker,
    broker::{ConnectionState, PublishError},
    config::{AmqpUrl, BrokerSettings},
    worker::{RunError, RunOptions},
};
use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

fn message(exchange: &'static str, routing_key: &str) -> Outgoing {
    let properties = Properties { persistent: true, ..Properties::default() };
    Outgoing { exchange, routing_key: routing_key.to_owned(), properties, body: "{}".into(), mandatory: true }
}

/// The connection is cut three times within 400 messages, once for longer. The worker reconnects, every message is handled and
/// acknowledged, and every output arrives.
#[tokio::test]
async fn a_cut_connection_loses_no_message() {
    const MESSAGES: usize = 400;
    let settings = rabbitmq::settings();
    let (wire, through) = Proxy::to(&settings).await.unwrap();
    let straight: Arc<dyn Broker> = Arc::new(AmqpBroker::new(settings.clone()));
    let (entered, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (entered_in, gate_in) = (Arc::clone(&entered), Arc::clone(&gate));
    let many = RunOptions { concurrency: 16, prefetch: 32, ..options() };
    let running = start_apart(&straight, Arc::new(AmqpBroker::new(through)), many, move |envelope| {
        let (entered, gate) = (Arc::clone(&entered_in), Arc::clone(&gate_in));
        async move {
            entered.add_permits(1);
            gate.acquire().await.map_err(Failure::transient)?.forget();
            Outputs::one(&output(&envelope.payload.batch_id))
        }
    })
    .await;
    let publisher = running.connection.publisher().await.unwrap();
    let ids: BTreeSet<String> = (0..MESSAGES).map(|id| id.to_string()).collect();
    for id in &ids {
        publisher.publish(Outgoing::message(&input(id)).unwrap()).await.unwrap();
    }
    for cut in 0..3 {
        // After 50 more messages the cut interrupts handlers that wait, publish or acknowledge.
        gate.add_permits(50);
        wait::soon("50 more handlers", entered.acquire_many(50 + 1)).await.unwrap().forget();
        wire.refuse(cut == 1);
        wire.cut();
        if cut == 1 {
            wait::soon("the worker to connect again", wire.refused(2)).await;
            wire.refuse(false);
        }
    }
    gate.add_permits(MESSAGES * 10);
    let mut events = running.connection.consume(queue::TRAINER, 100).await.unwrap();
    let mut missing: BTreeSet<String> = ids.iter().map(|id| output(id).message_id()).collect();
    while !missing.is_empty() {
        let event = next(&mut events).await;
        missing.remove(&event.properties.message_id.unwrap());
        event.settle.ack().await.unwrap();
    }
    assert!(wire.carried() >= 4 * 2, "four times connected, twice each: {}", wire.carried());
    running.finish().await;
    AmqpBroker::new(settings).remove_topology().await.unwrap();
}

/// Without a broker at the port, a worker gives up in the configured time and names the address, without the password.
#[tokio::test]
async fn a_worker_gives_up_on_a_closed_port_and_names_the_address() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = AmqpUrl::new(format!("amqp://someone:hunter2@127.0.0.1:{port}/%2f"));
    let nobody = AmqpBroker::new(BrokerSettings { url, ..BrokerSettings::default() });
    let hasty = RunOptions { give_up_after: Duration::from_secs(1), ..options() };
    let aside: Arc<dyn Broker> = super::in_process();
    let running = start_apart(&aside, Arc::new(nobody), hasty, |_| async { Ok(Outputs::none()) }).await;
    let ended = wait::soon("the end of the worker", running.task).await.unwrap();
    let error = ended.expect_err("no broker is no success");
    assert!(matches!(error, RunError::GaveUp { worker: queue::MERGER, .. }), "{error}");
    let error_text = error.to_string();
    assert!(error_text.contains(&format!("127.0.0.1:{port}")) && !error_text.contains("hunter2"), "{error_text}");
}

/// A queue at its limit refuses a publish, with another error than for an unroutable message, and accepts it once there is
/// room.
#[tokio::test]
async fn a_full_queue_refuses_until_there_is_room() {
    let settings = rabbitmq::settings();
    let broker = AmqpBroker::new(settings.clone());
    let connection = broker.connect("conformance").await.unwrap();
    connection.declare().await.unwrap();
    let raw = lapin::Connection::connect(settings.url.reveal(), Default::default()).await.unwrap();
    let channel = raw.create_channel().await.unwrap();
    let (name, exchange) = (format!("{}tiny", settings.namespace), format!("{}{}", settings.namespace, exchange::WORK));
    let mut arguments = FieldTable::default();
    // A classic queue keeps the limit to the message; a quorum queue may take a few more.
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
    let bound = channel.queue_bind(
        name.as_str().into(),
        exchange.as_str().into(),
        "tiny.#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();

    let publisher = connection.publisher().await.unwrap();
    let tiny = || message(exchange::WORK, "tiny.v1");
    publisher.publish(tiny()).await.unwrap();
    assert_eq!(publisher.publish(tiny()).await, Err(PublishError::Refused));
    // Other queues accept messages, and this one does later.
    publisher.publish(message(exchange::WORK, "ride-chunk.v1")).await.unwrap();
    let taken = channel.basic_get(name.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
    assert!(taken.is_some(), "the first message is there");
    publisher.publish(tiny()).await.unwrap();

    channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    raw.close(200, "done".into()).await.unwrap();
    connection.close().await;
    broker.remove_topology().await.unwrap();
}

/// During an alarm of the broker a publish neither succeeds nor fails, even past its deadline, and the connection gives the
/// reason. Afterwards the publish succeeds.
#[tokio::test]
async fn an_alarm_is_reported_and_waited_out() {
    let Some(own) = Container::start() else { return };
    const CONFIRM_MS: u64 = 2_000;
    let settings = BrokerSettings { confirm_timeout_ms: CONFIRM_MS, ..own.settings() };
    let connection = AmqpBroker::new(settings).connect("conformance").await.unwrap();
    connection.declare().await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    let mut state = connection.state();
    own.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    // The alarm is raised within a second or so, and the broker signals it at the next publish.
    let publish = loop {
        let mut publish = publisher.publish(message(exchange::WORK, "ride-chunk.v1"));
        tokio::select! {
            biased;
            done = &mut publish => done.unwrap(),
            blocked = state.wait_for(|now| matches!(now, ConnectionState::Blocked(_))) => {
                let now = blocked.unwrap().clone();
                assert_eq!(now, ConnectionState::Blocked("low on memory".to_owned()));
                break publish;
            }
        }
    };
    tokio::pin!(publish);
    let overdue = tokio::time::timeout(Duration::from_millis(CONFIRM_MS * 2), &mut publish).await;
    assert!(overdue.is_err(), "neither success nor failure during an alarm: {overdue:?}");
    own.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    wait::soon("the end of the alarm", publish).await.unwrap();
    assert_eq!(*state.borrow_and_update(), ConnectionState::Open);
    connection.close().await;
}

/// Dropping a consumer closes its channel without cancelling, also for queue browsers: a cancel while the channel closes would
/// make the library close the whole connection. Only an explicit cancel cancels.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_consumer_ends_with_its_channel_and_leaves_the_connection_alone() {
    const TIMES: usize = 60;
    const CANCEL: (u16, u16) = (60, 30);
    let (settings, sent) = overheard(&rabbitmq::settings()).await;
    let broker = AmqpBroker::new(settings.clone());
    let connection = broker.connect("conformance").await.unwrap();
    connection.declare().await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    for _ in 0..40 {
        publisher.publish(message(exchange::DEAD, queue::MERGER)).await.unwrap();
    }
    let dead = topology::dead_queue(queue::MERGER);
    for time in 0..TIMES {
        let mut browser = connection.browse(&dead).await.unwrap();
        for _ in 0..time % 3 {
            browser.next().await.unwrap();
        }
        match time % 4 {
            0 => drop(browser),
            _ => browser.close().await.unwrap(),
        }
        drop(connection.consume(queue::SCORER, 10).await.unwrap());
        drop(connection.subscribe(exchange::EVENTS, "#", 10).await.unwrap());
        assert_eq!(*connection.state().borrow(), ConnectionState::Open, "{time}");
    }
    let mut cancelled = connection.consume(queue::SCORER, 10).await.unwrap();
    cancelled.cancel().await.unwrap();
    connection.close().await;
    let methods = methods(&sent.lock().unwrap());
    assert_eq!(methods.iter().filter(|method| **method == CANCEL).count(), 1, "the one that was cancelled");
    broker.remove_topology().await.unwrap();
}

/// Settings that lead to the broker through a proxy that records what clients send, by connection.
async fn overheard(settings: &BrokerSettings) -> (BrokerSettings, Arc<Mutex<Vec<Vec<u8>>>>) {
    let authority = settings.url.reveal().parse::<AMQPUri>().unwrap().authority;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sent, kept) = (Arc::new(Mutex::new(Vec::new())), settings.clone());
    let keeping = Arc::clone(&sent);
    tokio::spawn(async move {
        for connection in 0.. {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect((authority.host.as_str(), authority.port)).await.unwrap();
            keeping.lock().unwrap().push(Vec::new());
            let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
            let keeping = Arc::clone(&keeping);
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(length @ 1..) = near_read.read(&mut bytes).await {
                    keeping.lock().unwrap()[connection].extend_from_slice(&bytes[..length]);
                    if far_write.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let url = AmqpUrl::new(kept.url.reveal().replace(&format!(":{}", authority.port), &format!(":{port}")));
    (BrokerSettings { url, ..kept }, sent)
}

/// Class and method of every method frame (AMQP 0-9-1 §2.3.5) behind each connection's protocol header.
fn methods(connections: &[Vec<u8>]) -> Vec<(u16, u16)> {
    let mut methods = Vec::new();
    for sent in connections {
        let mut rest = &sent[8..];
        while let [kind, _, _, a, b, c, d, ..] = *rest {
            let size = u32::from_be_bytes([a, b, c, d]) as usize;
            let (frame, after) = rest.split_at(7 + size + 1);
            if kind == 1 {
                let short = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
                methods.push((short(7), short(9)));
            }
            rest = after;
        }
    }
    methods
}
