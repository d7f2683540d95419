//! A model is identical to the byte with and without a cache, whatever the cache holds and however it fails.

use super::*;
use async_trait::async_trait;
use common::served::write_scored;
use futures::{stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::{
    fmt,
    sync::{Mutex, MutexGuard},
};

/// Faults of the store that affect only the trainer's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    ReadsFail,
    WritesFail,
    ListingFails,
    RemovalsFail,
    /// At the n-th read the pack has moved, as if another trainer had merged it.
    MovedAt(usize),
    /// At the n-th read the whole cache is gone.
    RemovedAt(usize),
}

/// A store that records what is read, with a fault.
#[derive(Debug)]
struct Watched {
    inner: InMemory,
    fault: Fault,
    read: Mutex<Vec<String>>,
}

fn failed<T>() -> Result<T> {
    Err(Error::Generic { store: "watched", source: "made to fail".into() })
}

fn is_cache(path: &Path) -> bool {
    path.as_ref().starts_with(layout::TRAINER_CACHE)
}

impl Watched {
    fn over(inner: InMemory, fault: Fault) -> Arc<Self> {
        Arc::new(Self { inner, fault, read: Mutex::default() })
    }

    fn read(&self) -> MutexGuard<'_, Vec<String>> {
        self.read.lock().unwrap()
    }

    fn files_read(&self) -> usize {
        self.read().iter().filter(|path| path.ends_with(".csv") && path.starts_with(layout::DATASET)).count()
    }

    async fn packs(&self) -> Vec<Path> {
        let mut packs = Vec::new();
        let mut listing = self.inner.list(Some(&layout::TRAINER_CACHE.into()));
        while let Some(pack) = listing.next().await {
            packs.push(pack.unwrap().location);
        }
        packs
    }

    async fn disturb(&self, path: &Path) -> Result<()> {
        let reads = self.read().iter().filter(|path| path.starts_with(layout::TRAINER_CACHE)).count();
        match self.fault {
            Fault::ReadsFail => return failed(),
            Fault::MovedAt(at) if at == reads => self.inner.rename(path, &Path::from(format!("{path}0"))).await?,
            Fault::RemovedAt(at) if at == reads => {
                for pack in self.packs().await {
                    self.inner.delete(&pack).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a watched store")
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.fault == Fault::WritesFail && is_cache(path) {
            return failed();
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.read().push(path.to_string());
        if is_cache(path) {
            self.disturb(path).await?;
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.fault {
            Fault::RemovalsFail => paths.map(|_| failed()).boxed(),
            _ => self.inner.delete_stream(paths),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault {
            Fault::ListingFails if prefix.is_some_and(is_cache) => stream::once(async { failed() }).boxed(),
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store with a champion, rides that it scored, and later datasets: with one and two files, one and several blocks, duplicates of rides
/// in other datasets, and several breeds.
struct History {
    objects: InMemory,
    /// The objects below `models/` after a training without a cache.
    expected: BTreeMap<String, Vec<u8>>,
}

fn of_breeds(lines: Vec<String>) -> Vec<String> {
    let breed = |index: usize| ["", "Qilin", " alicorn", "QILIN"][index % 4];
    lines.iter().enumerate().map(|(n, line)| line.replacen("\",,2018", &format!("\",{},2018", breed(n)), 1)).collect()
}

async fn training(objects: InMemory, fault: Fault, cache: bool) -> Arc<Watched> {
    let watched = Watched::over(objects, fault);
    Trainer::new(Settings { cache, ..always() }, watched.clone()).retrain().await.unwrap();
    watched
}

impl History {
    /// One dataset has `large` rides; 50,000 are more than one block.
    async fn new(large: u64) -> Self {
        let store: Store = memory();
        put_dataset(&store, "m", &[of_breeds(lines("m", 2_000, 6))]).await;
        Trainer::new(Settings { cache: false, ..always() }, Arc::clone(&store)).retrain().await.unwrap();
        let first = alias(&store).await.unwrap();
        let scored = layout::scored(&first.model, &first.model_id, "2026-01-01", "one");
        let rides: Vec<String> = (0..500).map(|n| format!("b-{n}")).collect();
        let scores = rides.iter().map(|ride| (ride.as_str(), 0.4));
        store::write(&store, &scored, write_scored(scores).unwrap()).await.unwrap();
        let mut again = of_breeds(lines("b", 700, 6));
        again.extend(of_breeds(lines("m", 50, 6)));
        again.push(line("b-u", 1, None, true));
        again.push(line("b-w", 1, Some(true), false));
        again.push(line("b-x", 1, Some(true), true).replacen(".5,", "e300,", 1));
        let (one, other) = again.split_at(333);
        put_dataset(&store, "b", &[one.to_vec(), other.to_vec()]).await;
        put_dataset(&store, "empty", &[vec![]]).await;
        put_dataset(&store, "large", &[of_breeds(lines("l", large, 6))]).await;
        put_dataset(&store, "z", &[of_breeds(lines("z", 300, 6))]).await;
        let objects = copy(&store).await;
        let trained = training(objects.fork(), Fault::None, false).await;
        assert!(trained.packs().await.is_empty());
        let expected = everything(&(trained as Store)).await;
        let names = ["model.json", "metrics.json", "breeds.json", "realised.json", "report.html"];
        assert!(names.iter().all(|name| expected.keys().any(|path| path.ends_with(name))), "{:?}", expected.keys());
        Self { objects, expected }
    }

    /// Trains with the given cache, and compares the models with those of a training without a cache.
    async fn trains_the_same(&self, cache: &InMemory, fault: Fault, what: &str) -> Arc<Watched> {
        let objects = self.objects.fork();
        let packs = Watched::over(cache.fork(), Fault::None);
        for path in packs.packs().await {
            let bytes = packs.inner.get(&path).await.unwrap().bytes().await.unwrap();
            objects.put(&path, bytes.into()).await.unwrap();
        }
        let trained = training(objects, fault, true).await;
        let actual = everything(&(trained.clone() as Store)).await;
        let differ: Vec<_> =
            self.expected.keys().filter(|path| actual.get(*path) != self.expected.get(*path)).collect();
        assert!(differ.is_empty() && actual.len() == self.expected.len(), "{what}: {differ:?} differ");
        trained
    }
}

async fn copy(store: &Store) -> InMemory {
    let objects = InMemory::new();
    let mut listing = store.list(None);
    while let Some(object) = listing.next().await {
        let path = object.unwrap().location;
        objects.put(&path, store.get(&path).await.unwrap().bytes().await.unwrap().into()).await.unwrap();
    }
    objects
}

#[tokio::test]
async fn a_model_is_the_same_whatever_the_cache_holds() {
    let history = History::new(50_000).await;
    let cold = history.trains_the_same(&InMemory::new(), Fault::None, "cold").await;
    let packs = cold.packs().await;
    assert!(cold.files_read() >= 6 && packs.len() == 1, "{packs:?}");
    let warm = history.trains_the_same(&cold.inner, Fault::None, "warm").await;
    assert_eq!((warm.files_read(), warm.packs().await), (0, packs.clone()));

    // A cache of only some of the datasets.
    let partly = history.objects.fork();
    for batch_id in ["large", "b"] {
        partly.delete(&layout::manifest(batch_id, FIRST_REVISION).into()).await.unwrap();
    }
    let partly = training(partly, Fault::None, true).await;
    let trained = history.trains_the_same(&partly.inner, Fault::None, "partly warm").await;
    let read = trained.read().clone();
    let is_read = |batch_id: &str| read.iter().any(|path| *path == layout::dataset_part(batch_id, FIRST_REVISION, 0));
    assert!(is_read("large") && is_read("b") && !is_read("m") && !is_read("z") && !is_read("empty"), "{read:?}");
}

#[tokio::test]
async fn a_damaged_cache_changes_no_model() {
    let history = History::new(50).await;
    let whole = history.trains_the_same(&InMemory::new(), Fault::None, "cold").await;
    let [pack] = whole.packs().await.try_into().unwrap();
    let bytes = whole.inner.get(&pack).await.unwrap().bytes().await.unwrap();
    let end = bytes.len();
    for at in [0, 9, 14, 30, 60, 300, 1_000, end / 3, end / 2, end - 1] {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        for (body, what) in [(damaged, "a bit"), (bytes[..at].to_vec(), "the rest")] {
            let cache = InMemory::new();
            cache.put(&pack, body.into()).await.unwrap();
            let what = format!("{what} from byte {at} of {end}");
            let trained = history.trains_the_same(&cache, Fault::None, &what).await;
            assert!(trained.files_read() > 0, "{what}");
            let mended = history.trains_the_same(&trained.inner, Fault::None, &what).await;
            assert_eq!(mended.files_read(), 0, "{what}: the damaged part is written again");
        }
    }
}

#[tokio::test]
async fn a_failing_cache_fails_no_training() {
    let history = History::new(50).await;
    let whole = history.trains_the_same(&InMemory::new(), Fault::None, "cold").await;
    for fault in [Fault::ReadsFail, Fault::WritesFail, Fault::ListingFails, Fault::RemovalsFail] {
        for cache in [&whole.inner, &InMemory::new()] {
            history.trains_the_same(cache, fault, &format!("{fault:?}")).await;
        }
    }
}

/// Pieces that another trainer has merged are found in their new pack.
#[tokio::test]
async fn packs_may_vanish_while_they_are_read() {
    let history = History::new(50_000).await;
    let whole = history.trains_the_same(&InMemory::new(), Fault::None, "cold").await;
    // The first read gets the index and what follows it; later reads get the rest of the pack.
    for at in 1..4 {
        let moved = history.trains_the_same(&whole.inner, Fault::MovedAt(at), &format!("moved at {at}")).await;
        assert_eq!(moved.files_read() > 0, at == 1, "moved at {at}");
    }
    history.trains_the_same(&whole.inner, Fault::RemovedAt(3), "removed").await;
}

/// Rides of a damaged dataset file never reach a model through the cache.
#[tokio::test]
async fn rides_of_a_damaged_dataset_are_not_cached() {
    let store = memory();
    let part = [lines("a", 500, 6)];
    put_dataset(&store, "b", &[lines("b", 500, 6)]).await;
    let ready = put_dataset(&store, "a", &part).await;
    let path = layout::dataset_part("a", FIRST_REVISION, 0);
    let right = store::read(&store, &path).await.unwrap().unwrap();
    let wrong = String::from_utf8(right.to_vec()).unwrap().replacen(".5,2", ".5,3", 1);
    assert_ne!(right, wrong);
    store::write(&store, &path, wrong).await.unwrap();
    assert!(handle(&trainer(&store), &ready).await.is_err());
    store::write(&store, &path, right).await.unwrap();
    let mended = promoted(&trainer(&store), &ready).await;
    let sound = memory();
    put_dataset(&sound, "b", &[lines("b", 500, 6)]).await;
    let ready = put_dataset(&sound, "a", &part).await;
    assert_eq!(promoted(&trainer(&sound), &ready).await, mended);
    assert_eq!(everything(&sound).await, everything(&store).await);
}

/// A job of one batch writes no cache, because nothing would read it.
#[tokio::test]
async fn one_dataset_alone_is_not_cached() {
    let store = memory();
    let ready = put_dataset(&store, "a", &[lines("a", 500, 6)]).await;
    promoted(&trainer(&store), &ready).await;
    let is_cached = async || store.list(Some(&layout::TRAINER_CACHE.into())).next().await.is_some();
    assert!(!is_cached().await);
    let ready = put_dataset(&store, "b", &[lines("b", 500, 6)]).await;
    promoted(&trainer(&store), &ready).await;
    assert!(is_cached().await);
}
