use super::batches::{all, merge, table};
use common::{
    contract::{
        dead_letter::{Letter, ended_with_process, whole},
        envelope::{self, Properties},
        layout,
        message::BatchSplit,
        ride::Counts,
        topology::queue,
        waiting::{WAITING_SCHEMA, Waiting},
    },
    runtime::{Store, host, store},
};
use object_store::memory::InMemory;
use serde_json::{Value, json};
use std::sync::Arc;

fn empty() -> Store {
    Arc::new(InMemory::new())
}

async fn write(store: &Store, path: &str, document: &Value) {
    store::write(store, path, document.to_string()).await.unwrap();
}

async fn claim(store: &Store, batch_id: &str) {
    let claim = json!({ "batch_id": batch_id, "sha256": "0".repeat(64), "chunk_size": 10, "source": "rides.json" });
    write(store, &layout::claim(batch_id), &claim).await;
}

async fn ready(store: &Store, batch_id: &str, received: u64) {
    let manifest = json!({
        "schema": "dataset-manifest.v1", "batch_id": batch_id, "sha256": "0".repeat(64), "columns": [],
        "received": received, "accepted": received, "rejected": 0, "rejected_by_reason": {}, "without_weather": {},
        "labelled": received, "trainable": received, "stations": {}, "files": [],
    });
    write(store, &layout::manifest(batch_id), &manifest).await;
}

fn letter(of: &str, reason: &str, body: &Value) -> (Letter, Value) {
    let mut properties = Properties::default();
    properties.set_text(envelope::REASON, reason);
    properties.set_text(envelope::WHY, "line 7 of S.csv");
    properties.set_text(envelope::DEAD_AT, "2002-03-04T05:06:07Z");
    let body = body.to_string();
    let letter = Letter::read(of, "", &properties, body.as_bytes());
    let copy = whole(&letter, &properties, body.as_bytes());
    (letter, copy)
}

async fn keep(store: &Store, (letter, copy): (Letter, Value)) {
    write(store, &layout::dropped(&letter.queue, &letter.id), &copy).await;
}

async fn states(store: &Store) -> Vec<(String, &'static str)> {
    let mut found: Vec<_> =
        all(store, None).await.unwrap().into_iter().map(|batch| (batch.batch_id, batch.state)).collect();
    found.sort();
    found
}

/// A dropped letter ends its batch, until the message that it was has succeeded or the dataset is there.
#[tokio::test]
async fn a_batch_whose_letter_was_dropped_ends_as_dropped() {
    let store = empty();
    for batch_id in ["chunk", "again", "done", "other-bytes", "goes-on"] {
        claim(&store, batch_id).await;
    }
    for (batch_id, reason) in [("chunk", "weather_unusable"), ("again", "weather_unusable"), ("done", "x")] {
        keep(&store, letter(queue::WEATHER_FETCHER, reason, &json!({ "batch_id": batch_id, "chunk": 2 }))).await;
    }
    keep(&store, letter(queue::SPLITTER, "batch_id_conflict", &json!({ "batch_id": "other-bytes" }))).await;
    keep(&store, letter(queue::SPLITTER, "not_a_batch", &json!({ "batch_id": "never-split" }))).await;
    write(&store, &layout::staged_chunk("chunk", 1), &json!({})).await;
    write(&store, &layout::staged_chunk("again", 2), &json!({})).await;
    ready(&store, "done", 3).await;
    let expected = [
        ("again", "in progress"),
        ("chunk", "dropped"),
        ("done", "ready"),
        ("goes-on", "in progress"),
        ("never-split", "dropped"),
        ("other-bytes", "in progress"),
    ];
    assert_eq!(states(&store).await, expected.map(|(batch_id, state)| (batch_id.to_owned(), state)));
    let one = all(&store, Some("never-split")).await.unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].why.as_deref(), Some("by the splitter: not_a_batch: line 7 of S.csv"));
}

/// The letters of a broker that ended with its process were dropped by nobody.
#[tokio::test]
async fn a_batch_that_failed_within_one_process_is_refused() {
    let store = empty();
    claim(&store, "b").await;
    let (letter, copy) = letter(queue::WEATHER_FETCHER, "weather_unusable", &json!({ "batch_id": "b", "chunk": 0 }));
    keep(&store, (letter, ended_with_process(copy))).await;
    let batches = all(&store, None).await.unwrap();
    let lines = table(&batches, &[]);
    assert!(lines[1].contains("refused") && lines[1].contains("weather_unusable: line 7 of S.csv"), "{lines:?}");
}

#[tokio::test]
async fn a_batch_in_progress_names_what_it_waits_for() {
    let store = empty();
    claim(&store, "b").await;
    claim(&store, "c").await;
    let split = BatchSplit {
        batch_id: "b".to_owned(),
        sha256: "0".repeat(64),
        chunks: 3,
        received: 25,
        accepted: 25,
        rejected: 0,
        rejected_by_reason: Counts::new(),
    };
    write(&store, &layout::staged_split("b"), &serde_json::to_value(split).unwrap()).await;
    write(&store, &layout::staged_chunk("b", 0), &json!({})).await;
    let now = host::now().strftime("%FT%TZ").to_string();
    let waiting = Waiting {
        schema: WAITING_SCHEMA.to_owned(),
        worker: queue::WEATHER_FETCHER.to_owned(),
        why: "weather service is away: 503".to_owned(),
        batch_id: Some("b".to_owned()),
        since: now.clone(),
        at: now,
        outages: 3,
    };
    write(&store, &layout::waiting(queue::WEATHER_FETCHER), &serde_json::to_value(waiting).unwrap()).await;
    let batches = all(&store, None).await.unwrap();
    let lines = table(&batches, &[]).join("\n");
    assert!(lines.contains("10 of 25 rides joined; weather-fetcher waits since"), "{lines}");
    assert_eq!(lines.matches("weather service is away: 503").count(), 1, "that batch alone: {lines}");
}

/// Letters of known batches mark these; letters of others stand for batches of their own. All are in the order of time.
#[tokio::test]
async fn refused_batches_are_listed_among_the_others_by_time() {
    let store = empty();
    claim(&store, "b").await;
    claim(&store, "empty").await;
    ready(&store, "empty", 0).await;
    let mut batches = all(&store, None).await.unwrap();
    let of = |batch_id: &str, reason| letter(queue::SPLITTER, reason, &json!({ "batch_id": batch_id })).0;
    let unknown = Letter { dead_at: Some("2001-01-01T00:00:00Z".parse().unwrap()), ..of("x", "cut_short") };
    let others = merge(&mut batches, vec![unknown, of("b", "object_missing"), of("empty", "batch_id_conflict")]);
    let lines = table(&batches, &others);
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines[0].starts_with("batch") && lines[0].contains("newest last"), "{lines:?}");
    assert!(lines[1].starts_with("x ") && lines[1].contains("refused") && lines[1].contains("cut_short"), "{lines:?}");
    assert!(lines[2].starts_with("empty ") && lines[2].contains("batch_id_conflict"), "{lines:?}");
    let text = lines.join("\n");
    assert!(text.contains("no ride in it") && text.contains("by the splitter: object_missing"), "{text}");
    assert_eq!(table(&[], &[]), Vec::<String>::new());
}
