//! Publishing of files, and outcomes by dead letters.

use super::{
    Follower, Goal, Submission,
    input::{Input, open_all},
    options::FollowOptions,
    outcome::BatchOutcome,
    submit::{Form, keep, submit_all},
};
use common::{
    dataset::{Claim, FIRST_REVISION},
    dead_letter::BATCH_ID_CONFLICT,
    envelope::{self, Properties},
    exchange,
    message::{BatchContent, DatasetReady, RideBatch, decode},
    outcome::Outgoing,
    reading::{Mapping, Reading},
    topology::queue,
};
use object_store::memory::InMemory;
use records::{Store, layout, store};
use runtime::{Broker, MemoryBroker, client::Client};
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};

/// Submits a file of rides.
async fn submit(broker: &MemoryBroker, reading: &Reading) -> (Client, Store, Follower, Vec<Submission>) {
    let shared: Arc<dyn Broker> = Arc::new(broker.clone());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rides of today.json");
    std::fs::write(&path, "[{}]").unwrap();
    let client = Client::connect(broker, "test").await.unwrap();
    let store: Store = Arc::new(InMemory::new());
    let follower = Follower::start(&shared, &client, &store).await.unwrap();
    let inputs = open_all(&[path], Duration::ZERO, true).await.unwrap();
    let submissions = submit_all(&client, &store, inputs, Form { batch_id: None, reading }, true).await.unwrap();
    (client, store, follower, submissions)
}

#[tokio::test]
async fn batch_references_its_bytes_and_carries_its_reading() {
    let broker = MemoryBroker::new();
    let listener = Client::connect(&broker, "listener").await.unwrap();
    let mut published = listener.listen(exchange::INGEST, "#").await.unwrap();
    let mut map = Mapping::default();
    map.add("distance=km*0.621371").unwrap();
    let reading = Reading { rides_at: Some("data".parse().unwrap()), map };
    let (_, store, _, submissions) = submit(&broker, &reading).await;
    let batch: RideBatch = decode(&published.next().await.unwrap().body).unwrap();
    let BatchContent::Reference { object, sha256 } = &batch.content else { panic!("{batch:?}") };
    assert_eq!((&batch.reading, batch.batch_id.as_deref()), (&reading, None));
    assert_eq!(
        (batch.source.as_deref(), &submissions[0].batch_id),
        (Some("rides of today.json"), &reading.batch_id(sha256))
    );
    assert_ne!(submissions[0].batch_id, Reading::default().batch_id(sha256));
    assert_eq!(store::read(&store, object).await.unwrap().unwrap(), "[{}]");
    assert!(!submissions[0].was_there);
}

/// Opens a file with this text.
async fn open(text: &str) -> Input {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rides.json");
    std::fs::write(&path, text).unwrap();
    open_all(&[path], Duration::ZERO, true).await.unwrap().pop().unwrap()
}

#[tokio::test]
async fn damaged_copy_is_replaced() {
    let store: Store = Arc::new(InMemory::new());
    let (input, sha256) = (open("[{}]").await, hex::encode(Sha256::digest("[{}]")));
    for damage in ["[[]]", "[{}", ""] {
        store::write(&store, "raw/a", damage).await.unwrap();
        keep(&store, &input, "raw/a", &sha256, true).await.unwrap();
        assert_eq!(store::read(&store, "raw/a").await.unwrap().unwrap(), "[{}]", "after {damage:?}");
    }
}

#[tokio::test]
async fn file_that_grows_while_it_is_read_is_refused_and_not_stored() {
    let store: Store = Arc::new(InMemory::new());
    let (input, before) = (open("[{},{}]").await, hex::encode(Sha256::digest("[{},")));
    let why = keep(&store, &input, "raw/a", &before, true).await.unwrap_err();
    assert!(format!("{why:#}").contains("changed while it was read"), "{why:#}");
    assert_eq!(store::read(&store, "raw/a").await.unwrap(), None);
}

#[tokio::test]
async fn second_file_with_the_same_bytes_takes_the_first_files_earlier_dataset() {
    let broker = MemoryBroker::new();
    let (client, store, _, first) = submit(&broker, &Reading::default()).await;
    let manifest = records::layout::manifest(&first[0].batch_id, FIRST_REVISION);
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.json", "b.json"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| std::fs::write(path, "[{}]").unwrap());
    store::write(&store, &manifest, "{}").await.unwrap();
    let inputs = open_all(&paths, Duration::ZERO, true).await.unwrap();
    let form = Form { batch_id: None, reading: &Reading::default() };
    let again = submit_all(&client, &store, inputs, form, true).await.unwrap();
    assert_eq!(again.iter().map(|batch| batch.was_there).collect::<Vec<_>>(), [true, true]);
}

