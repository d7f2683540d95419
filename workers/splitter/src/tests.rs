mod formats;
mod readings;

use super::*;
use crate::{ride::Validation, source::ReadError};
use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use common::{
    message::{RideChunk, SplitDigest, decode},
    outcome::Outgoing,
    reading::Reading,
    ride::Ride,
};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use records::StoreSettings;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

const GOOD: &str = r#"{"Name":"Twilight","StatusTime":"2018-04-25 17:03:05","Latitude":40.5,"Longitude":-74,"Distance":29.5,"HealthPoints":291,"MagicPoints":292,"FieldService":1}"#;
const BAD: &str = r#"{"Name":"Nightmare","StatusTime":"2018-04-25 17:03:05","Latitude":140.5}"#;

fn memory() -> Store {
    Arc::new(InMemory::new())
}

fn in_folder(folder: &std::path::Path) -> Store {
    let url = folder.to_str().unwrap().to_owned();
    store::open(&StoreSettings { url, ..StoreSettings::default() }).unwrap()
}

fn splitter(store: &Store, chunk_size: u32) -> Splitter {
    Splitter::new(Settings { chunk_size, read_buffer_bytes: 4096, ..Settings::default() }, store.clone())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(plain).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

async fn zstd(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZstdEncoder::new(Vec::new());
    encoder.write_all(plain).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

#[derive(Debug, PartialEq)]
struct Publication {
    chunks: Vec<RideChunk>,
    summary: BatchSplit,
}

impl Publication {
    /// Removes the `split_id`, which differs each time, and the digests, which depend on the raw bytes. Checks that the chunks
    /// and the `batch-split` message agree on them.
    fn without_provenance(mut self) -> Self {
        let split_id = self.summary.split_id.take();
        let mut sent = SplitDigest::default();
        for chunk in &mut self.chunks {
            assert!(split_id.is_some());
            assert_eq!(chunk.split_id.take(), split_id);
            sent.add(chunk.digest.take().unwrap().as_bytes());
        }
        assert_eq!(self.summary.digest.take(), split_id.map(|_| sent.finish()));
        self
    }

    fn rides(&self) -> Vec<&Ride> {
        self.chunks.iter().flat_map(|chunk| &chunk.rides).collect()
    }
}

async fn publish_with(splitter: &Splitter, body: &[u8], properties: Properties) -> Result<Publication, Failure> {
    let payload = IncomingBatch(Bytes::copy_from_slice(body));
    let outputs = splitter.handle(Envelope { payload, properties }).await?;
    let mut published: Vec<Outgoing> = outputs.into_stream().try_collect().await?;
    let summary = published.pop().unwrap();
    assert_eq!(summary.routing_key, "batch-split.v1", "the summary comes last");
    let chunks = published.iter().map(|chunk| decode(&chunk.body).unwrap()).collect();
    Ok(Publication { chunks, summary: decode(&summary.body).unwrap() }.without_provenance())
}

async fn publish(splitter: &Splitter, body: impl AsRef<[u8]>) -> Result<Publication, Failure> {
    publish_with(splitter, body.as_ref(), Properties::default()).await
}

async fn refused_with(splitter: &Splitter, body: impl AsRef<[u8]>) -> &'static str {
    match publish(splitter, body).await {
        Err(Failure::Permanent { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

async fn upload(store: &Store, object: &str, bytes: &[u8]) -> String {
    store.put(&Path::from(object), bytes.to_vec().into()).await.unwrap();
    json!({"object": object, "sha256": sha256(bytes)}).to_string()
}

async fn stored_objects(store: &Store) -> Vec<String> {
    let mut names: Vec<String> =
        store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
    names.sort();
    names
}

async fn rejects(store: &Store, batch_id: &str) -> Vec<Value> {
    let bytes = store::read(store, &layout::rejected(batch_id)).await.unwrap().unwrap_or_default();
    let lines = std::str::from_utf8(&bytes).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn rides_and_rejects_are_independent_of_the_chunk_size() {
    let rides: Vec<_> = (0..2_500).map(|n| if n % 100 == 7 { BAD } else { GOOD }).collect();
    let body = format!("{{\"batch_id\":\"b\",\"rides\":[{}]}}", rides.join(","));
    let (one, thousand) = (memory(), memory());
    let by_one = publish(&splitter(&one, 1), &body).await.unwrap();
    let by_thousand = publish(&splitter(&thousand, 1000), &body).await.unwrap();
    assert_eq!(by_one.rides(), by_thousand.rides());
    assert_eq!((by_one.summary.chunks, by_thousand.summary.chunks), (2475, 3));
    assert_eq!((by_one.summary.received, by_one.summary.accepted, by_one.summary.rejected), (2500, 2475, 25));
    assert_eq!(by_one.summary, BatchSplit { chunks: 2475, ..by_thousand.summary });
    let lines = rejects(&one, "b").await;
    assert_eq!(lines, rejects(&thousand, "b").await);
    assert_eq!(lines.len(), 25);
    let first: Value = serde_json::from_str(BAD).unwrap();
    assert_eq!(lines[0], json!({"index": 7, "field": "latitude", "reason": "latitude_out_of_range", "ride": first}));
}

#[tokio::test]
async fn every_form_and_compression_gives_the_same_rides_inline_and_by_reference() {
    let forms = [
        ("array", format!("[{GOOD},{BAD},{GOOD}]")),
        ("travel_data.json", format!("{{\"travel_data\":[{GOOD},\n{BAD},\n{GOOD}]}}")),
        ("rides.json", format!("{{\"rides\":[{GOOD},{BAD},{GOOD}],\"source\":\"s\"}}")),
        ("lines", format!("{GOOD}\n{BAD}\n{GOOD}\n")),
        ("declared.ndjson", format!("{GOOD}\n{BAD}\n{GOOD}")),
        ("concatenated", format!("{GOOD}{BAD}\n{GOOD}")),
    ];
    let mut publications = Vec::new();
    for (name, plain) in &forms {
        let plain = plain.as_bytes();
        let (head, tail) = plain.split_at(plain.len() / 3);
        let bodies = [
            plain.to_vec(),
            gzip(plain).await,
            [gzip(head).await, gzip(tail).await].concat(),
            zstd(plain).await,
            [zstd(head).await, zstd(tail).await].concat(),
        ];
        for body in bodies {
            let store = memory();
            let inline = publish(&splitter(&store, 2), &body).await.unwrap();
            assert_eq!(inline.summary.sha256, sha256(&body), "of the raw bytes");
            assert_eq!(inline.summary.batch_id, sha256(&body)[..16]);
            let store = memory();
            let reference = upload(&store, &format!("raw/in/{name}"), &body).await;
            assert_eq!(publish(&splitter(&store, 2), reference).await.unwrap(), inline, "{name}");
            publications.push(inline);
        }
    }
    let values = |published: &Publication| {
        let rides = published.rides().into_iter().cloned();
        rides
            .map(|ride| Ride { ride_id: ride.ride_id.split('-').next_back().unwrap().into(), ..ride })
            .collect::<Vec<_>>()
    };
    assert!(publications.iter().all(|published| values(published) == values(&publications[0])));
    assert_eq!(values(&publications[0]).iter().map(|ride| ride.ride_id.as_str()).collect::<Vec<_>>(), ["0", "2"]);
}

#[tokio::test]
async fn content_type_and_encoding_are_respected() {
    let declared = |content_type: Option<&str>, encoding: Option<&str>| Properties {
        content_type: content_type.map(str::to_owned),
        content_encoding: encoding.map(str::to_owned),
        ..Properties::default()
    };
    let lines = format!("garbage\ngarbage\n{GOOD}");
    let store = memory();
    let worker = splitter(&store, 10);
    let as_lines = declared(Some("application/x-ndjson; charset=utf-8"), None);
    let published = publish_with(&worker, lines.as_bytes(), as_lines).await.unwrap();
    assert_eq!((published.summary.accepted, published.summary.rejected), (1, 2));
    assert_eq!(refused_with(&worker, &lines).await, "not_a_batch");
    let zipped = gzip(format!("[{GOOD}]").as_bytes()).await;
    assert!(publish_with(&worker, &zipped, declared(None, Some("GZIP"))).await.is_ok());
    for (body, encoding) in [(lines.as_bytes(), "gzip"), (&zipped, "zstd"), (&zipped, "br")] {
        let failure = publish_with(&worker, body, declared(None, Some(encoding))).await.unwrap_err();
        assert!(matches!(failure, Failure::Permanent { reason: "bad_compression", .. }), "{failure:?}");
    }
}

#[tokio::test]
async fn a_refused_batch_writes_nothing() {
    let store = memory();
    let worker = splitter(&store, 1);
    let half = [GOOD; 50].join(",");
    let zipped = gzip(format!("[{half}]").as_bytes()).await;
    let mut corrupt = zipped.clone();
    let middle = corrupt.len() - 6;
    corrupt[middle] ^= 0xFF;
    for (body, code) in [
        (b"".to_vec(), "empty"),
        (b" \n ".to_vec(), "empty"),
        (b"hello".to_vec(), "not_a_batch"),
        (format!("[{half},{GOOD}").into_bytes(), "cut_short"),
        (format!("[{half},{BAD} {GOOD}]").into_bytes(), "invalid_json"),
        (format!("{{\"rides\":[{half}]}} x").into_bytes(), "invalid_json"),
        (format!("{{\"batch_id\":\"a/b\",\"rides\":[{half}]}}").into_bytes(), "invalid_batch_id"),
        (format!("{{\"batch_id\":\"\",\"rides\":[{half}]}}").into_bytes(), "invalid_batch_id"),
        (zipped[..zipped.len() - 9].to_vec(), "cut_short"),
        (corrupt, "bad_compression"),
        ([zipped.as_slice(), b"trailing garbage"].concat(), "bad_compression"),
        (zstd(b"[").await, "cut_short"),
        (gzip(b"").await, "empty"),
    ] {
        assert_eq!(refused_with(&worker, &body).await, code, "{}", String::from_utf8_lossy(&body));
        let reference = upload(&store, "raw/x", &body).await;
        assert_eq!(refused_with(&worker, reference).await, code);
    }
    assert_eq!(stored_objects(&store).await, ["raw/x"]);
    let failure = publish(&worker, "[{}\n{}]").await.unwrap_err();
    assert_eq!(failure.to_string(), "invalid_json: expected `,` or `]`, found `{}]`, at byte 4 (line 2, column 1)");
}

#[tokio::test]
async fn a_decompression_bomb_is_refused() {
    let lines = "{}\n".repeat(8 * 1024 * 1024).into_bytes();
    let bomb = zstd(&lines).await;
    let store = memory();
    assert_eq!(refused_with(&splitter(&store, 1000), &bomb).await, "expands_too_much");
    let settings = Settings { decompressed_bytes_max: 100_000, ..Settings::default() };
    let small = gzip(&lines[..200_001]).await;
    assert_eq!(refused_with(&Splitter::new(settings, store), &small).await, "expands_too_much");
}

#[tokio::test]
async fn a_bomb_of_many_members_is_refused() {
    let piece = " ".repeat(1024 * 1024).into_bytes();
    let store = memory();
    let gentle = Settings { expansion_max: 100, ..Settings::default() };
    for packed in [gzip(&piece).await, zstd(&piece).await] {
        let bombs = [packed.repeat(40), b"[]".to_vec()].concat();
        let worker = Splitter::new(gentle.clone(), store.clone());
        assert_eq!(refused_with(&worker, &bombs).await, "expands_too_much");
        let reference = upload(&store, "raw/bomb", &bombs).await;
        assert_eq!(refused_with(&worker, reference).await, "expands_too_much");
    }
    // Many empty members make an empty batch.
    assert_eq!(refused_with(&splitter(&store, 1), gzip(b"").await.repeat(50_000)).await, "empty");
    assert_eq!(refused_with(&splitter(&store, 1), zstd(b"").await.repeat(50_000)).await, "empty");
}

#[tokio::test]
async fn a_zstd_frame_with_a_large_window_is_refused() {
    use async_compression::{Level, zstd::CParameter};
    let with_window = async |log: u32| {
        let parameters = [CParameter::window_log(log)];
        let mut encoder = ZstdEncoder::with_quality_and_params(Vec::new(), Level::Default, &parameters);
        // In several writes, because a frame with a known size needs no larger window.
        for _ in 0..2 {
            encoder.write_all(b"[ ").await.unwrap();
            encoder.flush().await.unwrap();
            encoder.write_all(b"]").await.unwrap();
        }
        encoder.shutdown().await.unwrap();
        encoder.into_inner()
    };
    let publish_with_window = async |log| publish(&splitter(&memory(), 1), with_window(log).await).await;
    assert_eq!(publish_with_window(25).await.unwrap().summary.received, 0);
    let too_large = publish_with_window(26).await.unwrap_err().to_string();
    assert!(too_large.starts_with("bad_compression") && too_large.contains("memory"), "{too_large}");
}

#[tokio::test]
async fn a_batch_published_again_gives_the_same_chunks_under_other_settings() {
    let store = memory();
    let body = format!("{{\"batch_id\":\"b\",\"source\":\"s\",\"rides\":[{GOOD},{BAD},{GOOD}]}}");
    let first = publish(&splitter(&store, 1), &body).await.unwrap();
    let objects = stored_objects(&store).await;
    let raw = format!("raw/inline/{}", sha256(body.as_bytes()));
    let entry = layout::batch_log_entry(1);
    let log = [entry, layout::batch_log_earlier()];
    assert_eq!(objects, [&log[0], &log[1], "batches/b.json", raw.as_str(), "rejected/b.ndjson"]);
    assert_eq!(store::read(&store, &raw).await.unwrap().unwrap(), body.as_bytes(), "the raw bytes are stored");
    let claim: Claim = store::read_json(&store, "batches/b.json").await.unwrap().unwrap();
    let (batch_id, source, object) = ("b".to_owned(), Some("s".to_owned()), Some(raw.clone()));
    assert_eq!(
        claim,
        Claim {
            batch_id,
            sha256: sha256(body.as_bytes()),
            chunk_size: 1,
            source,
            object,
            listed: Some(1),
            reading: Reading::default()
        }
    );
    assert_eq!(publish(&splitter(&store, 1000), &body).await.unwrap(), first);
    assert_eq!(stored_objects(&store).await, objects);
    // The stored copy is the same batch, by reference.
    let reference = json!({"batch_id": "b", "object": raw, "sha256": sha256(body.as_bytes())}).to_string();
    assert_eq!(publish(&splitter(&store, 7), reference).await.unwrap(), first);
    assert_eq!(stored_objects(&store).await, objects);
}

#[tokio::test]
async fn an_inline_batch_declared_as_lines_is_replayed_as_lines() {
    let store = memory();
    let body = format!("{GOOD}\n{{broken\n{GOOD}\n");
    let properties = Properties { content_type: Some("application/x-ndjson".into()), ..Properties::default() };
    let first = publish_with(&splitter(&store, 10), body.as_bytes(), properties).await.unwrap();
    assert_eq!((first.summary.accepted, first.summary.rejected), (2, 1));
    let claim: Claim =
        store::read_json(&store, &layout::claim(&first.summary.batch_id)).await.unwrap().expect("a claim");
    let reference = json!({"object": claim.object, "sha256": claim.sha256}).to_string();
    assert_eq!(publish(&splitter(&store, 10), reference).await.unwrap(), first);
}

#[tokio::test]
async fn a_batch_id_is_bound_to_its_bytes() {
    let store = memory();
    let worker = splitter(&store, 1);
    let body = |rides: &str| format!("{{\"batch_id\":\"b\",\"rides\":[{rides}]}}");
    publish(&worker, body(GOOD)).await.unwrap();
    let objects = stored_objects(&store).await;
    assert_eq!(refused_with(&worker, body("")).await, "batch_id_conflict");
    assert_eq!(stored_objects(&store).await, objects, "a refused batch writes nothing");
}

#[tokio::test]
async fn a_batch_with_a_complete_dataset_publishes_only_its_summary() {
    let store = memory();
    let worker = splitter(&store, 2);
    let body = format!("{{\"batch_id\":\"b\",\"rides\":[{GOOD},{BAD},{GOOD},{GOOD}]}}");
    let first = publish(&worker, &body).await.unwrap();
    let manifest = Manifest {
        schema: "dataset-manifest.v1".into(),
        batch_id: "b".into(),
        revision: None,
        sha256: first.summary.sha256.clone(),
        columns: Vec::new(),
        received: 4,
        accepted: 3,
        rejected: 1,
        rejected_by_reason: first.summary.rejected_by_reason.clone(),
        without_weather: Default::default(),
        labelled: 3,
        trainable: 3,
        stations: Default::default(),
        files: Vec::new(),
    };
    store::write(
        &store,
        &layout::manifest("b", common::dataset::FIRST_REVISION),
        serde_json::to_vec(&manifest).unwrap(),
    )
    .await
    .unwrap();
    let again = publish(&splitter(&store, 1), &body).await.unwrap();
    assert_eq!(again, Publication { chunks: Vec::new(), summary: first.summary });
    let other = body.replace("29.5", "29.6");
    assert_eq!(refused_with(&worker, other).await, "batch_id_conflict");
}

#[tokio::test]
async fn references_are_checked() {
    let store = memory();
    let worker = splitter(&store, 10);
    let body = format!("{{\"batch_id\":\"inner\",\"source\":\"inner\",\"rides\":[{GOOD}]}}");
    let sha = sha256(body.as_bytes());
    upload(&store, "raw/batch.json", body.as_bytes()).await;
    let reference = |object: &str, sha256: &str| json!({"object": object, "sha256": sha256}).to_string();
    for (object, sha256, code) in [
        ("raw/other.json", sha.as_str(), "object_missing"),
        ("raw/batch.json", &sha256(b"other"), "object_changed"),
        ("raw/batch.json", "", "bad_reference"),
        ("raw/batch.json", &sha.to_uppercase(), "bad_reference"),
        ("dataset/b/manifest.json", &sha, "bad_reference"),
        ("rawest/batch.json", &sha, "bad_reference"),
        ("raw/../raw/batch.json", &sha, "bad_reference"),
        ("raw/.hidden", &sha, "bad_reference"),
        ("raw/%2e%2e/raw/batch.json", &sha, "bad_reference"),
        ("raw\\batch.json", &sha, "bad_reference"),
        ("raw/..\\..\\etc\\passwd", &sha, "bad_reference"),
        ("file:///raw/batch.json", &sha, "bad_reference"),
        ("raw/batch.json\0", &sha, "bad_reference"),
        ("raw//batch.json", &sha, "bad_reference"),
        ("raw/", &sha, "bad_reference"),
        ("/raw/batch.json", &sha, "bad_reference"),
        (&format!("raw/{}", "x".repeat(241)), &sha, "bad_reference"),
        (&format!("raw/{}", "{".repeat(81)), &sha, "bad_reference"),
        (&format!("raw/{}", ["x"; 511].join("/")), &sha, "bad_reference"),
        (&format!("raw/{}", "x".repeat(240)), &sha, "object_missing"),
        (&format!("raw/{}", ["x"; 510].join("/")), &sha, "object_missing"),
    ] {
        assert_eq!(refused_with(&worker, reference(object, sha256)).await, code, "{object} {sha256}");
    }
    assert_eq!(refused_with(&worker, r#"{"object":"raw/batch.json"}"#).await, "bad_reference");
    let to_itself = upload(&store, "raw/again", reference("raw/batch.json", &sha).as_bytes()).await;
    assert_eq!(refused_with(&worker, to_itself).await, "bad_reference");
    assert_eq!(stored_objects(&store).await, ["raw/again", "raw/batch.json"]);

    let named = json!({"batch_id": "outer", "object": "raw/batch.json", "sha256": sha}).to_string();
    assert_eq!(publish(&worker, named).await.unwrap().summary.batch_id, "outer");
    let unnamed = publish(&worker, reference("raw/batch.json", &sha)).await.unwrap();
    assert_eq!((unnamed.summary.batch_id.as_str(), unnamed.summary.sha256), ("inner", sha));
}

#[tokio::test]
async fn an_object_that_is_replaced_between_the_passes_is_a_transient_failure() {
    let store = memory();
    let worker = splitter(&store, 1);
    let path = "raw/x".to_owned();
    upload(&store, "raw/x", b"[]").await;
    let source = Source::Object { store: store.clone(), path: path.clone(), etag: None };
    let etag = source.open(worker.limits()).await.unwrap().finish().await.unwrap().etag;
    upload(&store, "raw/x", b"[{}]").await;
    let stale = Source::Object { store: store.clone(), path, etag };
    let failure = stale.open(worker.limits()).await.map(drop).map_err(read_failure).unwrap_err();
    assert!(matches!(failure, Failure::Transient { .. }), "{failure:?}");

    let reader = source.open(worker.limits()).await.unwrap();
    let rejects = "rejected/b.ndjson".to_owned();
    let split = Split::new("b", "s".to_owned(), None, 1, split::RideIds::default());
    let other = sha256(b"[]");
    let splitting =
        pass::Splitting::new(reader, Document::new(Splitter::options(false)), split, other, store.clone(), rejects);
    let published: Vec<_> = splitting.into_stream().collect().await;
    assert!(matches!(published.as_slice(), [Err(Failure::Transient { .. })]), "{published:?}");
    assert_eq!(stored_objects(&store).await, ["raw/x"]);
}

#[tokio::test]
async fn an_unreachable_store_is_an_outage() {
    let away = object_store::Error::Generic { store: "test", source: "no route".into() };
    assert!(matches!(read_failure(ReadError::Store(away)), Failure::Outage { dependency: "object store", .. }));
}

#[tokio::test]
async fn an_impossible_object_name_is_a_permanent_failure() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    upload(&store, "raw/file", b"[]").await;
    let inside = |object: &str| json!({"object": object, "sha256": sha256(b"[]")}).to_string();
    assert_eq!(refused_with(&splitter(&store, 1), inside("raw/file/inside")).await, "bad_reference");
    let long = format!("raw/{}", "x".repeat(300));
    let source = Source::Object { store, path: long, etag: None };
    let failure = source.open(splitter(&memory(), 1).limits()).await.map(drop).map_err(read_failure).unwrap_err();
    assert!(matches!(failure, Failure::Permanent { reason: "bad_reference", .. }), "{failure:?}");
}

/// A link below `raw/` must not make the splitter read other files.
#[tokio::test]
async fn a_link_out_of_raw_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    std::fs::create_dir_all(root.join("raw")).unwrap();
    std::fs::write(folder.path().join("secret"), "[]").unwrap();
    std::os::unix::fs::symlink("../../secret", root.join("raw/link")).unwrap();
    let reference = json!({"object": "raw/link", "sha256": sha256(b"[]")}).to_string();
    let failure = publish(&splitter(&in_folder(&root), 1), reference).await.unwrap_err();
    assert!(matches!(failure, Failure::Permanent { reason: "bad_reference", .. }), "{failure:?}");
    assert!(failure.to_string().contains("leads out"), "{failure}");
}

#[tokio::test]
async fn many_rejects_are_written_completely() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    let bad = format!("{{\"note\":\"{}\"}}", "x".repeat(500));
    let rides = 20_000;
    let reference =
        upload(&store, "raw/bad.json", format!("[{}]", vec![bad.as_str(); rides].join(",")).as_bytes()).await;
    let published = publish(&splitter(&store, 1000), reference).await.unwrap();
    assert_eq!((published.summary.chunks, published.summary.rejected), (0, rides as u64));
    let lines = rejects(&store, &published.summary.batch_id).await;
    assert!(lines.iter().enumerate().all(|(index, line)| line["index"] == index) && lines.len() == rides);
}

#[tokio::test]
async fn an_empty_batch_has_a_summary() {
    let published = publish(&splitter(&memory(), 10), "[]").await.unwrap();
    assert_eq!((published.summary.received, published.summary.chunks), (0, 0));
}

#[test]
fn the_largest_chunk_of_the_largest_rides_fits_into_a_message() {
    const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
    let number = -f64::MIN_POSITIVE;
    let texts = ["\"".repeat(128), "\u{1}".repeat(42), "\"".repeat(128)];
    let given = json!({
        "ride_id": texts[0], "name": texts[1], "breed": texts[2], "statustime": "2018-04-25T17:03:05.123456Z",
        "latitude": number, "longitude": number, "distance": -number, "healthpoints": number, "magicpoints": number,
        "fieldservice": 1,
    });
    let Validation::Accepted(ride) = serde_json::from_str(&given.to_string()).unwrap() else {
        panic!("expected a ride")
    };
    let mut weather = json!({"groundstation": "USW00014734", "station_km": -number});
    for element in ["tmin", "tmax", "prcp"] {
        weather[element] = json!(i32::MIN);
    }
    let bytes = serde_json::to_vec(&ride).unwrap().len() + serde_json::to_vec(&weather).unwrap().len();
    assert!(bytes <= 1_250, "{bytes}");
    assert!(bytes * (CHUNK_SIZE_MAX as usize) + 1_024 < MESSAGE_BYTES_MAX);
    let too_long = |text: &str| {
        let ride = GOOD.replace("\"Twilight\"", &serde_json::to_string(text).unwrap());
        matches!(serde_json::from_str(&ride).unwrap(), Validation::Rejected { .. })
    };
    assert!(!too_long(&texts[1]) && too_long(&"\u{1}".repeat(43)) && too_long(&"\"".repeat(129)));
}

#[test]
fn settings_are_checked() {
    assert_eq!(Settings::default().check(), Ok(()));
    for chunk_size in [0, 10_001] {
        let problem = Settings { chunk_size, ..Settings::default() }.check().unwrap_err();
        assert_eq!((problem.key, problem.expected.as_str()), ("chunk_size", "1 to 10000 (rides)"));
    }
    assert!(serde_json::from_value::<Settings>(json!({"chunk": 1})).is_err());
}

#[tokio::test]
async fn real_files_give_the_expected_counts() {
    let rides = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/rides");
    if !rides.is_dir() {
        eprintln!("skipped: {} does not exist", rides.display());
        return;
    }
    let split_file = async |name: &str| {
        let store: Store = memory();
        let bytes = std::fs::read(rides.join(name)).unwrap();
        let reference = upload(&store, &format!("raw/{name}"), &bytes).await;
        publish(&Splitter::new(Settings::default(), store), reference).await.unwrap()
    };
    let generated = split_file("ride_data.json").await.summary;
    assert_eq!(generated.batch_id, "450c7f9391a7a29b");
    assert_eq!(
        (generated.received, generated.accepted, generated.rejected, generated.chunks),
        (20_000, 19_961, 39, 20)
    );
    let reasons = json!({
        "invalid_statustime": 8, "invalid_fieldservice": 7, "negative_distance": 6, "latitude_out_of_range": 5,
        "longitude_out_of_range": 3, "invalid_longitude": 3, "missing_statustime": 3, "invalid_latitude": 2,
        "missing_latitude": 1, "missing_longitude": 1,
    });
    assert_eq!(serde_json::to_value(&generated.rejected_by_reason).unwrap(), reasons);
    let early = split_file("workshop-v1-travel-data.json").await.summary;
    assert_eq!((early.received, early.rejected), (10_417, 0));
    let array = split_file("workshop-v2-array.json").await;
    let concatenated = split_file("workshop-v2-concatenated.json").await;
    assert_eq!((array.summary.received, concatenated.summary.received), (7_755, 7_755));
    let values = |published: &Publication| {
        published.rides().iter().map(|ride| Ride { ride_id: "".into(), ..(*ride).clone() }).collect::<Vec<_>>()
    };
    assert_eq!(values(&array), values(&concatenated));
    assert_eq!(array.summary.rejected, concatenated.summary.rejected);
}
