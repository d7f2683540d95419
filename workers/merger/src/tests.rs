use super::*;
use common::{
    dataset::{FIRST_REVISION, Manifest},
    envelope::Properties,
    message::{DatasetReady, EnrichedRide, SplitDigest},
    ride::{Counts, Label, Observation, Ride, Weather, WeatherMissing},
};
use faulty::{Dies, Faulty};
use futures::{TryStreamExt, future::join_all};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, local::LocalFileSystem, memory::InMemory, path::Path};
use runtime::config;
use std::collections::BTreeMap;

mod faulty;
mod refreshed;

const BATCH: &str = "b-1";

fn ride(index: u32) -> EnrichedRide {
    let weather = match index % 5 {
        0 => Weather::Missing(WeatherMissing::NoStationInReach),
        n => Weather::Observed(Observation {
            groundstation: if n == 1 { "USW00094789" } else { "USW00094728" }.into(),
            station_km: f64::from(index) / 8.0,
            tmin: -10,
            tmax: 20,
            prcp: 0,
        }),
    };
    EnrichedRide {
        ride: Ride {
            ride_id: format!("{BATCH}-{index}").as_str().into(),
            name: ["Twilight", "Rocinante, \"the\nsecond\""][index as usize % 2].into(),
            breed: None,
            statustime: "2018-04-25 17:03:05".parse().unwrap(),
            latitude: 40.5,
            longitude: -74.0,
            distance: 29.5 + f64::from(index) / 1000.0,
            healthpoints: 291.0,
            magicpoints: 292.0,
            fieldservice: (!index.is_multiple_of(3)).then_some(Label(index % 3 == 1)),
        },
        weather,
    }
}

/// The messages of a batch of this many rides: its chunks, then its split.
fn batch(rides: u32, chunk_size: usize) -> Vec<MergerIn> {
    let rides: Vec<EnrichedRide> = (0..rides).map(ride).collect();
    let chunk = |(chunk, rides): (u32, &[EnrichedRide])| EnrichedChunk {
        batch_id: BATCH.into(),
        chunk,
        split_id: None,
        digest: None,
        refresh: None,
        rides: rides.to_vec(),
    };
    let chunks = (0..).zip(rides.chunks(chunk_size)).map(chunk).map(MergerIn::Chunk);
    let split = BatchSplit {
        batch_id: BATCH.into(),
        sha256: "a".repeat(64),
        split_id: None,
        digest: None,
        refresh: None,
        chunks: rides.len().div_ceil(chunk_size) as u32,
        received: rides.len() as u64 + 2,
        accepted: rides.len() as u64,
        rejected: 2,
        rejected_by_reason: Counts::from([("invalid_statustime".to_owned(), 2)]),
    };
    chunks.chain([MergerIn::Split(split)]).collect()
}

fn memory() -> Store {
    Arc::new(InMemory::new())
}

fn merger(store: &Store) -> Merger {
    Merger::new(Settings { read_ahead: Some(3), ..Settings::default() }, Store::clone(store))
}

/// A merger with tiny parts and uploads, so that there are several.
fn small_parts(store: &Store) -> Merger {
    let settings =
        Settings { part_bytes_max: 600, upload_bytes: 300, probes_max: 4, read_ahead: Some(2), ..Settings::default() };
    Merger::new(settings, Store::clone(store))
}

/// Delivers one message; returns its announcements.
async fn deliver(merger: &Merger, message: &MergerIn) -> Result<Vec<DatasetReady>, Failure> {
    let envelope = Envelope { payload: message.clone(), properties: Properties::default() };
    let outgoing: Vec<_> = merger.handle(envelope).await?.into_stream().try_collect().await?;
    Ok(outgoing.iter().map(|outgoing| message::decode(&outgoing.body).unwrap()).collect())
}

