//! Tests that duplicated and reordered messages change no byte.

use common::{
    exchange,
    message::{BatchSplit, decode},
    outcome::Outgoing,
    topology::queue,
};
use pipeline_tests::{
    processes::{Fleet, Input, json_output},
    wait,
};
use runtime::{
    AmqpBroker, Broker,
    broker::{Consumer, Delivery},
};

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    wait::soon("a message", consumer.next()).await.expect("the broker lives")
}

/// Every chunk of a batch reaches the weather-fetcher twice and in reverse: the manifest, with the digests of the dataset's
/// files, is that of an undisturbed run, and so is the model.
#[tokio::test]
async fn chunks_delivered_twice_and_in_reverse_change_no_byte() {
    let input = Input::of(3_000);
    let undisturbed = input.run(&[]);
    let others = [queue::SPLITTER, queue::MERGER, queue::TRAINER, queue::SCORER];
    let mut fleet = Fleet::start_some(&others, 1, &input.weather, &[("WILDRYDES__SPLITTER__CHUNK_SIZE", "100")]);
    let broker = AmqpBroker::new(fleet.broker.clone());
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    let mut splits = connection.subscribe(exchange::WORK, "batch-split.#", 1).await.unwrap();
    let submitted = json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides));
    let split = next(&mut splits).await;
    let chunks = usize::try_from(decode::<BatchSplit>(&split.body).unwrap().chunks).unwrap();
    assert!(chunks >= 29, "{chunks}");

    // The chunks are taken off the queue, and put back twice each, the last one first.
    let mut held = Vec::new();
    let mut waiting = connection.consume(queue::WEATHER_FETCHER, 100).await.unwrap();
    for _ in 0..chunks {
        let Delivery { properties, body, routing_key, settle, .. } = next(&mut waiting).await;
        settle.ack().await.unwrap();
        held.push(Outgoing { exchange: exchange::WORK, routing_key, properties, body, mandatory: true });
    }
    drop(waiting);
    connection.close().await;
    let connection = broker.connect("test").await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    for chunk in held.into_iter().rev() {
        publisher.publish(chunk.clone()).await.unwrap();
        publisher.publish(chunk).await.unwrap();
    }
    connection.close().await;
    fleet.launch(queue::WEATHER_FETCHER, 0);

    // Every copy was handled, not only the first of each.
    fleet.wait_for("both copies of every chunk", |_| fleet.done(queue::MERGER) > 2 * chunks);
    assert_eq!(fleet.done(queue::WEATHER_FETCHER), 2 * chunks);
    let batch_id = submitted["batch_id"].as_str().unwrap();
    assert_eq!(fleet.manifest(batch_id), undisturbed["batches"][0]["manifest"]);
    assert_eq!(fleet.champion()["model_id"], undisturbed["model"]["model_id"]);
    fleet.finish().await;
}
