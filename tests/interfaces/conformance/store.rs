//! The rules that the fleet requires of an object store. Each is a test, which runs on a folder, in memory, on S3
//! and on Azure.

mod cloud;

use common::outcome::Failure;
use futures::{StreamExt, TryStreamExt, future, stream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart, path::Path};
use pipeline_tests::{azure::azure, s3::s3};
use records::{
    Store, StoreSettings,
    store::{
        self, Writer, create, exists, head, list, open_with, prove, read, read_json, remove, remove_all, remove_each,
        rename, sha256, write,
    },
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Number of concurrent writers of one object.
const WRITERS: usize = 16;
/// Size in bytes of an object that takes more than one system call to write.
const LARGE: usize = 1 << 20;
/// Size in bytes of an object that a service receives in several parts, and returns in several blocks.
const PARTS: usize = 19_000_000;

/// Runs one test body on every kind of store.
macro_rules! on_all_stores {
    ($($name:ident;)*) => {
        mod in_a_folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)] async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(super::in_folder(folder.path())).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)] async fn $name() {
                super::$name(std::sync::Arc::new(object_store::memory::InMemory::new())).await;
            })*
        }
        mod on_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)] async fn $name() {
                let Some(s3) = super::s3() else { return };
                super::$name(s3.store()).await;
            })*
        }
        mod on_azure {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)] async fn $name() {
                let Some(azure) = super::azure() else { return };
                super::$name(azure.store()).await;
            })*
        }
    };
}

on_all_stores! {
    one_of_racing_writers_creates_the_object;
    the_same_bytes_count_as_created;
    the_store_proves_itself;
    a_reader_sees_an_object_whole;
    a_read_never_mixes_two_versions;
    a_listing_names_all_objects_below_a_prefix_and_no_others;
    a_listing_of_several_pages_is_whole;
    a_range_of_an_object_can_be_read;
    an_object_of_any_size_is_read_as_it_was_written;
    a_missing_object_is_not_an_outage;
    an_interrupted_upload_leaves_no_object;
    a_renamed_object_replaces_the_other_one;
    an_object_that_is_not_json_fails_permanently;
    all_sources_of_a_time_agree_to_a_second;
}

fn in_folder(path: &std::path::Path) -> Store {
    let settings = StoreSettings { url: path.display().to_string(), ..StoreSettings::default() };
    open_with(&settings, &[]).unwrap()
}

async fn listed(store: &Store, prefix: &str) -> BTreeSet<String> {
    list(store, prefix).map_ok(|object| object.path).try_collect().await.unwrap()
}

/// Bytes without a period that a block or a part could hide.
fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at) as u8 ^ seed).collect()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

async fn one_of_racing_writers_creates_the_object(store: Store) {
    for round in 0..200 {
        let path = format!("batches/{round}.json");
        let writers = (0..WRITERS).map(|writer| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move { create(&store, &path, vec![writer as u8; LARGE / 64]).await.unwrap() })
        });
        let won: Vec<bool> = future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = won.iter().enumerate().filter(|(_, won)| **won).map(|(writer, _)| writer).collect();
        let stored = read(&store, &path).await.unwrap().unwrap();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(stored, vec![winners[0] as u8; LARGE / 64], "the object of the winner");
    }
}

/// A writer that repeats its own write cannot tell it from that of another one with the same bytes.
async fn the_same_bytes_count_as_created(store: Store) {
    assert_eq!(create(&store, "batches/b.json", "1").await, Ok(true));
    assert_eq!(create(&store, "batches/b.json", "1").await, Ok(true));
    for other in ["2", "", "11"] {
        assert_eq!(create(&store, "batches/b.json", other).await, Ok(false), "{other:?}");
    }
    assert_eq!(read(&store, "batches/b.json").await, Ok(Some("1".into())));
}

async fn the_store_proves_itself(store: Store) {
    assert_eq!(prove(&store, 8, 1).await, Ok(()));
    assert_eq!(listed(&store, "scratch").await, BTreeSet::new(), "the objects of the proof are removed");
}

async fn a_reader_sees_an_object_whole(store: Store) {
    write(&store, "models/m", vec![0; LARGE]).await.unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 1..=30u8 {
                write(&store, "models/m", vec![round; LARGE]).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let bytes = read(&store, "models/m").await.unwrap().expect("it is replaced, never missing");
        assert_eq!(bytes.len(), LARGE);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "bytes of two versions");
    }
    writer.await.unwrap();
    assert_eq!(read(&store, "models/m").await.unwrap().unwrap()[0], 30);
}