async fn deliver_all(merger: &Merger, messages: &[MergerIn]) -> Vec<DatasetReady> {
    let mut announced = Vec::new();
    for message in messages {
        announced.extend(deliver(merger, message).await.unwrap());
    }
    announced
}

/// All objects in the store, by path.
async fn objects(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let listing: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    let mut objects = BTreeMap::new();
    for meta in listing {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        objects.insert(meta.location.to_string(), bytes.to_vec());
    }
    objects
}

/// The objects in the store after an undisturbed run.
async fn undisturbed(messages: &[MergerIn], worker: fn(&Store) -> Merger) -> BTreeMap<String, Vec<u8>> {
    let store = memory();
    assert_eq!(deliver_all(&worker(&store), messages).await.len(), 1);
    objects(&store).await
}

fn permanent(outcome: Result<Vec<DatasetReady>, Failure>) -> &'static str {
    match outcome {
        Err(Failure::Permanent { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_becomes_one_dataset_and_staging_is_empty() {
    let store = memory();
    let announced = deliver_all(&merger(&store), &batch(100, 8)).await;
    let objects = objects(&store).await;
    let paths: Vec<&str> = objects.keys().map(String::as_str).collect();
    assert_eq!(paths, ["dataset/b-1/manifest.json", "dataset/b-1/part-00000.csv"]);

    let bytes = &objects["dataset/b-1/manifest.json"];
    let manifest: Manifest = serde_json::from_slice(bytes).unwrap();
    let stored = datasets::StoredManifest::decode("b-1", FIRST_REVISION, bytes).unwrap();
    assert_eq!(announced, [stored.announcement()]);
    assert_eq!((manifest.received, manifest.accepted, manifest.rejected), (102, 100, 2));
    assert_eq!((manifest.labelled, manifest.trainable), (66, 53));
    assert_eq!(manifest.without_weather, Counts::from([("no_station_in_reach".to_owned(), 20)]));
    assert_eq!(manifest.stations["USW00094728"] + manifest.stations["USW00094789"], 80);

    let mut expected = datasets::header();
    (0..100).for_each(|index| datasets::push_row(&mut expected, &ride(index)));
    assert_eq!(objects["dataset/b-1/part-00000.csv"], expected);
    let [file] = manifest.files.as_slice() else { panic!("{:?}", manifest.files) };
    assert_eq!((file.rows, file.bytes), (100, expected.len() as u64));
}

#[tokio::test]
async fn a_batch_without_accepted_rides_has_one_part_with_a_header() {
    let store = memory();
    assert_eq!(deliver_all(&merger(&store), &batch(0, 8)).await.len(), 1);
    assert_eq!(objects(&store).await["dataset/b-1/part-00000.csv"], datasets::header());
}

#[tokio::test]
async fn every_order_gives_the_same_dataset() {
    let messages = batch(20, 7);
    let expected = undisturbed(&messages, merger).await;
    for order in 0..24 {
        let (mut left, mut permuted, mut code) = (messages.clone(), Vec::new(), order);
        while !left.is_empty() {
            permuted.push(left.remove(code % left.len()));
            code /= left.len() + 1;
        }
        let doubled: Vec<MergerIn> = permuted.iter().flat_map(|message| [message.clone(), message.clone()]).collect();
        for messages in [permuted, doubled] {
            let store = memory();
            assert!(!deliver_all(&merger(&store), &messages).await.is_empty());
            assert_eq!(objects(&store).await, expected, "order {order}");
        }
    }
}

#[tokio::test]
async fn one_batch_is_joined_at_a_time() {
    let store = memory();
    let merger = merger(&store);
    let messages = batch(20, 8);
    let (last, others) = messages.split_last().unwrap();
    deliver_all(&merger, others).await;
    let another = merger.joining.lock().await;
    let mut waiting = std::pin::pin!(deliver(&merger, last));
    for _ in 0..100 {
        assert!(futures::poll!(&mut waiting).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(store::exists(&store, &layout::manifest(BATCH, FIRST_REVISION)).await, Ok(false));
    drop(another);
    assert_eq!(waiting.await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_dataset_is_independent_of_the_chunk_size() {
    for worker in [merger, small_parts] {
        let expected = undisturbed(&batch(100, 1000), worker).await;
        for chunk_size in [1, 7, 50] {
            assert_eq!(undisturbed(&batch(100, chunk_size), worker).await, expected, "chunk size {chunk_size}");
        }
    }
    let parts = undisturbed(&batch(100, 7), small_parts).await;
    assert!(parts.len() > 10, "{:?}", parts.keys());
    assert!(parts.iter().all(|(path, bytes)| path.ends_with(".json") || bytes.len() <= 600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_mergers_give_the_same_dataset() {
    let messages = batch(200, 4);
    let expected = undisturbed(&messages, small_parts).await;
    let folder = tempfile::tempdir().unwrap();
    let local: Store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    for store in [memory(), local] {
        let mergers: [Arc<Merger>; 3] = std::array::from_fn(|_| Arc::new(small_parts(&store)));
        let doubled = messages.iter().chain(&messages).enumerate();
        let tasks = doubled.map(|(turn, message)| {
            let (merger, message) = (Arc::clone(&mergers[turn % 3]), message.clone());
            tokio::spawn(async move { deliver(&merger, &message).await.unwrap() })
        });
        let announced: Vec<DatasetReady> = join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect();
        assert!(!announced.is_empty());
        assert!(announced.iter().all(|ready| *ready == announced[0]));
        assert_eq!(objects(&store).await, expected);
    }
}

#[tokio::test]
async fn a_crash_at_any_operation_does_not_change_the_dataset() {
    let in_order = batch(24, 5);
    let mut split_first = in_order.clone();
    split_first.rotate_right(1);
    let mut crashes = 0;
    for messages in [in_order, split_first] {
        let expected = undisturbed(&messages, small_parts).await;
        for at in 1.. {
            let mut survived = 0;
            for dies in [Dies::Before(at), Dies::After(at)] {
                let store = memory();
                let doomed = small_parts(&(Arc::new(Faulty::new(Store::clone(&store), dies)) as Store));
                let mut announced = Vec::new();
                let mut queue = messages.clone();
                while let Some(message) = queue.first() {
                    match deliver(&doomed, message).await {
                        Ok(ready) => announced.extend(ready),
                        Err(Failure::Outage { .. }) => break,
                        Err(failure) => panic!("{dies:?}: {failure}"),
                    }
                    queue.remove(0);
                }
                survived += u64::from(queue.is_empty());
                announced.extend(deliver_all(&small_parts(&store), &queue).await);
                assert!(!announced.is_empty(), "{dies:?}: never announced");
                assert_eq!(objects(&store).await, expected, "{dies:?}");
                crashes += 1;
            }
            if survived == 2 {
                break;
            }
        }
    }
    assert!(crashes > 200, "{crashes}");
}

#[tokio::test]
async fn an_announcement_lost_after_the_manifest_is_repeated() {
    let messages = batch(20, 5);
    let expected = undisturbed(&messages, merger).await;
    for last in 0..messages.len() {
        let mut order = messages.clone();
        order.rotate_left(last);
        let store = memory();
        let (one, other) = (merger(&store), merger(&store));
        let (final_message, before) = order.split_last().unwrap();
        assert!(deliver_all(&other, before).await.is_empty());
        let lost = deliver(&one, final_message).await.unwrap();
        assert_eq!(lost.len(), 1);
        for survivor in [&other, &merger(&store), &one] {
            assert_eq!(deliver(survivor, final_message).await.unwrap(), lost);
            assert_eq!(objects(&store).await, expected);
        }
    }
}

#[tokio::test]
async fn a_batch_published_again_changes_nothing_and_is_announced_at_most_twice() {
    let messages = batch(300, 3);
    let store = memory();
    let old = merger(&store);
    let first = deliver_all(&old, &messages).await;
    let expected = objects(&store).await;
    for merger in [old, merger(&store)] {
        let again = deliver_all(&merger, &messages).await;
        assert!((1..=2).contains(&again.len()), "{} announcements", again.len());
        assert!(again.iter().all(|ready| *ready == first[0]));
        assert_eq!(objects(&store).await, expected);
    }
}

#[tokio::test]
async fn operations_are_linear_in_the_number_of_chunks() {
    let mut counts = Vec::new();
    for chunks in [100, 200, 400] {
        let counting = Arc::new(Faulty::new(memory(), Dies::Never));
        let store: Store = Arc::clone(&counting) as Store;
        let mergers = [merger(&store), merger(&store), merger(&store)];
        let mut messages = batch(chunks, 1);
        messages.rotate_left(chunks as usize / 3);
        for (turn, message) in messages.iter().enumerate() {
            deliver(&mergers[turn % 3], message).await.unwrap();
        }
        assert!(objects(&store).await.contains_key("dataset/b-1/manifest.json"));
        counts.push(counting.operations());
    }
    let [small, middle, large] = counts[..] else { panic!("{counts:?}") };
    assert!(large - middle <= 2 * (middle - small) + 50, "{counts:?}");
    assert!(large <= 400 * 12, "{counts:?}");
}

#[tokio::test]
async fn handlers_of_one_process_share_a_check() {
    let messages = batch(64, 1);
    let counting = Arc::new(Faulty::new(memory(), Dies::Never));
    let merger = merger(&(Arc::clone(&counting) as Store));
    let announced: Vec<_> = join_all(messages.iter().map(|message| deliver(&merger, message))).await;
    assert_eq!(announced.into_iter().map(|ready| ready.unwrap().len()).max(), Some(1));
    assert!(counting.operations() <= 64 * 8, "{}", counting.operations());
}

#[tokio::test]
async fn a_removed_dataset_is_written_again_when_its_batch_is_published_again() {
    let messages = batch(20, 5);
    let store = memory();
    let (one, other) = (merger(&store), merger(&store));
    for turn in 0..3 {
        let mut announced = Vec::new();
        for (at, message) in messages.iter().enumerate() {
            announced.extend(deliver([&one, &other][(at + turn) % 2], message).await.unwrap());
        }
        assert_eq!(announced.len(), 1);
        let made: Vec<String> = objects(&store).await.into_keys().collect();
        assert_eq!(made, ["dataset/b-1/manifest.json", "dataset/b-1/part-00000.csv"]);
        for path in made {
            store.delete(&Path::from(path)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_same_batch_id_for_other_bytes_is_refused() {
    let mut messages = batch(20, 5);
    let Some(MergerIn::Split(split)) = messages.pop() else { panic!() };
    let other = MergerIn::Split(BatchSplit { sha256: "b".repeat(64), ..split.clone() });
    let recounted = MergerIn::Split(BatchSplit { rejected: 3, received: 23, ..split.clone() });
    let split = MergerIn::Split(split);

    let store = memory();
    let merger_ = merger(&store);
    deliver(&merger_, &split).await.unwrap();
    for conflict in [&other, &recounted] {
        assert_eq!(permanent(deliver(&merger_, conflict).await), "batch_id_conflict");
    }
    assert_eq!(deliver_all(&merger_, &messages).await.len(), 1);
    let expected = objects(&store).await;
    for late in [merger_, merger(&store)] {
        for conflict in [&other, &recounted] {
            assert_eq!(permanent(deliver(&late, conflict).await), "batch_id_conflict");
        }
        assert_eq!(objects(&store).await, expected);
    }
}

/// The messages of one splitting, with `split_id` and digests.
fn splitting(split_id: &str, messages: Vec<MergerIn>) -> Vec<MergerIn> {
    let mut sent = SplitDigest::default();
    let mut messages = messages;
    for message in &mut messages {
        match message {
            MergerIn::Chunk(chunk) => {
                let digest = format!("{:032x}", u128::from(chunk.chunk) + split_id.len() as u128);
                sent.add(digest.as_bytes());
                (chunk.split_id, chunk.digest) = (Some(split_id.to_owned()), Some(digest));
            }
            MergerIn::Split(split) => (split.split_id, split.digest) = (Some(split_id.to_owned()), Some(sent.finish())),
        }
    }
    messages
}

/// Chunks of other bytes or with other weather are staged separately. Whenever they arrive, the dataset is that of the splitting
/// whose `batch-split` message arrived, and no object of the other splitting stays.
#[tokio::test]
async fn chunks_of_another_splitting_are_not_joined() {
    let expected = undisturbed(&batch(20, 5), merger).await;
    let good = splitting("good", batch(20, 5));
    let mut abandoned = splitting("abandoned", batch(20, 5));
    // The `batch-split` message of an abandoned splitting never arrives.
    abandoned.pop();
    for message in &mut abandoned {
        if let MergerIn::Chunk(chunk) = message {
            chunk.rides.iter_mut().for_each(|ride| ride.ride.distance += 10.0);
        }
    }
    for before in 0..=abandoned.len() {
        let store = memory();
        let merger = merger(&store);
        let (early, late) = abandoned.split_at(before);
        assert!(deliver_all(&merger, early).await.is_empty());
        assert_eq!(deliver_all(&merger, &good).await.len(), 1);
        deliver_all(&merger, late).await;
        assert_eq!(objects(&store).await, expected, "{before} chunks arrived before");
    }
}

#[tokio::test]
async fn chunks_with_another_digest_make_no_dataset() {
    let mut messages = splitting("one", batch(20, 5));
    let Some(MergerIn::Chunk(chunk)) = messages.first_mut() else { panic!() };
    chunk.digest = Some("f".repeat(32));
    let store = memory();
    let (split, chunks) = messages.split_last().unwrap();
    let merger = merger(&store);
    deliver_all(&merger, chunks).await;
    assert_eq!(permanent(deliver(&merger, split).await), "digests_disagree");
    assert!(!objects(&store).await.contains_key("dataset/b-1/manifest.json"));
}

/// The sweep removes late writes and leaves batches in progress alone.
#[tokio::test]
async fn objects_staged_beside_a_manifest_are_swept() {
    let store = memory();
    let merger = merger(&store);
    let messages = splitting("one", batch(20, 5));
    deliver_all(&merger, &messages).await;
    let finished = objects(&store).await;
    store::write(&store, &layout::staged_chunk(BATCH, Some("one"), 2), "late").await.unwrap();
    store::write(&store, &layout::staged_chunk("in-progress", Some("two"), 0), "early").await.unwrap();
    merger.tend().await.unwrap();
    let mut left = objects(&store).await;
    assert!(left.remove(&layout::staged_chunk("in-progress", Some("two"), 0)).is_some());
    assert_eq!(left, finished);
}

#[tokio::test]
async fn chunks_that_disagree_with_the_split_make_no_dataset() {
    let mut messages = batch(20, 5);
    let Some(MergerIn::Chunk(chunk)) = messages.first_mut() else { panic!() };
    chunk.rides.pop();
    let beyond = MergerIn::Chunk(EnrichedChunk { chunk: 4, ..chunk.clone() });
    let store = memory();
    let merger = merger(&store);
    let (last, before) = messages.split_last().unwrap();
    deliver_all(&merger, before).await;
    assert_eq!(permanent(deliver(&merger, last).await), "counts_disagree");
    assert_eq!(permanent(deliver(&merger, &beyond).await), "chunk_beyond_split");
    assert!(!objects(&store).await.contains_key("dataset/b-1/manifest.json"));
}

#[tokio::test]
async fn an_existing_dataset_is_never_replaced_by_another() {
    let messages = batch(20, 5);
    let store = memory();
    let (last, before) = messages.split_last().unwrap();
    deliver_all(&merger(&store), before).await;
    let path = layout::manifest(BATCH, FIRST_REVISION);
    store::write(&store, &path, b"{}".to_vec()).await.unwrap();
    let MergerIn::Split(split) = last else { panic!() };
    let refused = dataset::join(&store, &Settings::default(), split).await.map(|_| Vec::new());
    assert_eq!(permanent(refused), "dataset_differs");
    assert_eq!(objects(&store).await[&path], b"{}");
}

#[tokio::test]
async fn little_memory_costs_only_operations() {
    let store = memory();
    let settings = Settings { known_bytes_max: 0, ..Settings::default() };
    let merger = Merger::new(settings, Store::clone(&store));
    let other = |message: &MergerIn| {
        let mut message = message.clone();
        match &mut message {
            MergerIn::Chunk(chunk) => chunk.batch_id = "b-2".into(),
            MergerIn::Split(split) => split.batch_id = "b-2".into(),
        }
        message
    };
    let mut announced = 0;
    for message in batch(40, 4) {
        announced += deliver(&merger, &message).await.unwrap().len();
        announced += deliver(&merger, &other(&message)).await.unwrap().len();
    }
    assert_eq!(announced, 2);
    assert_eq!(objects(&store).await.len(), 4);
}

#[tokio::test]
async fn batches_in_memory_stay_within_their_bound() {
    let settings = Settings { known_bytes_max: 4_096, ..Settings::default() };
    let merger = Merger::new(settings, memory());
    let mut message = batch(20, 5).remove(0);
    for number in 0..100 {
        let MergerIn::Chunk(chunk) = &mut message else { panic!() };
        chunk.batch_id = format!("b-{number}");
        deliver(&merger, &message).await.unwrap();
        assert!(merger.batches.lock().weight() <= 4_096);
    }
    assert!(merger.batches.lock().len() > 1);
    let key = layout::splitting("b-99", message.split_id());
    assert!(Arc::ptr_eq(&merger.batch(&key), &merger.batch(&key)), "handlers share the state of a batch");
}

#[test]
fn both_messages_are_decoded() {
    for message in batch(1, 1) {
        let (kind, body) = match &message {
            MergerIn::Chunk(chunk) => (EnrichedChunk::KIND, serde_json::to_vec(chunk).unwrap()),
            MergerIn::Split(split) => (BatchSplit::KIND, serde_json::to_vec(split).unwrap()),
        };
        assert_eq!(MergerIn::decode(kind, &body.clone().into()), Ok(message));
        assert!(MergerIn::decode(kind, &body[1..].to_vec().into()).is_err());
    }
}

#[test]
fn invalid_settings_are_refused_by_name() {
    let key = |settings: Settings| config::Settings::check(&settings).map_err(|problem| problem.key);
    assert_eq!(key(Settings::default()), Ok(()));
    assert_eq!(key(Settings { part_bytes_max: 0, ..Settings::default() }), Err("part_bytes_max"));
    assert_eq!(key(Settings { read_ahead: Some(0), ..Settings::default() }), Err("read_ahead"));
    assert_eq!(key(Settings { probes_max: 0, ..Settings::default() }), Err("probes_max"));
    assert_eq!(key(Settings { upload_bytes: 0, ..Settings::default() }), Err("upload_bytes"));
}

/// S3 refuses smaller parts.
#[test]
fn an_upload_to_a_service_has_parts_of_5_mib_or_more() {
    let upload_bytes =
        |upload_bytes, is_remote| Settings { upload_bytes, ..Settings::default() }.on(is_remote).upload_bytes;
    assert_eq!(
        [upload_bytes(300, true), upload_bytes(6 << 20, true), upload_bytes(300, false)],
        [5 << 20, 6 << 20, 300]
    );
}
