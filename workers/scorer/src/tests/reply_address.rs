//! Where the scorer sends its answers, on the in-process broker.

use super::*;
use common::{
    envelope,
    topology::{self, queue},
};
use runtime::{
    Broker, MemoryBroker, Shutdown,
    client::Client,
    worker::{RunOptions, run},
};
use std::time::Duration;

/// Bounds a wait.
const SOON: Duration = Duration::from_secs(60);

/// A request that names a queue of the fleet as reply address is refused, decodable or not, and nothing is published there; one with
/// a reply queue is answered.
#[tokio::test]
async fn a_request_cannot_make_the_scorer_write_into_a_queue_of_the_fleet() {
    let store = memory();
    put_model(&store, "a").await;
    put_champion(&store, &["a"]).await;
    let (broker, stop) = (Arc::new(MemoryBroker::new()), Shutdown::new());
    let scorer = Scorer::new(Settings::default(), store);
    let running = tokio::spawn(run(Arc::new(scorer), broker.clone(), RunOptions::default(), stop.clone()));
    let connection = broker.connect("test").await.unwrap();
    connection.declare().await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    let mut letters = connection.consume(&topology::dead_queue(queue::SCORER), 1).await.unwrap();
    let readable = Outgoing::message(&request(1)).unwrap();
    let unreadable = Outgoing { body: Bytes::from_static(b"{"), ..readable.clone() };
    for target in ["merger", "merger.dead", "scorer", "scorer.dead", "merger.retry.0", "answers", ""] {
        for mut asked in [readable.clone(), unreadable.clone()] {
            asked.properties.reply_to = Some(target.to_owned());
            publisher.publish(asked).await.unwrap();
            let letter = tokio::time::timeout(SOON, letters.next()).await.unwrap().unwrap();
            assert_eq!(letter.properties.text(envelope::REASON), Some("foreign_reply_to"), "{target}");
            assert_eq!(letter.properties.kind.as_deref(), Some("score-request.v1"));
            letter.settle.ack().await.unwrap();
        }
    }
    let client = Client::connect(broker.as_ref(), "test").await.unwrap();
    let response = client.score(&request(1), SOON).await.unwrap();
    assert_eq!(response.model_id.as_deref(), Some("a"));
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(broker.unfinished().is_empty(), "{:?}", broker.unfinished());
}

/// While its dead-letter queue is full, the scorer drops requests that it cannot answer, and answers the others: no client can stop
/// it.
#[tokio::test]
async fn a_full_dead_letter_queue_does_not_stop_the_scorer() {
    let store = memory();
    put_model(&store, "a").await;
    put_champion(&store, &["a"]).await;
    let (broker, stop) = (Arc::new(MemoryBroker::with_dead_bytes_max(1)), Shutdown::new());
    let scorer = Scorer::new(Settings::default(), store);
    let running = tokio::spawn(run(Arc::new(scorer), broker.clone(), RunOptions::default(), stop.clone()));
    let client = Client::connect(broker.as_ref(), "test").await.unwrap();
    let connection = broker.connect("test").await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    for _ in 0..50 {
        publisher.publish(Outgoing::message(&request(1)).unwrap()).await.unwrap();
    }
    client.score(&request(1), SOON).await.unwrap();
    // Requests start in their order, and a shutdown finishes those that have started.
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(!broker.unfinished().contains_key(queue::SCORER), "{:?}", broker.unfinished());
    assert_eq!(connection.depth(&topology::dead_queue(queue::SCORER)).await.unwrap().messages, 1, "as many as fit");
}