#[tokio::test]
async fn dead_letters_of_chunks_refuse_their_batch_with_the_first_reason_and_their_number() {
    let broker = MemoryBroker::new();
    let (client, store, mut follower, submissions) = submit(&broker, &Reading::default()).await;
    let connection = broker.connect("worker").await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    let letter = |trace_id: &str, why: &str| {
        let mut properties = Properties::default();
        properties.set_text(envelope::TRACEPARENT, format!("00-{trace_id}-00f067aa0ba902b7-01"));
        properties.set_text(envelope::REASON, "weather_unusable");
        properties.set_text(envelope::WHY, why);
        let routing_key = queue::WEATHER_FETCHER.to_owned();
        Outgoing { exchange: exchange::DEAD, routing_key, properties, body: "{}".into(), mandatory: true }
    };
    let trace_id = submissions[0].trace_id.clone();
    publisher.publish(letter(&"4b".repeat(16), "another batch")).await.unwrap();
    for why in ["USW00094728.csv, line 7, column DATE: \"20180230\"", "the second", "the third"] {
        publisher.publish(letter(&trace_id, why)).await.unwrap();
    }
    let follow_options = FollowOptions { goal: Goal::Model, quiet: true, patience: Duration::ZERO, in_fleet: true };
    let outcome = follower.follow(&client, &store, submissions, follow_options).await.unwrap();
    let (submission, outcome) = &outcome.batches[0];
    assert!(matches!(outcome, BatchOutcome::Refused { letters: 3, .. }));
    let text = outcome.refusal(submission, true).unwrap();
    for part in
        ["failed in the weather-fetcher", "weather_unusable", "line 7, column DATE", "3 messages", "dead list --batch"]
    {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    assert!(outcome.refusal(submission, false).unwrap().contains("run the same command again"));
}

/// A dead letter of `worker` in the trace `trace_id`.
fn dead_letter(trace_id: &str, worker: &str, headers: &[(&str, &str)]) -> Outgoing {
    let mut properties = Properties::default();
    properties.set_text(envelope::TRACEPARENT, format!("00-{trace_id}-00f067aa0ba902b7-01"));
    for (name, value) in headers {
        properties.set_text(name, *value);
    }
    let routing_key = worker.to_owned();
    Outgoing { exchange: exchange::DEAD, routing_key, properties, body: "{}".into(), mandatory: true }
}

#[tokio::test]
async fn dataset_of_another_publishers_batch_with_the_same_id_is_ignored() {
    let broker = MemoryBroker::new();
    let (client, store, mut follower, submissions) = submit(&broker, &Reading::default()).await;
    let connection = broker.connect("worker").await.unwrap();
    let publisher = connection.publisher().await.unwrap();
    let claim = Claim {
        batch_id: submissions[0].batch_id.clone(),
        sha256: "0".repeat(64),
        chunk_size: 1,
        source: None,
        object: None,
        listed: None,
        reading: Reading::default(),
    };
    let path = layout::claim(&claim.batch_id);
    store::write(&store, &path, serde_json::to_vec(&claim).unwrap()).await.unwrap();
    let manifest = layout::manifest(&claim.batch_id, FIRST_REVISION);
    let ready =
        DatasetReady { batch_id: claim.batch_id, manifest, manifest_sha256: "1".repeat(64), rides: 9, revision: None };
    publisher.publish(Outgoing::message(&ready).unwrap()).await.unwrap();
    let headers = [(envelope::REASON, BATCH_ID_CONFLICT), (envelope::WHY, "it stands for other bytes")];
    publisher.publish(dead_letter(&submissions[0].trace_id, queue::SPLITTER, &headers)).await.unwrap();
    let follow_options = FollowOptions { goal: Goal::Dataset, quiet: true, patience: Duration::ZERO, in_fleet: true };
    let outcome = follower.follow(&client, &store, submissions, follow_options).await.unwrap();
    assert!(matches!(&outcome.batches[0].1, BatchOutcome::Refused { reason, .. } if reason == BATCH_ID_CONFLICT));
}

#[tokio::test]
async fn message_dead_lettered_by_the_broker_is_reported_with_the_brokers_reason() {
    for (reason, words) in [
        ("maxlen", "max-length or overflow"),
        ("expired", "message-ttl"),
        ("delivery_limit", "delivered"),
        ("rejected", "dead-lettered by the broker: rejected"),
    ] {
        let broker = MemoryBroker::new();
        let (client, store, mut follower, submissions) = submit(&broker, &Reading::default()).await;
        let connection = broker.connect("worker").await.unwrap();
        let publisher = connection.publisher().await.unwrap();
        let letter = dead_letter(&submissions[0].trace_id, queue::MERGER, &[("x-first-death-reason", reason)]);
        publisher.publish(letter).await.unwrap();
        let follow_options =
            FollowOptions { goal: Goal::Dataset, quiet: true, patience: Duration::ZERO, in_fleet: true };
        let outcome = follower.follow(&client, &store, submissions, follow_options).await.unwrap();
        let BatchOutcome::Refused { why, .. } = &outcome.batches[0].1 else { panic!("{reason}: not refused") };
        assert!(why.contains(words), "{reason}: {why}");
    }
}
