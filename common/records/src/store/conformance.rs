//! The rules that the fleet requires of an object store. Each is a test, which runs on a folder and in memory.

use super::{Store, StoreSettings, create, exists, open, read, read_json, remove, remove_all, sha256, write};
use common::outcome::Failure;
use futures::{StreamExt, TryStreamExt, future, stream};
use object_store::{GetOptions, GetRange, ObjectStoreExt, WriteMultipart, memory::InMemory, path::Path};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::Arc};

/// Number of concurrent writers of one object.
const WRITERS: usize = 16;
/// Size in bytes of an object that takes more than one system call to write.
const LARGE: usize = 1 << 20;

/// Returns a store in a local folder and one in memory. Dropping the `TempDir` removes the folder.
fn stores() -> (tempfile::TempDir, [(&'static str, Store); 2]) {
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings { url: folder.path().display().to_string(), ..StoreSettings::default() };
    let stores: [(_, Store); 2] = [("folder", open(&settings).unwrap()), ("memory", Arc::new(InMemory::new()))];
    (folder, stores)
}

async fn listed(store: &Store, prefix: &str) -> BTreeSet<String> {
    let paths = store.list(Some(&Path::from(prefix))).map_ok(|meta| meta.location.to_string());
    paths.try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_racing_writers_creates_the_object() {
    let (_folder, stores) = stores();
    for (kind, store) in stores {
        for round in 0..20 {
            let path = format!("batches/{round}.json");
            let writers = (0..WRITERS).map(|writer| {
                let (store, path) = (store.clone(), path.clone());
                tokio::spawn(async move { create(&store, &path, vec![writer as u8; LARGE / 16]).await.unwrap() })
            });
            let won: Vec<bool> = future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
            let winners: Vec<usize> =
                won.iter().enumerate().filter(|(_, won)| **won).map(|(writer, _)| writer).collect();
            let stored = read(&store, &path).await.unwrap().unwrap();
            assert_eq!(winners.len(), 1, "{kind}: {winners:?}");
            assert_eq!(stored, vec![winners[0] as u8; LARGE / 16], "{kind}: the object of the winner");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_sees_an_object_whole() {
    let (_folder, stores) = stores();
    for (kind, store) in stores {
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
            assert_eq!(bytes.len(), LARGE, "{kind}");
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{kind}: bytes of two versions");
        }
        writer.await.unwrap();
        assert_eq!(read(&store, "models/m").await.unwrap().unwrap()[0], 30, "{kind}");
    }
}

#[tokio::test]
async fn a_listing_names_all_objects_below_a_prefix_and_no_others() {
    let (_folder, stores) = stores();
    for (kind, store) in stores {
        let below: BTreeSet<String> = (0..30).map(|n| format!("staging/b/{}/{n}.json", n % 3)).collect();
        for path in below.iter().map(String::as_str).chain(["staging/bc/1.json", "staging/b.json", "stag/1"]) {
            write(&store, path, "{}").await.unwrap();
        }
        assert_eq!(listed(&store, "staging/b").await, below, "{kind}");
        assert_eq!(listed(&store, "staging/missing").await, BTreeSet::new(), "{kind}");
        let level = store.list_with_delimiter(Some(&Path::from("staging/b"))).await.unwrap();
        let folders: Vec<String> = level.common_prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(
            (folders, level.objects.len()),
            (["0", "1", "2"].map(|n| format!("staging/b/{n}")).into(), 0),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn a_range_of_an_object_can_be_read() {
    let (_folder, stores) = stores();
    for (kind, store) in stores {
        let bytes: Vec<u8> = (0..LARGE).map(|at| at as u8).collect();
        write(&store, "raw/rides", bytes.clone()).await.unwrap();
        let path = Path::from("raw/rides");
        assert_eq!(store.get_range(&path, 1_000..1_300).await.unwrap(), bytes[1_000..1_300], "{kind}");
        let end = GetOptions { range: Some(GetRange::Suffix(300)), ..GetOptions::default() };
        let end = store.get_opts(&path, end).await.unwrap().bytes().await.unwrap();
        assert_eq!(end, bytes[LARGE - 300..], "{kind}");
        assert!(store.get_range(&path, LARGE as u64 + 1..LARGE as u64 + 9).await.is_err(), "{kind}: beyond the end");
    }
}

#[tokio::test]
async fn a_missing_object_is_not_an_outage() {
    let (_folder, stores) = stores();
    for (kind, store) in stores {
        assert_eq!(read(&store, "a/b").await, Ok(None), "{kind}");
        assert_eq!(read_json::<Value>(&store, "a/b").await, Ok(None), "{kind}");
        assert_eq!(sha256(&store, "a/b").await, Ok(None), "{kind}");
        assert_eq!(exists(&store, "a/b").await, Ok(false), "{kind}");
        assert_eq!(remove(&store, "a/b").await, Ok(()), "{kind}");
        write(&store, "a/b", "1").await.unwrap();
        let both = stream::iter(["a/b", "a/c"].map(|path| Ok(Path::from(path)))).boxed();
        assert!(
            matches!(remove_all(&store, both).await, Ok(1 | 2)),
            "{kind}: some stores count a missing object as removed"
        );
        assert_eq!(create(&store, "a/b", "2").await, Ok(true), "{kind}: a removed object can be created again");
    }
}

#[tokio::test]
async fn an_interrupted_upload_leaves_no_object() {
    let (_folder, stores) = stores();
    for (kind, store) in stores {
        let path = Path::from("raw/upload");
        for is_aborted in [true, false] {
            let mut writer = WriteMultipart::new_with_chunk_size(store.put_multipart(&path).await.unwrap(), LARGE / 4);
            writer.write(&vec![7; LARGE]);
            if is_aborted {
                writer.abort().await.unwrap();
            }
        }
        assert_eq!(exists(&store, "raw/upload").await, Ok(false), "{kind}");
        assert_eq!(listed(&store, "raw").await, BTreeSet::new(), "{kind}");
        let mut writer = WriteMultipart::new_with_chunk_size(store.put_multipart(&path).await.unwrap(), LARGE / 4);
        writer.write(&vec![8; LARGE]);
        assert_eq!(exists(&store, "raw/upload").await, Ok(false), "{kind}: before the upload is finished");
        writer.finish().await.unwrap();
        assert_eq!(sha256(&store, "raw/upload").await, Ok(Some(hex::encode(Sha256::digest(vec![8; LARGE])))), "{kind}");
    }
}

#[tokio::test]
async fn a_renamed_object_replaces_the_other_one() {
    let (_folder, stores) = stores();
    for (kind, store) in stores {
        write(&store, "raw/incoming/1", "new").await.unwrap();
        write(&store, "raw/1", "damaged").await.unwrap();
        store.rename(&Path::from("raw/incoming/1"), &Path::from("raw/1")).await.unwrap();
        assert_eq!(read(&store, "raw/1").await, Ok(Some("new".into())), "{kind}");
        assert_eq!(exists(&store, "raw/incoming/1").await, Ok(false), "{kind}");
    }
}

#[tokio::test]
async fn an_object_that_is_not_json_fails_permanently() {
    let (_folder, stores) = stores();
    for (kind, store) in stores {
        write(&store, "batches/b.json", "{").await.unwrap();
        let failure = read_json::<Value>(&store, "batches/b.json").await.unwrap_err();
        assert!(matches!(failure, Failure::Permanent { reason: "broken_object", .. }), "{kind}: {failure}");
    }
}

/// Operations fail if a file is where the store needs a folder. That is an outage, not a missing object.
#[tokio::test]
async fn a_failing_operation_is_an_outage() {
    let (folder, [(_, store), _]) = stores();
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
