use super::{
    batches::{BatchStatus, Which, list, merge, outcome, shown, table, without_reader},
    table::{QueueStatus, letters_note},
};
use common::{
    dataset::{FIRST_REVISION, Manifest},
    dead_letter::{Letter, ended_with_process, whole},
    envelope::{self, Properties},
    message::{BatchSplit, WorkerControl},
    ride::Counts,
    schema::Described,
    topology::queue,
    waiting::Waiting,
};
use object_store::memory::InMemory;
use records::{Store, batches::State, layout, store};
use runtime::host;
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

fn manifest(batch_id: &str, received: u64, by_reason: &Value) -> Value {
    let rejected: u64 = by_reason.as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let accepted = received - rejected;
    json!({
        "schema": "dataset-manifest.v1", "batch_id": batch_id, "sha256": "0".repeat(64), "columns": [],
        "received": received, "accepted": accepted, "rejected": rejected, "rejected_by_reason": by_reason,
        "without_weather": {}, "labelled": accepted, "trainable": accepted, "stations": {}, "files": [],
    })
}

async fn ready(store: &Store, batch_id: &str, received: u64) {
    write(store, &layout::manifest(batch_id, FIRST_REVISION), &manifest(batch_id, received, &json!({}))).await;
}

/// Writes the split of a batch into three chunks.
async fn split(store: &Store, batch_id: &str, accepted: u64) {
    let split = BatchSplit {
        batch_id: batch_id.to_owned(),
        sha256: "0".repeat(64),
        split_id: None,
        digest: None,
        refresh: None,
        chunks: 3,
        received: accepted,
        accepted,
        rejected: 0,
        rejected_by_reason: Counts::new(),
    };
    write(store, &layout::staged_split(batch_id, None), &serde_json::to_value(split).unwrap()).await;
}

fn wait(worker: &str, batch_id: Option<&str>, outages: u32) -> Waiting {
    let now = host::now().strftime("%FT%TZ").to_string();
    Waiting {
        schema: Waiting::SCHEMA.name.to_owned(),
        worker: worker.to_owned(),
        why: "503".to_owned(),
        batch_id: batch_id.map(str::to_owned),
        since: now.clone(),
        at: now,
        outages,
        attempt: (outages == 0).then_some(1),
    }
}

fn paused(worker: &str) -> WorkerControl {
    WorkerControl {
        worker: worker.to_owned(),
        paused: true,
        by: "ada".to_owned(),
        at: "2026-11-24T07:37:11Z".to_owned(),
        why: None,
    }
}

async fn batches(store: &Store) -> Vec<BatchStatus> {
    shown(store, Which::Newest(50), &[], &[]).await.unwrap().batches
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

async fn states(store: &Store) -> Vec<(String, State)> {
    let mut found: Vec<_> = batches(store).await.into_iter().map(|batch| (batch.batch_id, batch.state)).collect();
    found.sort();
    found
}

#[tokio::test]
async fn batch_is_dropped_unless_its_dropped_message_succeeded_or_its_dataset_is_complete() {
    let store = empty();
    for batch_id in ["chunk", "again", "done", "other-bytes", "goes-on"] {
        claim(&store, batch_id).await;
    }
    for (batch_id, reason) in [("chunk", "weather_unusable"), ("again", "weather_unusable"), ("done", "x")] {
        keep(&store, letter(queue::WEATHER_FETCHER, reason, &json!({ "batch_id": batch_id, "chunk": 2 }))).await;
    }
    keep(&store, letter(queue::SPLITTER, "batch_id_conflict", &json!({ "batch_id": "other-bytes" }))).await;
    keep(&store, letter(queue::SPLITTER, "not_a_batch", &json!({ "batch_id": "never-split" }))).await;
    write(&store, &layout::staged_chunk("chunk", None, 1), &json!({})).await;
    write(&store, &layout::staged_chunk("again", None, 2), &json!({})).await;
    ready(&store, "done", 3).await;
    let expected = [
        ("again", State::InProgress),
        ("chunk", State::Dropped),
        ("done", State::Ready),
        ("goes-on", State::InProgress),
        ("never-split", State::Dropped),
        ("other-bytes", State::InProgress),
    ];
    assert_eq!(states(&store).await, expected.map(|(batch_id, state)| (batch_id.to_owned(), state)));
    let one = shown(&store, Which::One("never-split"), &[], &[]).await.unwrap().batches;
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].why.as_deref(), Some("by the splitter: not_a_batch: line 7 of S.csv"));
}

/// No operator dropped the letters of a broker that ended with its process.
#[tokio::test]
async fn batch_that_failed_within_one_process_is_refused() {
    let store = empty();
    claim(&store, "b").await;
    let (letter, copy) = letter(queue::WEATHER_FETCHER, "weather_unusable", &json!({ "batch_id": "b", "chunk": 0 }));
    keep(&store, (letter, ended_with_process(copy))).await;
    let batches = batches(&store).await;
    let lines = table(&batches, &[]);
    assert!(lines[1].contains("refused") && lines[1].contains("weather_unusable: line 7 of S.csv"), "{lines:?}");
}

