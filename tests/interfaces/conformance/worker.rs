//! Tests of the worker loop on both brokers: what happens to a message whatever its handler does.

use super::{next, on_both_brokers};
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use common::{
    dead_letter::restored,
    envelope::{self, Envelope, Header, Other, Properties},
    exchange,
    message::{BatchSplit, DatasetReady, Message, ModelPromoted},
    outcome::{Failure, Outgoing, Outputs},
    topology::{self, queue},
};
use futures::{FutureExt, future::BoxFuture, stream};
use pipeline_tests::wait::{self, SOON};
use runtime::{
    Broker, Shutdown, Worker,
    broker::Connection,
    worker::{RunError, RunOptions, run},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{io::AsyncReadExt, sync::Semaphore, task::JoinHandle};

on_both_brokers! {
    outputs_are_published_and_the_input_is_acknowledged;
    a_failed_attempt_is_retried_with_its_reason;
    the_last_attempt_becomes_a_dead_letter_with_its_history;
    a_permanent_failure_is_a_dead_letter_at_once;
    an_outage_spends_no_attempt;
    an_unroutable_output_waits_and_spends_nothing;
    a_restored_dead_letter_is_the_published_message;
    a_panic_is_one_failed_attempt;
    an_error_in_streamed_outputs_fails_the_attempt;
    an_unreadable_message_is_dead_lettered_with_its_reason;
    a_compressed_message_is_read_and_another_compression_is_named;
    the_concurrency_limits_running_handlers;
    a_shutdown_lets_running_handlers_finish;
    a_straggler_is_named_and_delivered_again;
}

type Handler = dyn Fn(Envelope<BatchSplit>) -> BoxFuture<'static, Result<Outputs, Failure>> + Send + Sync;

/// Reads the merger's queue with a test's handler.
struct Scripted {
    handler: Box<Handler>,
}

impl Worker for Scripted {
    const NAME: &'static str = queue::MERGER;
    type In = BatchSplit;

    async fn handle(&self, envelope: Envelope<BatchSplit>) -> Result<Outputs, Failure> {
        (self.handler)(envelope).await
    }
}

pub(super) struct Running {
    pub(super) connection: Box<dyn Connection>,
    pub(super) shutdown: Shutdown,
    pub(super) task: JoinHandle<Result<(), RunError>>,
}

pub(super) fn options() -> RunOptions {
    RunOptions { concurrency: 2, prefetch: 4, drain_deadline: SOON, ..RunOptions::default() }
}

async fn start<F>(
    broker: &Arc<dyn Broker>,
    options: RunOptions,
    handler: impl Fn(Envelope<BatchSplit>) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = Result<Outputs, Failure>> + Send + 'static,
{
    start_apart(broker, Arc::clone(broker), options, handler).await
}

/// The worker on one broker handle, the test's connection on another handle of the same broker.
pub(super) async fn start_apart<F>(
    broker: &Arc<dyn Broker>,
    workers_broker: Arc<dyn Broker>,
    options: RunOptions,
    handler: impl Fn(Envelope<BatchSplit>) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = Result<Outputs, Failure>> + Send + 'static,
{
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    let shutdown = Shutdown::new();
    let worker = Scripted { handler: Box::new(move |envelope| handler(envelope).boxed()) };
    let task = tokio::spawn(run(Arc::new(worker), workers_broker, options, shutdown.clone()));
    Running { connection, shutdown, task }
}

impl Running {
    pub(super) async fn publish(&self, outgoing: Outgoing) {
        self.connection.publisher().await.unwrap().publish(outgoing).await.unwrap();
    }

    async fn dead(&self) -> Properties {
        let mut dead = self.connection.consume(&topology::dead_queue(queue::MERGER), 1).await.unwrap();
        let delivery = next(&mut dead).await;
        delivery.settle.ack().await.unwrap();
        delivery.properties
    }

    /// Stops the worker and checks that nothing is left behind.
    pub(super) async fn finish(self) {
        self.shutdown.cancel();
        wait::soon("the end of the worker", self.task).await.unwrap().unwrap();
        let mut queues = vec![queue::MERGER.to_owned(), topology::dead_queue(queue::MERGER)];
        queues.extend((0..topology::RETRY_DELAYS_MS.len()).map(|retry| topology::retry_queue(queue::MERGER, retry)));
        for name in queues {
            assert_eq!(self.connection.depth(&name).await.unwrap().messages, 0, "{name} should be empty");
        }
    }
}

pub(super) fn input(batch_id: &str) -> BatchSplit {
    BatchSplit {
        batch_id: batch_id.to_owned(),
        sha256: "0".repeat(64),
        split_id: None,
        digest: None,
        refresh: None,
        chunks: 0,
        received: 0,
        accepted: 0,
        rejected: 0,
        rejected_by_reason: Default::default(),
    }
}

pub(super) fn output(batch_id: &str) -> DatasetReady {
    DatasetReady {
        batch_id: batch_id.to_owned(),
        manifest: "m".to_owned(),
        manifest_sha256: "0".repeat(64),
        rides: 0,
        revision: None,
    }
}

async fn outputs_are_published_and_the_input_is_acknowledged(broker: Arc<dyn Broker>) {
    let running =
        start(&broker, options(), |envelope| async move { Outputs::one(&output(&envelope.payload.batch_id)) }).await;
    let mut events = running.connection.consume(queue::TRAINER, 1).await.unwrap();
    let mut sent = Outgoing::message(&input("b")).unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    sent.properties.set_text(envelope::TRACEPARENT, trace);
    running.publish(sent).await;
    let event = next(&mut events).await;
    assert_eq!(event.properties.message_id, Some(output("b").message_id()));
    assert_eq!(event.properties.kind.as_deref(), Some("dataset-ready.v1"));
    assert_eq!(event.properties.app_id.as_deref(), Some(concat!("merger/", env!("CARGO_PKG_VERSION"))));
    let carried = event.properties.text(envelope::TRACEPARENT).unwrap();
    assert_eq!(carried[..36], trace[..36], "the same trace");
    assert_ne!(carried, trace, "another span");
    event.settle.ack().await.unwrap();
    running.finish().await;
}

async fn a_failed_attempt_is_retried_with_its_reason(broker: Arc<dyn Broker>) {
    let running = start(&broker, options(), |envelope| async move {
        match envelope.properties.attempt() {
            1 => Err(Failure::transient("not yet")),
            attempt => {
                assert_eq!(envelope.properties.text(envelope::HISTORY), Some("attempt 1: not yet"));
                Outputs::one(&output(&format!("attempt-{attempt}")))
            }
        }
    })
    .await;
    let mut events = running.connection.consume(queue::TRAINER, 1).await.unwrap();
    running.publish(Outgoing::message(&input("b")).unwrap()).await;
    let event = next(&mut events).await;
    assert_eq!(event.properties.message_id, Some(output("attempt-2").message_id()));
    event.settle.ack().await.unwrap();
    running.finish().await;
}

async fn the_last_attempt_becomes_a_dead_letter_with_its_history(broker: Arc<dyn Broker>) {
    let running = start(&broker, options(), |_| async { Err(Failure::transient("still not")) }).await;
    let mut sent = Outgoing::message(&input("b")).unwrap();
    sent.properties.set_count(envelope::ATTEMPT, topology::ATTEMPTS_MAX);
    sent.properties.set_text(envelope::HISTORY, "attempt 4: not yet");
    sent.properties.set_text("mine", "kept");
    // The publisher of a message does not decide where a replay publishes it.
    sent.properties.set_text(envelope::ORIGINAL_EXCHANGE, exchange::EVENTS);
    sent.properties.set_text(envelope::ORIGINAL_ROUTING_KEY, "dataset-ready.v1");
    running.publish(sent.clone()).await;
    let dead = running.dead().await;
    assert_eq!(dead.message_id, sent.properties.message_id);
    assert_eq!(dead.kind, sent.properties.kind);
    assert_eq!(dead.text("mine"), Some("kept"));
    assert_eq!(dead.text(envelope::REASON), Some("attempts_exhausted"));
    assert_eq!(dead.text(envelope::WHY), Some("attempt 5 of 5 failed: still not"));
    assert_eq!(dead.text(envelope::HISTORY), Some("attempt 4: not yet\nattempt 5: attempt 5 of 5 failed: still not"));
    assert_eq!(dead.text(envelope::ORIGINAL_EXCHANGE), Some(exchange::WORK));
    assert_eq!(dead.text(envelope::ORIGINAL_ROUTING_KEY), Some("batch-split.v1"));
    running.finish().await;
}

async fn a_permanent_failure_is_a_dead_letter_at_once(broker: Arc<dyn Broker>) {
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let running = start(&broker, options(), move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Err(Failure::permanent("batch_id_conflict", "other bytes")) }
    })
    .await;
    running.publish(Outgoing::message(&input("b")).unwrap()).await;
    let dead = running.dead().await;
    assert_eq!(dead.text(envelope::REASON), Some("batch_id_conflict"));
    assert_eq!(dead.text(envelope::WHY), Some("other bytes"));
    assert_eq!(handled.load(Ordering::Relaxed), 1);
    running.finish().await;
}

async fn an_outage_spends_no_attempt(broker: Arc<dyn Broker>) {
    let running = start(&broker, options(), |envelope| async move {
        match envelope.properties.count(envelope::OUTAGES, 0) {
            0 => Err(Failure::outage("weather service", "connection refused")),
            _ => Outputs::one(&output(&format!("attempt-{}", envelope.properties.attempt()))),
        }
    })
    .await;
    let mut events = running.connection.consume(queue::TRAINER, 1).await.unwrap();
    let mut sent = Outgoing::message(&input("b")).unwrap();
    sent.properties.set_count(envelope::ATTEMPT, topology::ATTEMPTS_MAX);
    running.publish(sent).await;
    let event = next(&mut events).await;
    assert_eq!(event.properties.message_id, Some(output("attempt-5").message_id()));
    event.settle.ack().await.unwrap();
    running.finish().await;
}

/// A message waits for a missing binding in a retry queue: no attempt and no delivery is spent, and there is no dead letter.
async fn an_unroutable_output_waits_and_spends_nothing(broker: Arc<dyn Broker>) {
    let running = start(&broker, options(), |envelope| async move {
        let properties = &envelope.properties;
        let (attempt, outages) = (properties.attempt(), properties.count(envelope::OUTAGES, 0));
        let in_vain = properties.count("x-delivery-count", 0);
        let mut outgoing = Outgoing::message(&output(&format!("{attempt}-{outages}-{in_vain}")))?;
        if outages == 0 {
            (outgoing.exchange, outgoing.routing_key, outgoing.mandatory) = (exchange::WORK, "nobody.v1".into(), true);
        } else {
            let output_text = properties.text(envelope::HISTORY).unwrap_or_default();
            assert!(
                output_text.contains("no queue takes") && output_text.contains("`wildrydes topology apply`"),
                "{output_text}"
            );
        }
        Ok(Outputs::all(vec![outgoing]))
    })
    .await;
    let mut events = running.connection.consume(queue::TRAINER, 1).await.unwrap();
    running.publish(Outgoing::message(&input("b")).unwrap()).await;
    let event = next(&mut events).await;
    assert_eq!(event.properties.message_id, Some(output("1-1-0").message_id()));
    event.settle.ack().await.unwrap();
    running.finish().await;
}

/// A dead letter that failed and waited in a retry queue keeps everything its publisher wrote, and a replay publishes the same
/// message.
async fn a_restored_dead_letter_is_the_published_message(broker: Arc<dyn Broker>) {
    let running = start(&broker, options(), |envelope| async move {
        match envelope.properties.attempt() {
            1 => Err(Failure::transient("not yet")),
            _ => Err(Failure::permanent("never", "on purpose")),
        }
    })
    .await;
    let mut sent = Outgoing::message(&input("b")).unwrap();
    let Properties { correlation_id, reply_to, content_encoding, expiration_ms, priority, headers, .. } =
        &mut sent.properties;
    (*correlation_id, *reply_to) = (Some("correlated".to_owned()), Some("somewhere".to_owned()));
    (*content_encoding, *expiration_ms, *priority) = (Some("identity".to_owned()), Some(600_000), Some(3));
    let floats = [Other::Double(0.1f64.to_bits()), Other::Float(1.5f32.to_bits()), Other::I16(-7), Other::Void];
    let floats = Header::Other(Other::Array(floats.map(Header::Other).into()));
    headers.insert("table".to_owned(), Header::Other(Other::Table([("inside".to_owned(), floats)].into())));
    headers.insert("bytes".to_owned(), Header::Other(Other::Bytes(vec![0, 255])));
    headers.insert("number".to_owned(), Header::Integer(-1));
    headers.insert("true".to_owned(), Header::Boolean(true));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert(envelope::TRACEPARENT.to_owned(), Header::Text(trace.to_owned()));
    running.publish(sent.clone()).await;
    let dead = running.dead().await;
    assert_eq!(dead.text(envelope::ORIGINAL_EXPIRATION), Some("600000"));
    assert_eq!((dead.expiration_ms, &dead.app_id, dead.timestamp), (None, &None, None), "a letter does not expire");
    assert_eq!(restored(&dead), sent.properties);
    running.finish().await;
}

async fn a_panic_is_one_failed_attempt(broker: Arc<dyn Broker>) {
    let running = start(&broker, options(), |envelope| async move {
        assert_ne!(envelope.properties.attempt(), topology::ATTEMPTS_MAX, "on purpose");
        Outputs::one(&output(&envelope.payload.batch_id))
    })
    .await;
    let mut sent = Outgoing::message(&input("panics")).unwrap();
    sent.properties.set_count(envelope::ATTEMPT, topology::ATTEMPTS_MAX);
    running.publish(sent).await;
    let dead = running.dead().await;
    assert!(dead.text(envelope::WHY).unwrap().contains("panicked"), "{dead:?}");
    let mut events = running.connection.consume(queue::TRAINER, 1).await.unwrap();
    running.publish(Outgoing::message(&input("fine")).unwrap()).await;
    let event = next(&mut events).await;
    assert_eq!(event.properties.message_id, Some(output("fine").message_id()));
    event.settle.ack().await.unwrap();
    running.finish().await;
}

async fn an_error_in_streamed_outputs_fails_the_attempt(broker: Arc<dyn Broker>) {
    let running = start(&broker, options(), |envelope| async move {
        let failed = Err(Failure::permanent("cut_short", envelope.payload.batch_id));
        Ok(Outputs::streamed(stream::iter([failed])))
    })
    .await;
    running.publish(Outgoing::message(&input("line-7")).unwrap()).await;
    let dead = running.dead().await;
    assert_eq!((dead.text(envelope::REASON), dead.text(envelope::WHY)), (Some("cut_short"), Some("line-7")));
    running.finish().await;
}

async fn an_unreadable_message_is_dead_lettered_with_its_reason(broker: Arc<dyn Broker>) {
    let running = start(&broker, options(), |_| async { panic!("never handled") }).await;
    let good = Outgoing::message(&input("b")).unwrap();
    let with_kind = |kind: &str| {
        let properties = Properties { kind: Some(kind.to_owned()), ..good.properties.clone() };
        Outgoing { properties, ..good.clone() }
    };
    for (sent, reason, output_text) in [
        (with_kind("batch-split.v2"), "unknown_version", "batch-split.v2"),
        (with_kind("batch-spilt.v1"), "unknown_kind", "batch-spilt.v1"),
        (Outgoing { body: Bytes::from_static(b"{\"batch_id\":"), ..good.clone() }, "malformed", "EOF"),
        (
            Outgoing { body: Bytes::from_static(b"{\"batch_id\":\"b\",\"sha256\":7}"), ..good.clone() },
            "malformed",
            "sha256",
        ),
    ] {
        running.publish(sent).await;
        let dead = running.dead().await;
        assert_eq!(dead.text(envelope::REASON), Some(reason));
        assert!(dead.text(envelope::WHY).unwrap().contains(output_text), "{dead:?}");
    }
    // A message without a type is read as the one kind that this worker reads, and one with a longer routing key as the kind it
    // names.
    let mut untyped = good.clone();
    untyped.properties.kind = None;
    untyped.routing_key = "batch-split.v7".to_owned();
    running.publish(untyped).await;
    assert_eq!(running.dead().await.text(envelope::REASON), Some("unknown_version"));
    running.finish().await;
}

/// A body is read as gzip or zstd by its first bytes, whatever `content_encoding` declares, and as deflate or Brotli if
/// declared. A body that is compressed twice, or in another way, becomes a dead letter whose reason names `content_encoding`.
async fn a_compressed_message_is_read_and_another_compression_is_named(broker: Arc<dyn Broker>) {
    let (send_handled, mut handled) = tokio::sync::mpsc::unbounded_channel();
    let running = start(&broker, options(), move |envelope| {
        let _ = send_handled.send(envelope.payload.batch_id);
        async { Ok(Outputs::none()) }
    })
    .await;
    let sent = |batch_id: &str, content_encoding: Option<&str>, body: Option<Vec<u8>>| {
        let mut outgoing = Outgoing::message(&input(batch_id)).unwrap();
        outgoing.properties.content_encoding = content_encoding.map(str::to_owned);
        outgoing.body = body.map_or(outgoing.body, Bytes::from);
        outgoing
    };
    let plain = |batch_id: &str| Outgoing::message(&input(batch_id)).unwrap().body;
    for (batch_id, content_encoding, body) in [
        ("gzip", Some("gzip"), Some(gzip(&plain("gzip")).await)),
        ("gzip-utf-8", Some("gzip:UTF-8"), Some(gzip(&plain("gzip-utf-8")).await)),
        ("not-declared", None, Some(gzip(&plain("not-declared")).await)),
        ("zstd", Some("ZSTD"), Some(zstd(&plain("zstd")).await)),
        ("brotli", Some("br"), Some(brotli(&plain("brotli")).await)),
        ("character-set", Some("utf-8"), None),
        ("plain-although-declared", Some("gzip"), None),
    ] {
        running.publish(sent(batch_id, content_encoding, body)).await;
        assert_eq!(wait::soon(batch_id, handled.recv()).await.as_deref(), Some(batch_id));
    }
    let twice = gzip(&gzip(&plain("twice")).await).await;
    for (content_encoding, body, output_text) in [
        (Some("gzip, gzip"), twice, "at content_encoding: compressed twice, gzip within gzip"),
        (Some("br"), vec![0xFF; 9], "at content_encoding: the br stream is broken"),
        (Some("lz4"), vec![0x04, 0x22, 0x4D, 0x18], "at content_encoding: \"lz4\": expected gzip, zstd, deflate or br"),
        (Some("gzip"), gzip(&plain("cut")).await[..20].to_vec(), "at content_encoding: the gzip stream is broken"),
    ] {
        running.publish(sent("dead", content_encoding, Some(body))).await;
        let dead = running.dead().await;
        assert_eq!(dead.text(envelope::REASON), Some("malformed"));
        assert!(dead.text(envelope::WHY).unwrap().contains(output_text), "{dead:?}");
    }
    running.finish().await;
}

async fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    GzipEncoder::new(bytes).read_to_end(&mut compressed).await.unwrap();
    compressed
}

async fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    BrotliEncoder::new(bytes).read_to_end(&mut compressed).await.unwrap();
    compressed
}

async fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    ZstdEncoder::new(bytes).read_to_end(&mut compressed).await.unwrap();
    compressed
}

async fn the_concurrency_limits_running_handlers(broker: Arc<dyn Broker>) {
    let (gate, at_once, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let entered = Arc::new(Semaphore::new(0));
    let (gate_in, most_in, entered_in) = (Arc::clone(&gate), Arc::clone(&most), Arc::clone(&entered));
    let running = start(&broker, options(), move |_| {
        let (gate, at_once, most, entered) =
            (Arc::clone(&gate_in), Arc::clone(&at_once), Arc::clone(&most_in), Arc::clone(&entered_in));
        async move {
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            entered.add_permits(1);
            gate.acquire().await.map_err(Failure::transient)?.forget();
            at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(Outputs::none())
        }
    })
    .await;
    for id in 0..6 {
        running.publish(Outgoing::message(&input(&id.to_string())).unwrap()).await;
    }
    for _ in 0..6 {
        wait::soon("the start of a handler", entered.acquire()).await.unwrap().forget();
        gate.add_permits(1);
    }
    running.finish().await;
    assert!(most.load(Ordering::SeqCst) <= 2);
}

async fn a_shutdown_lets_running_handlers_finish(broker: Arc<dyn Broker>) {
    let (entered, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (entered_in, gate_in) = (Arc::clone(&entered), Arc::clone(&gate));
    // One at a time, so that the second message is not started before the shutdown is noticed.
    let one_at_a_time = RunOptions { concurrency: 1, ..options() };
    let running = start(&broker, one_at_a_time, move |envelope| {
        let (entered, gate) = (Arc::clone(&entered_in), Arc::clone(&gate_in));
        async move {
            entered.add_permits(1);
            gate.acquire().await.map_err(Failure::transient)?.forget();
            Outputs::one(&output(&envelope.payload.batch_id))
        }
    })
    .await;
    let mut events = running.connection.consume(queue::TRAINER, 1).await.unwrap();
    running.publish(Outgoing::message(&input("running")).unwrap()).await;
    wait::soon("the start of the handler", entered.acquire()).await.unwrap().forget();
    running.shutdown.cancel();
    let late = Outgoing::message(&input("late")).unwrap();
    running.publish(late.clone()).await;
    // Lets the loop see the shutdown while the handler still runs, then releases every handler.
    tokio::task::yield_now().await;
    gate.add_permits(2);
    let event = next(&mut events).await;
    assert_eq!(event.properties.message_id, Some(output("running").message_id()));
    event.settle.ack().await.unwrap();
    wait::soon("the end of the worker", running.task).await.unwrap().unwrap();
    assert_eq!(entered.available_permits(), 0, "what came after the shutdown is not begun");
    let mut left = running.connection.consume(queue::MERGER, 2).await.unwrap();
    let delivery = next(&mut left).await;
    assert_eq!(delivery.properties.message_id, late.properties.message_id);
    delivery.settle.ack().await.unwrap();
    assert_eq!(running.connection.depth(queue::MERGER).await.unwrap().messages, 0);
    assert_eq!(running.connection.depth(queue::TRAINER).await.unwrap().messages, 0);
}

async fn a_straggler_is_named_and_delivered_again(broker: Arc<dyn Broker>) {
    let entered = Arc::new(Semaphore::new(0));
    let entered_in = Arc::clone(&entered);
    let hasty = RunOptions { drain_deadline: Duration::from_millis(10), ..options() };
    let running = start(&broker, hasty, move |_| {
        entered_in.add_permits(1);
        std::future::pending()
    })
    .await;
    running.publish(Outgoing::message(&input("slow")).unwrap()).await;
    wait::soon("the start of the handler", entered.acquire()).await.unwrap().forget();
    running.shutdown.cancel();
    let ended = wait::soon("the end of the worker", running.task).await.unwrap();
    let error = ended.expect_err("unfinished work is no success").to_string();
    assert!(error.contains(&input("slow").message_id()), "{error}");
    let mut again = running.connection.consume(queue::MERGER, 1).await.unwrap();
    let delivery = next(&mut again).await;
    assert!(delivery.redelivered);
    delivery.settle.ack().await.unwrap();
}

/// Every replica of a scorer receives events through its own subscription.
#[tokio::test]
async fn subscriptions_reach_every_replica_of_a_worker() {
    struct Replica(Arc<Semaphore>);
    impl Worker for Replica {
        const NAME: &'static str = queue::SCORER;
        type In = ModelPromoted;
        async fn handle(&self, _: Envelope<ModelPromoted>) -> Result<Outputs, Failure> {
            self.0.add_permits(1);
            Ok(Outputs::none())
        }
        async fn connected(&self) -> Result<(), Failure> {
            self.0.add_permits(1);
            Ok(())
        }
    }
    let broker: Arc<dyn Broker> = super::in_process();
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    let (heard, shutdown) = (Arc::new(Semaphore::new(0)), Shutdown::new());
    let replicas: Vec<_> = (0..2)
        .map(|_| {
            tokio::spawn(run(Arc::new(Replica(Arc::clone(&heard))), Arc::clone(&broker), options(), shutdown.clone()))
        })
        .collect();
    wait::soon("both replicas to connect", heard.acquire_many(2)).await.unwrap().forget();
    let event = ModelPromoted {
        model: "m".into(),
        model_id: "1".into(),
        object: "models/m/1/model.json".into(),
        previous_model_id: None,
        why: None,
    };
    connection.publisher().await.unwrap().publish(Outgoing::message(&event).unwrap()).await.unwrap();
    wait::soon("the event at both replicas", heard.acquire_many(2)).await.unwrap().forget();
    shutdown.cancel();
    for replica in replicas {
        replica.await.unwrap().unwrap();
    }
}