/// A long read of an object that is replaced in the middle returns the first version, or fails.
async fn a_read_never_mixes_two_versions(store: Store) {
    let (first, second) = (content(PARTS, 0), content(PARTS, 0x55));
    write(&store, "raw/rides", first.clone()).await.unwrap();
    let mut pieces = store::pieces(&store, "raw/rides").await.unwrap().unwrap();
    let mut bytes = pieces.try_next().await.unwrap().unwrap().to_vec();
    write(&store, "raw/rides", second).await.unwrap();
    let failure = loop {
        match pieces.try_next().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => break None,
            Err(failure) => break Some(failure),
        }
    };
    assert!(first.starts_with(&bytes), "only bytes of the first version");
    assert!(failure.is_some() || bytes.len() == PARTS, "{} bytes without a failure", bytes.len());
}

async fn a_listing_names_all_objects_below_a_prefix_and_no_others(store: Store) {
    let below: BTreeSet<String> = (0..30).map(|n| format!("staging/b/{}/{n}.json", n % 3)).collect();
    for path in below.iter().map(String::as_str).chain(["staging/bc/1.json", "staging/b.json", "stag/1"]) {
        write(&store, path, "{}").await.unwrap();
    }
    assert_eq!(listed(&store, "staging/b").await, below);
    assert_eq!(listed(&store, "staging/missing").await, BTreeSet::new());
    let (objects, mut folders) = store::list_folder(&store, "staging/b").await.unwrap();
    folders.sort_unstable();
    assert_eq!((folders, objects), (["0", "1", "2"].map(str::to_owned).into(), Vec::new()));
}

/// S3 lists and removes at most 1,000 objects per request.
async fn a_listing_of_several_pages_is_whole(store: Store) {
    let paths: BTreeSet<String> = (0..1_100).map(|n| format!("scored/{n:04}.json")).collect();
    let written = stream::iter(&paths).map(|path| write(&store, path, "{}")).buffer_unordered(16);
    written.try_collect::<Vec<()>>().await.unwrap();
    assert_eq!(listed(&store, "scored").await, paths);
    assert_eq!(store::list_folder(&store, "scored").await.unwrap().0.len(), paths.len());
    assert_eq!(remove_each(&store, paths.into_iter()).await, Ok(1_100));
    assert_eq!(listed(&store, "scored").await, BTreeSet::new());
}

async fn a_range_of_an_object_can_be_read(store: Store) {
    let bytes = content(LARGE, 0);
    write(&store, "raw/rides", bytes.clone()).await.unwrap();
    let (path, end) = (Path::from("raw/rides"), LARGE as u64);
    assert_eq!(store.get_range(&path, 1_000..1_300).await.unwrap(), bytes[1_000..1_300]);
    assert_eq!(store.get_range(&path, end - 10..end + 10).await.unwrap(), bytes[LARGE - 10..], "cut at the end");
    let rest = GetOptions { range: Some(GetRange::Offset(end - 300)), ..GetOptions::default() };
    let rest = store.get_opts(&path, rest).await.unwrap().bytes().await.unwrap();
    assert_eq!(rest, bytes[LARGE - 300..], "Azure has no ranges that count from the end");
    let several = store.get_ranges(&path, &[0..10, 20..30, end - 5..end]).await.unwrap();
    assert!(several[0] == bytes[..10] && several[1] == bytes[20..30] && several[2] == bytes[LARGE - 5..]);
    for beyond in [end..end + 9, end + 1..end + 9] {
        assert!(store.get_range(&path, beyond.clone()).await.is_err(), "{beyond:?}: beyond the end");
        assert!(store.get_ranges(&path, &[end - 10..end - 5, beyond]).await.is_err(), "several, one beyond the end");
    }
}