/// The failed attempts of one batch are not the cause of another batch's wait.
#[tokio::test]
async fn batch_in_progress_names_what_it_waits_for() {
    let store = empty();
    claim(&store, "b").await;
    claim(&store, "c").await;
    split(&store, "b", 25).await;
    write(&store, &layout::staged_chunk("b", None, 0), &json!({})).await;
    for (outages, named) in [(0, 1), (3, 2)] {
        let waiting = serde_json::to_value(wait(queue::WEATHER_FETCHER, Some("b"), outages)).unwrap();
        write(&store, &layout::waiting(queue::WEATHER_FETCHER), &waiting).await;
        let lines = table(&batches(&store).await, &[]).join("\n");
        assert!(lines.contains("10 of 25 rides joined; weather-fetcher waits since"), "{lines}");
        assert_eq!(lines.matches("Z: 503").count(), named, "an outage delays every batch: {lines}");
    }
}

/// A worker can wait without a batch, as for space for dead letters.
#[tokio::test]
async fn waiting_worker_is_noted_if_no_listed_batch_waits_for_it() {
    let store = empty();
    let waiting = serde_json::to_value(wait(queue::SPLITTER, None, 1)).unwrap();
    write(&store, &layout::waiting(queue::SPLITTER), &waiting).await;
    let notes = list(&store, Which::Newest(50), &[], &[], 3).await.unwrap().notes;
    assert!(
        notes.len() == 1 && notes[0].starts_with("splitter waits since") && notes[0].ends_with(": 503"),
        "{notes:?}"
    );
    claim(&store, "b").await;
    let listing = list(&store, Which::Newest(50), &[], &[], 3).await.unwrap();
    assert_eq!(listing.notes, [""; 0], "the batch names the wait: {:?}", listing.batches[0].why);
}

#[tokio::test]
async fn cause_is_the_batchs_own_then_a_shared_outage_then_a_paused_worker_then_an_unread_queue() {
    let store = empty();
    claim(&store, "b").await;
    split(&store, "b", 25).await;
    let mut found = batches(&store).await;
    let cause = |waiting: &[Waiting], paused: &[WorkerControl]| found[0].cause(waiting, paused).unwrap_or_default();
    let (fetcher, merger) = (queue::WEATHER_FETCHER, queue::MERGER);
    let (others, own) = (wait(fetcher, Some("other"), 3), wait(merger, Some("b"), 0));
    assert!(cause(&[others.clone(), own], &[]).starts_with("merger waits since"));
    assert!(cause(std::slice::from_ref(&others), &[paused(merger)]).starts_with("weather-fetcher waits since"));
    assert_eq!(cause(&[wait(fetcher, Some("other"), 0)], &[]), "", "an attempt of another batch");
    assert_eq!(cause(&[], &[paused(merger)]), "merger is paused since 2026-11-24T07:37:11Z by ada");
    assert_eq!(cause(&[], &[paused(queue::SPLITTER)]), "", "the batch is already split");
    assert_eq!(cause(&[wait(queue::TRAINER, None, 3)], &[paused(queue::TRAINER)]), "");

    let of = |name: &str, messages, consumers| {
        let (waiting_for_retry, dead, paused) = (0, 0, false);
        QueueStatus { queue: name.to_owned(), messages, consumers, waiting_for_retry, dead, paused }
    };
    without_reader(&mut found, &[of(queue::SPLITTER, 1, 0), of(merger, 0, 0), of(fetcher, 2, 1)]);
    assert_eq!(found[0].why, None);
    without_reader(&mut found, &[of(fetcher, 2, 0)]);
    let line = found[0].line();
    assert!(line.contains("joined; no process reads the queue weather-fetcher, in which 2 messages wait"), "{line}");
    for chunk in 0..3 {
        write(&store, &layout::staged_chunk("b", None, chunk), &json!({})).await;
    }
    let joined = batches(&store).await;
    assert_eq!(joined[0].cause(&[others], &[paused(fetcher)]), None, "every ride has its weather");
}

#[tokio::test]
async fn unread_copies_and_letters_are_noted() {
    let store = empty();
    for batch_id in ["one", "two", "three"] {
        keep(&store, letter(queue::SPLITTER, "not_a_batch", &json!({ "batch_id": batch_id }))).await;
    }
    let listing = list(&store, Which::Newest(50), &[], &[], 2).await.unwrap();
    assert_eq!(listing.batches.len(), 2);
    assert!(listing.notes[0].starts_with("only the newest 2 of the 3 copies of dead letters below dead/ are read"));
    assert_eq!(list(&store, Which::Newest(50), &[], &[], 3).await.unwrap().notes, [""; 0]);
    let note = letters_note(queue::SPLITTER, 20_001).unwrap();
    assert!(note.starts_with("only the oldest 20000 of the 20001 dead letters of the splitter are read"), "{note}");
    assert_eq!((letters_note(queue::SPLITTER, 20_000), letters_note(queue::SCORER, 20_001)), (None, None));
}

