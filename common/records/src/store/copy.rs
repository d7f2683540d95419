//! Copies a store into another one, object by object, with a check of every byte. An interrupted copy continues: what is there
//! already is compared, not written again.

use super::{Store, outage, unless_missing, writer::Writer, written_at};
use crate::layout;
use common::outcome::Failure;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::Timestamp;
use object_store::{ObjectMeta, ObjectStoreExt, path::Path};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Semaphore;

/// Maximum number of small objects copied at the same time.
const COPIES_MAX: u32 = 16;
/// Size that counts as one small object, bytes.
const SMALL_BYTES: u64 = 8 << 20;
/// Maximum number of small objects that a large one counts as: two are copied at the same time.
const LARGE_COUNTS_AS: u32 = 8;

/// Why a copy failed. The objects that were copied stay; the same command continues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// Both addresses name one store.
    #[error("both addresses name the same store, or one is within the other")]
    SameStore,
    /// The target has an object that the source does not have.
    #[error("the target has {path}, which the source does not have: copy to an empty folder or prefix")]
    NotEmpty {
        /// Path of the object.
        path: String,
    },
    /// An object changed while the store was being copied.
    #[error(
        "{path} changed during the copy: stop every process that writes to the source, and run the same command again"
    )]
    Changed {
        /// Path of the object.
        path: String,
    },
    /// The bytes that the target returns differ from those of the source.
    #[error("{path} differs after it was copied: its SHA-256 is {copied}, that of the source {original}")]
    Differs {
        /// Path of the object.
        path: String,
        /// SHA-256 of the source's object.
        original: String,
        /// SHA-256 of the target's object.
        copied: String,
    },
    /// A store cannot be used.
    #[error("{0}")]
    Store(Failure),
}

impl From<Failure> for CopyError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure)
    }
}

impl From<object_store::Error> for CopyError {
    fn from(error: object_store::Error) -> Self {
        Self::Store(outage(error))
    }
}

/// Number and size of objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Number of objects.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// A store that is to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Its objects.
    pub extent: Extent,
    /// When the last of them was written, by the store's clock.
    newest: Timestamp,
}

/// What a copy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Objects that were written.
    pub written: Extent,
    /// Objects that the target had already, with the same bytes.
    pub present: Extent,
}

/// Checks that `to` can take the objects of `from`; returns what is to be copied. `random` makes the name of an object unique that
/// is written to `to` and removed.
///
/// # Errors
/// Fails if both are the same store, or `to` has an object that `from` does not have.
pub async fn check(from: &Store, to: &Store, random: u128) -> Result<Source, CopyError> {
    let mark = Path::from(layout::scratch(&format!("copy-{random:032x}")));
    to.put(&mark, "copy".into()).await?;
    let found = contains(from, &mark).await;
    to.delete(&mark).await?;
    if found? {
        return Err(CopyError::SameStore);
    }
    let mut present = objects(to);
    while let Some(object) = present.try_next().await? {
        if unless_missing(from.head(&object.location).await)?.is_none() {
            return Err(CopyError::NotEmpty { path: object.location.into() });
        }
    }
    let (mut extent, mut newest) = (Extent::default(), Timestamp::MIN);
    let mut all = objects(from);
    while let Some(object) = all.try_next().await? {
        extent.objects += 1;
        extent.bytes += object.size;
        newest = newest.max(written_at(&object));
    }
    Ok(Source { extent, newest })
}