async fn an_object_of_any_size_is_read_as_it_was_written(store: Store) {
    for length in [0, 1, 4 << 20, 8 << 20, (8 << 20) + 1, PARTS] {
        let (bytes, path) = (content(length, 3), format!("raw/{length}"));
        let mut writer = Writer::new(&store, &path);
        for piece in bytes.chunks(1_000_003) {
            writer.put(bytes::Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let written = writer.finish().await.unwrap();
        assert_eq!((written.bytes, &written.sha256), (length as u64, &hash(&bytes)), "{length}");
        assert_eq!(head(&store, &path).await.unwrap().unwrap().size, length as u64);
        assert_eq!(sha256(&store, &path).await, Ok(Some(hash(&bytes))), "{length}");
    }
}

async fn a_missing_object_is_not_an_outage(store: Store) {
    assert_eq!(read(&store, "a/b").await, Ok(None));
    assert_eq!(read_json::<Value>(&store, "a/b").await, Ok(None));
    assert_eq!(sha256(&store, "a/b").await, Ok(None));
    assert_eq!(exists(&store, "a/b").await, Ok(false));
    assert_eq!(remove(&store, "a/b").await, Ok(()));
    assert!(rename(&store, "a/b", "a/c").await.is_err());
    write(&store, "a/b", "1").await.unwrap();
    let both = stream::iter(["a/b", "a/c"].map(|path| Ok(Path::from(path)))).boxed();
    assert!(matches!(remove_all(&store, both).await, Ok(1 | 2)), "some stores count a missing object as removed");
    assert_eq!(create(&store, "a/b", "2").await, Ok(true), "a removed object can be created again");
}

async fn an_interrupted_upload_leaves_no_object(store: Store) {
    /// The smallest part that S3 accepts.
    const PART: usize = 5 << 20;
    let path = Path::from("raw/upload");
    for is_aborted in [true, false] {
        let mut writer = WriteMultipart::new_with_chunk_size(store.put_multipart(&path).await.unwrap(), PART);
        writer.write(&vec![7; PART + 1]);
        if is_aborted {
            writer.abort().await.unwrap();
        }
    }
    assert_eq!(exists(&store, "raw/upload").await, Ok(false));
    assert_eq!(listed(&store, "raw").await, BTreeSet::new());
    let mut writer = WriteMultipart::new_with_chunk_size(store.put_multipart(&path).await.unwrap(), PART);
    writer.write(&vec![8; PART + 1]);
    assert_eq!(exists(&store, "raw/upload").await, Ok(false), "before the upload is finished");
    writer.finish().await.unwrap();
    assert_eq!(sha256(&store, "raw/upload").await, Ok(Some(hash(&vec![8; PART + 1]))));
}

async fn a_renamed_object_replaces_the_other_one(store: Store) {
    for bytes in [b"new".to_vec(), content(PARTS, 9)] {
        write(&store, "raw/incoming/1", bytes.clone()).await.unwrap();
        write(&store, "raw/1", "damaged").await.unwrap();
        rename(&store, "raw/incoming/1", "raw/1").await.unwrap();
        assert_eq!(sha256(&store, "raw/1").await, Ok(Some(hash(&bytes))));
        assert_eq!(exists(&store, "raw/incoming/1").await, Ok(false));
    }
}

async fn an_object_that_is_not_json_fails_permanently(store: Store) {
    write(&store, "batches/b.json", "{").await.unwrap();
    let failure = read_json::<Value>(&store, "batches/b.json").await.unwrap_err();
    assert!(matches!(failure, Failure::Permanent { reason: "broken_object", .. }), "{failure}");
}

/// Some stores have whole seconds in one answer and milliseconds in another.
async fn all_sources_of_a_time_agree_to_a_second(store: Store) {
    write(&store, "batches/b.json", "{}").await.unwrap();
    let (_, read_at) = store::read_dated(&store, "batches/b.json").await.unwrap().unwrap();
    let listed: Vec<_> = list(&store, "batches").try_collect().await.unwrap();
    let apart = listed[0].written_at.duration_since(read_at).as_millis();
    assert!((-1_000..=1_000).contains(&apart), "{apart} ms");
}

/// Operations fail if a file is where the store needs a folder. That is an outage, not a missing object.
#[tokio::test]
async fn a_failing_operation_is_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    std::fs::write(folder.path().join("a"), "").unwrap();
    let failures = [
        write(&store, "a/b", "1").await.unwrap_err(),
        create(&store, "a/b", "1").await.unwrap_err(),
        read(&store, "a/b").await.unwrap_err(),
        read_json::<Value>(&store, "a/b").await.unwrap_err(),
        sha256(&store, "a/b").await.unwrap_err(),
    ];
    for failure in failures {
        assert!(matches!(failure, Failure::Outage { dependency: "object store", .. }), "{failure}");
    }
}