/// A dead letter about a ready batch does not make the batch refused, however old it is.
#[tokio::test]
async fn older_batches_are_shown_if_they_are_in_progress_or_refused() {
    let store = empty();
    for batch_id in ["a-staged", "b-refused", "c-ready", "d-named", "e", "f"] {
        claim(&store, batch_id).await;
    }
    for batch_id in ["c-ready", "d-named", "e", "f"] {
        ready(&store, batch_id, 3).await;
    }
    write(&store, &layout::staged_chunk("a-staged", None, 1), &json!({})).await;
    keep(&store, letter(queue::WEATHER_FETCHER, "x", &json!({ "batch_id": "b-refused", "chunk": 2 }))).await;
    let ids = |batches: &[BatchStatus]| batches.iter().map(|batch| batch.batch_id.clone()).collect::<Vec<_>>();
    let mut listing = shown(&store, Which::Newest(2), &["d-named", "../x"], &[]).await.unwrap();
    let letter = letter(queue::WEATHER_FETCHER, "x", &json!({ "batch_id": "d-named", "chunk": 2 })).0;
    assert!(merge(&mut listing.batches, vec![letter]).is_empty());
    listing.leave_out_older_ready();
    assert_eq!(ids(&listing.batches), ["a-staged", "b-refused", "e", "f"]);
    assert!(listing.notes[0].starts_with("only the newest 2 batches are shown"), "{:?}", listing.notes);
    for which in [Which::Newest(6), Which::All] {
        let listing = shown(&store, which, &[], &[]).await.unwrap();
        assert_eq!((listing.batches.len(), &listing.notes[..]), (6, &[][..]), "{which:?}");
    }
}

#[test]
fn dataset_without_rides_is_explained() {
    let outcome = |received, by_reason| {
        let manifest: Manifest = serde_json::from_value(manifest("b", received, &by_reason)).unwrap();
        outcome(&manifest)
    };
    assert_eq!(outcome(0, json!({})), "0 rides: the batch contains no ride");
    let rejected = "0 rides: all 12 were rejected, 11 of them for missing_latitude, see rejected/b.ndjson";
    assert_eq!(outcome(12, json!({ "missing_latitude": 11, "not_an_object": 1 })), rejected);
    assert_eq!(outcome(12, json!({ "missing_latitude": 2 })), "12 received, 2 rejected, 10 trainable");
}

/// Letters of known batches mark those batches; letters of unknown batches have their own lines.
#[tokio::test]
async fn refused_batches_are_listed_among_the_others_by_time() {
    let store = empty();
    claim(&store, "b").await;
    claim(&store, "empty").await;
    ready(&store, "empty", 0).await;
    let mut batches = batches(&store).await;
    let reference = |batch_id: &str, reason, digit: &str| {
        let body = json!({ "batch_id": batch_id, "object": "raw/a", "sha256": digit.repeat(64) });
        letter(queue::SPLITTER, reason, &body).0
    };
    let of = |batch_id: &str, reason| reference(batch_id, reason, "0");
    let unknown = Letter { dead_at: Some("2001-01-01T00:00:00Z".parse().unwrap()), ..of("x", "cut_short") };
    let other_bytes =
        Letter { dead_at: Some("2001-02-03T00:00:00Z".parse().unwrap()), ..reference("b", "bad_line", "1") };
    let letters = [unknown, other_bytes, of("b", "object_missing"), of("b", "later"), of("empty", "batch_id_conflict")];
    let others = merge(&mut batches, letters.into());
    let mut lines = table(&batches, &others);
    assert_eq!(lines.len(), 6, "{lines:?}");
    let other_bytes = lines.remove(2);
    assert!(other_bytes.starts_with("b ") && other_bytes.contains("bad_line"), "{other_bytes}");
    assert!(lines[0].starts_with("batch") && lines[0].contains("newest last"), "{lines:?}");
    assert!(lines[1].starts_with("x ") && lines[1].contains("refused") && lines[1].contains("cut_short"), "{lines:?}");
    assert!(lines[2].starts_with("empty ") && lines[2].contains("batch_id_conflict"), "{lines:?}");
    let text = lines.join("\n");
    assert!(
        text.contains("the batch contains no ride") && text.contains("by the splitter: object_missing"),
        "the first: {text}"
    );
    assert_eq!(table(&[], &[]), Vec::<String>::new());
}