/// Returns whether a store has an object at a path, or at a path that ends with it.
async fn contains(store: &Store, path: &Path) -> Result<bool, CopyError> {
    if unless_missing(store.head(path).await)?.is_some() {
        return Ok(true);
    }
    let name = path.filename().unwrap_or_default();
    let mut all = store.list(None);
    while let Some(object) = all.try_next().await? {
        if object.location.filename() == Some(name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the objects of a fleet. Leaves out those that a process will remove.
fn objects(store: &Store) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
    let temporary = [format!("{}/", layout::INCOMING), layout::scratch("")];
    let is_kept = move |location: &Path| !temporary.iter().any(|below| location.as_ref().starts_with(below));
    store.list(None).try_filter(move |object| futures::future::ready(is_kept(&object.location))).boxed()
}

/// Copies all objects of `from` to `to`, after [`check`] has returned `source`. Calls `progress` with the number of bytes that are
/// copied or compared so far.
///
/// # Errors
/// Fails with the first object that cannot be copied, or that changed meanwhile. The next call continues.
pub async fn copy(
    from: &Store,
    to: &Store,
    source: &Source,
    progress: impl Fn(u64) + Sync,
) -> Result<Copied, CopyError> {
    let (turns, done) = (Semaphore::new(COPIES_MAX as usize), AtomicU64::new(0));
    let (turns, done, progress) = (&turns, &done, &progress);
    let copies = objects(from).map_err(CopyError::from).map(|object| async move {
        let object = object?;
        let weight = u32::try_from(object.size / SMALL_BYTES).unwrap_or(u32::MAX).clamp(1, LARGE_COUNTS_AS);
        let _turn = turns.acquire_many(weight).await;
        let is_written = copy_one(from, to, &object).await?;
        progress(done.fetch_add(object.size, Relaxed) + object.size);
        Ok::<_, CopyError>((is_written, object.size))
    });
    let mut copied = Copied::default();
    let mut copies = std::pin::pin!(copies.buffer_unordered(COPIES_MAX as usize));
    while let Some((is_written, bytes)) = copies.try_next().await? {
        let extent = if is_written { &mut copied.written } else { &mut copied.present };
        extent.objects += 1;
        extent.bytes += bytes;
    }
    check_unchanged(from, to, source).await?;
    Ok(copied)
}

/// Copies one object unless the target has it. Returns whether it was written.
async fn copy_one(from: &Store, to: &Store, object: &ObjectMeta) -> Result<bool, CopyError> {
    let path = &object.location;
    let changed = || CopyError::Changed { path: path.to_string() };
    let there = unless_missing(to.head(path).await)?;
    if there.is_some_and(|there| there.size == object.size) {
        let (original, copied) = futures::future::try_join(sha256(from, path), sha256(to, path)).await?;
        if original.ok_or_else(changed)? == copied.ok_or_else(changed)? {
            return Ok(false);
        }
    }
    let Some(opened) = unless_missing(from.get(path).await)? else { return Err(changed()) };
    let mut pieces = opened.into_stream();
    let mut writer = Writer::at(to, path.clone());
    let writing = async {
        while let Some(piece) = pieces.try_next().await? {
            writer.put(piece).await?;
        }
        Ok::<_, CopyError>(())
    };
    if let Err(error) = writing.await {
        writer.abort().await;
        return Err(error);
    }
    let written = writer.finish().await?;
    let copied = sha256(to, path).await?.ok_or_else(changed)?;
    match written.sha256 == copied {
        true => Ok(true),
        false => Err(CopyError::Differs { path: path.to_string(), original: written.sha256, copied }),
    }
}

async fn sha256(store: &Store, path: &Path) -> Result<Option<String>, CopyError> {
    let Some(object) = unless_missing(store.get(path).await)? else { return Ok(None) };
    let (mut hasher, mut pieces) = (Sha256::new(), object.into_stream());
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
    }
    Ok(Some(hex::encode(hasher.finalize())))
}

/// Checks that no object of the source was written since [`check`], and that the target has all of them, in their sizes.
async fn check_unchanged(from: &Store, to: &Store, source: &Source) -> Result<(), CopyError> {
    let compare = objects(from).map_err(CopyError::from).map(|object| async move {
        let object = object?;
        let copied = unless_missing(to.head(&object.location).await)?;
        let is_same = written_at(&object) <= source.newest && copied.is_some_and(|copied| copied.size == object.size);
        if is_same { Ok(()) } else { Err(CopyError::Changed { path: object.location.to_string() }) }
    });
    compare.buffer_unordered(COPIES_MAX as usize).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreSettings, cloud::Cloud, open_with, read, remove, write};
    use object_store::memory::InMemory;
    use std::{path::Path as File, sync::Arc};

    fn folder(path: &File) -> Store {
        let url = path.display().to_string();
        open_with(&StoreSettings { url, ..StoreSettings::default() }, &[]).unwrap()
    }

    fn memory() -> Store {
        Arc::new(Cloud::around(Arc::new(InMemory::new())))
    }

    /// More than one part of an upload, so that it is written in parts.
    const LARGE: usize = 9 << 20;
    const OBJECTS: [&str; 4] =
        ["raw/a b é.json", "dataset/b/part-00000.csv", "models/m/champion.json", "batches/b.json"];

    async fn fill(store: &Store) {
        for path in OBJECTS {
            write(store, path, path.to_owned()).await.unwrap();
        }
        write(store, "raw/large", vec![7; LARGE]).await.unwrap();
        for path in ["raw/incoming/00ff", "scratch/doctor-1"] {
            write(store, path, "temporary").await.unwrap();
        }
    }

    async fn copied(from: &Store, to: &Store) -> Result<Copied, CopyError> {
        let source = check(from, to, 7).await?;
        copy(from, to, &source, |_| {}).await
    }

    #[tokio::test]
    async fn every_object_is_copied_and_a_second_copy_writes_nothing() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for to in [folder(second.path()), memory()] {
            let from = folder(first.path());
            fill(&from).await;
            let source = check(&from, &to, 1).await.unwrap();
            let reached = AtomicU64::new(0);
            let did = copy(&from, &to, &source, |bytes| {
                reached.fetch_max(bytes, Relaxed);
            })
            .await
            .unwrap();
            assert_eq!((did.written, did.present), (source.extent, Extent::default()));
            assert_eq!((source.extent.objects, reached.into_inner()), (5, source.extent.bytes));
            for path in OBJECTS {
                assert_eq!(read(&to, path).await, Ok(Some(path.into())), "{path}");
            }
            assert_eq!(read(&to, "raw/large").await.unwrap().unwrap(), vec![7; LARGE]);
            assert_eq!(read(&to, "raw/incoming/00ff").await, Ok(None));
            let again = copied(&from, &to).await.unwrap();
            assert_eq!((again.written, again.present), (Extent::default(), source.extent));
        }
    }

    /// What an interrupted copy left, and what changed since, is made good.
    #[tokio::test]
    async fn a_copy_continues() {
        let (from, to) = (memory(), memory());
        fill(&from).await;
        copied(&from, &to).await.unwrap();
        remove(&to, OBJECTS[0]).await.unwrap();
        write(&to, OBJECTS[1], "damaged").await.unwrap();
        write(&to, OBJECTS[2], "same length, other by".to_owned() + "t").await.unwrap();
        let did = copied(&from, &to).await.unwrap();
        assert_eq!((did.written.objects, did.present.objects), (3, 2));
        assert_eq!(read(&to, OBJECTS[2]).await, Ok(Some(OBJECTS[2].into())));
    }

    #[tokio::test]
    async fn a_store_is_not_copied_to_itself_or_to_another_fleets_store() {
        let root = tempfile::tempdir().unwrap();
        let from = folder(root.path());
        fill(&from).await;
        for same in [folder(root.path()), folder(&root.path().join("inner"))] {
            assert_eq!(check(&from, &same, 1).await, Err(CopyError::SameStore));
        }
        let link = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), link.path().join("link")).unwrap();
        assert_eq!(check(&from, &folder(&link.path().join("link")), 1).await, Err(CopyError::SameStore));
        let other = memory();
        write(&other, "batches/other.json", "{}").await.unwrap();
        let path = "batches/other.json".to_owned();
        assert_eq!(check(&from, &other, 1).await, Err(CopyError::NotEmpty { path }));
    }

    #[tokio::test]
    async fn an_object_that_changes_meanwhile_is_reported() {
        let (from, to) = (memory(), memory());
        fill(&from).await;
        let source = check(&from, &to, 1).await.unwrap();
        let once = std::sync::Once::new();
        let late = |_| once.call_once(|| futures::executor::block_on(write(&from, "batches/late.json", "{}")).unwrap());
        let error = copy(&from, &to, &source, late).await.unwrap_err();
        assert_eq!(error, CopyError::Changed { path: "batches/late.json".to_owned() });
    }
}
