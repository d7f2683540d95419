//! A queue that is purged or deleted while its worker reads it, and a full dead-letter queue.

use crate::{
    containers::Container,
    disturbed::{Disturbed, Observed, Plan},
    processes::json_output,
    wait,
};
use common::{
    envelope::{self, Properties},
    exchange,
    outcome::Outgoing,
    topology::{dead_queue, queue},
};
use runtime::{AmqpBroker, Broker};
use std::collections::BTreeSet;

/// Purges the merger's queue while the merger reads it. `wildrydes status` shows what is missing, nothing else is affected, and
/// publishing the batch again completes it.
pub async fn purged(plan: &Plan, broker: &Container) -> Observed {
    let mut batch = Disturbed::begin(plan, broker.settings());
    batch.until(0.1);
    // Suspended while it holds deliveries, so that there is something to purge.
    batch.fleet.pause(queue::MERGER, 0);
    batch.settled(&[queue::SPLITTER, queue::WEATHER_FETCHER]).await;
    let lost = batch.fleet.depth(queue::MERGER).await.messages;
    assert!(lost > 0, "there should be something to lose");
    broker.ctl(&["purge_queue", &name(&batch, queue::MERGER)]);
    batch.count_fault();
    batch.fleet.go_on(queue::MERGER, 0);
    batch.settled(&[queue::MERGER]).await;
    assert!(!batch.is_ready(), "{lost} messages are missing");
    told_incomplete(&batch);
    json_output(batch.fleet.wildrydes().arg("ingest").arg(&batch.input.rides));
    batch.end(format!("{lost} messages purged, published again")).await
}

/// Deletes the weather-fetcher's queue while the weather-fetcher reads it: it logs this and declares the queue again;
/// publishing the batch again completes it.
pub async fn deleted(plan: &Plan, broker: &Container) -> Observed {
    let mut batch = Disturbed::begin(plan, broker.settings());
    batch.until(0.1);
    batch.fleet.pause(queue::WEATHER_FETCHER, 0);
    batch.settled(&[queue::SPLITTER, queue::MERGER]).await;
    let lost = batch.fleet.depth(queue::WEATHER_FETCHER).await.messages;
    assert!(lost > 0, "there should be something to lose");
    broker.ctl(&["delete_queue", &name(&batch, queue::WEATHER_FETCHER)]);
    batch.count_fault();
    batch.fleet.go_on(queue::WEATHER_FETCHER, 0);
    batch.fleet.wait_for_line(queue::WEATHER_FETCHER, "was the queue deleted?");
    batch.fleet.wait_for_sessions(&[queue::WEATHER_FETCHER], 2);
    batch.settled(&[queue::WEATHER_FETCHER, queue::MERGER]).await;
    assert!(!batch.is_ready(), "{lost} messages are missing");
    told_incomplete(&batch);
    json_output(batch.fleet.wildrydes().arg("ingest").arg(&batch.input.rides));
    batch.end(format!("{lost} messages gone with it, published again")).await
}

/// Fills the splitter's dead-letter queue: the splitter holds the next message and says so, loses none, and continues as dead
/// letters are removed.
pub async fn dead_letters_full(plan: &Plan, broker: &Container) -> Observed {
    const POISONED: usize = 6;
    let settings = broker.settings();
    let dead = format!("{}{}", settings.namespace, dead_queue(queue::SPLITTER));
    let policy = r#"{"max-length":2,"overflow":"reject-publish"}"#;
    broker.ctl(&["set_policy", "--apply-to", "queues", "full", &format!("^{}$", dead.replace('.', "\\.")), policy]);
    let connection = AmqpBroker::new(settings.clone()).connect("test").await.expect("the broker answers");
    connection.declare().await.expect("the topology");
    let publisher = connection.publisher().await.expect("a publisher");
    let poison = |id: usize| Outgoing {
        exchange: exchange::INGEST,
        routing_key: "ride-batch.v1".to_owned(),
        properties: Properties { message_id: Some(format!("poison-{id}")), persistent: true, ..Properties::default() },
        body: "no rides at all".into(),
        mandatory: true,
    };
    for id in 0..POISONED {
        publisher.publish(poison(id)).await.expect("it is taken");
    }
    // The batch is queued behind them.
    let mut batch = Disturbed::begin(plan, settings);
    batch.fleet.wait_for_line(queue::SPLITTER, "the queue is full");
    // The planned duration of the fault: the splitter holds its message for so long.
    tokio::time::sleep(plan.away).await;
    batch.count_fault();
    let held = batch.fleet.depth(&dead_queue(queue::SPLITTER)).await.messages;
    assert!(held < POISONED as u64, "{held} dead letters where 2 should be the limit");
    let mut expected: BTreeSet<String> = (0..POISONED).map(|id| format!("poison-{id}")).collect();
    let mut letters = connection.consume(&dead_queue(queue::SPLITTER), 100).await.expect("a consumer");
    while !expected.is_empty() {
        let letter = wait::soon("a dead letter", letters.next()).await.expect("a delivery");
        assert!(letter.properties.text(envelope::REASON).is_some(), "{:?}", letter.properties);
        expected.remove(&letter.properties.message_id.expect("its id"));
        letter.settle.ack().await.expect("it is acknowledged");
    }
    connection.close().await;
    batch.await_dataset();
    broker.ctl(&["clear_policy", "full"]);
    batch.end(format!("{held} of {POISONED} dead letters fitted, the others waited")).await
}

fn name(batch: &Disturbed, queue: &str) -> String {
    format!("{}{queue}", batch.fleet.broker.namespace)
}

/// Checks that `wildrydes status` shows the batch as incomplete.
fn told_incomplete(batch: &Disturbed) {
    let status = json_output(batch.fleet.wildrydes().args(["status", &batch.batch_id]));
    assert_eq!(status["batches"][0]["state"], "in progress", "{status}");
}
