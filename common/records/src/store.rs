//! The object store: the only state that the workers share. Objects are named by their paths, which
//! [`layout`](crate::layout) derives.
//!
//! ```text
//! location  the section `[store]`, and the address        create    an object that must not exist yet
//! open      the store that the settings name              probe     proves that a service creates an object once
//! folder    a local folder                                listing   objects and folders, by prefix
//! cloud     a bucket of S3, Google or Azure               writer    objects of any size
//!                                                         copy      a whole store
//! ```
//!
//! A *folder* of objects is the part of a path before a `/`: only a store that is a folder of the file system has real ones.

mod cloud;
mod copy;
mod create;
mod folder;
mod listing;
mod location;
mod observed;
mod open;
mod probe;
#[cfg(test)]
mod stub;
mod writer;

pub use cloud::{LifecycleRule, Unfinished, UnfinishedUpload};
pub use copy::{Copied, CopyError, Extent, Source, check as check_copy, copy};
pub use create::create;
pub use folder::{is_own, keep_from_others, remove_empty_folders};
pub use listing::{Folder, Listed, by_folder, folders, list, list_folder};
pub use location::StoreSettings;
pub use observed::{Observer, observed};
pub use open::{is_remote, open, open_existing, open_swept, open_with, unfinished_uploads, unfinished_uploads_with};
pub use probe::{Unproven, prove};
pub use writer::{Writer, Written};

use bytes::Bytes;
use common::outcome::Failure;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use object_store::{GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{ops::Range, sync::Arc};

/// Maximum length of an object's path, and of each part of it, bytes: the limits of S3 and of common file systems, less the
/// suffix that a store may append to a name while it writes.
const PATH_BYTES_MAX: usize = 1024;
const PATH_PART_BYTES_MAX: usize = 240;

/// A handle to the object store.
pub type Store = Arc<dyn ObjectStore>;

/// Checks that every store can have an object at `path`. The error tells a person the limits.
///
/// # Errors
/// Fails if the path is too long.
pub fn check_path(path: &str) -> Result<(), String> {
    // In the encoding of the store, in which some characters take three bytes.
    let encoded = Path::from(path);
    let name: &str = encoded.as_ref();
    if name.len() <= PATH_BYTES_MAX && name.split('/').all(|part| part.len() <= PATH_PART_BYTES_MAX) {
        return Ok(());
    }
    Err(format!("expected a path of at most {PATH_BYTES_MAX} bytes, each part of at most {PATH_PART_BYTES_MAX}"))
}

/// Returns an outage of the object store: the input waits until the store works again.
pub fn outage(error: object_store::Error) -> Failure {
    Failure::outage("object store", error)
}

/// Returns `None` if the object does not exist.
fn unless_missing<T>(outcome: object_store::Result<T>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(outage(error)),
    }
}

/// Opens an object. With an etag, fails with `Precondition` if the object has another one.
///
/// # Errors
/// Fails as the store does, so that the caller can tell a missing object from one that was replaced.
pub async fn open_version(store: &Store, path: &str, etag: Option<String>) -> object_store::Result<GetResult> {
    store.get_opts(&Path::from(path), GetOptions { if_match: etag, ..GetOptions::default() }).await
}

/// Opens an object and returns its bytes piece by piece; `None` if it does not exist. Each piece fails with an [`outage`] if
/// the store cannot be used.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used.
pub async fn pieces(store: &Store, path: &str) -> Result<Option<BoxStream<'static, Result<Bytes, Failure>>>, Failure> {
    let object = unless_missing(store.get(&Path::from(path)).await)?;
    Ok(object.map(|object| object.into_stream().map_err(outage).boxed()))
}

/// Returns when an object was last written, by the store's clock; in whole seconds for some stores.
fn written_at(meta: &ObjectMeta) -> Timestamp {
    let at = &meta.last_modified;
    Timestamp::new(at.timestamp(), at.timestamp_subsec_nanos().cast_signed()).unwrap_or_default()
}

/// Reads a small object; `None` if it does not exist.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used.
pub async fn read(store: &Store, path: &str) -> Result<Option<Bytes>, Failure> {
    Ok(read_dated(store, path).await?.map(|(bytes, _)| bytes))
}

/// As [`read`], with the time when the object was last written, by the store's clock.
///
/// # Errors
/// As for [`read`].
pub async fn read_dated(store: &Store, path: &str) -> Result<Option<(Bytes, Timestamp)>, Failure> {
    let Some(object) = unless_missing(store.get(&Path::from(path)).await)? else { return Ok(None) };
    let written_at = written_at(&object.meta);
    Ok(Some((object.bytes().await.map_err(outage)?, written_at)))
}

/// Reads these bytes of an object, at least one; `None` if the object does not exist.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used, or the object ends before the range begins.
pub async fn read_range(store: &Store, path: &str, range: Range<u64>) -> Result<Option<Bytes>, Failure> {
    unless_missing(store.get_range(&Path::from(path), range).await)
}

/// Reads a small JSON document; `None` if it does not exist.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used; permanently (`broken_object`) if the document cannot be
/// decoded.
pub async fn read_json<T: serde::de::DeserializeOwned>(store: &Store, path: &str) -> Result<Option<T>, Failure> {
    read(store, path).await?.map(|bytes| decode(path, &bytes)).transpose()
}

/// Decodes the JSON document at `path`.
///
/// # Errors
/// Fails permanently (`broken_object`) if the document cannot be decoded.
pub fn decode<T: serde::de::DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::permanent("broken_object", format!("{path}: {error}")))
}

/// Treats an object that cannot be decoded as missing.
///
/// # Errors
/// Fails as the read did, unless it failed permanently.
pub fn unreadable_as_missing<T>(read: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Err(Failure::Permanent { why, .. }) => {
            tracing::warn!(%why, "an object cannot be read; it will be replaced");
            Ok(None)
        }
        other => other,
    }
}

/// Encodes a document as indented JSON.
///
/// # Errors
/// Fails permanently (`unencodable`) if the value has no form in JSON.
pub fn indented<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec_pretty(value).map_err(|error| Failure::permanent("unencodable", error))
}

/// Encodes a document as [`indented`] does, with a line end.
///
/// # Errors
/// As for [`indented`].
pub fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    let mut json = indented(value)?;
    json.push(b'\n');
    Ok(json)
}

/// Writes a document as [`indented`] JSON, replacing an existing one.
///
/// # Errors
/// As for [`indented`] and [`write`].
pub async fn write_json<T: Serialize>(store: &Store, path: &str, value: &T) -> Result<(), Failure> {
    write(store, path, indented(value)?).await
}

/// Writes an object, replacing an existing one. The new object becomes visible whole or not at all.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used.
pub async fn write(store: &Store, path: &str, body: impl Into<PutPayload>) -> Result<(), Failure> {
    store.put(&Path::from(path), body.into()).await.map(drop).map_err(outage)
}

/// Returns the SHA-256 of an object's bytes, 64 hex digits; `None` if it does not exist. Reads the whole object.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used.
pub async fn sha256(store: &Store, path: &str) -> Result<Option<String>, Failure> {
    let Some(mut pieces) = pieces(store, path).await? else { return Ok(None) };
    let mut hasher = Sha256::new();
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
    }
    Ok(Some(hex::encode(hasher.finalize())))
}

/// Moves an object, replacing an existing one at `to`. A service copies the object, which may take minutes, and then removes the
/// first one: after a crash in between, both exist.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used, or the object does not exist.
pub async fn rename(store: &Store, from: &str, to: &str) -> Result<(), Failure> {
    store.rename(&Path::from(from), &Path::from(to)).await.map_err(outage)
}

/// Removes an object. A missing object is not an error.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used.
pub async fn remove(store: &Store, path: &str) -> Result<(), Failure> {
    unless_missing(store.delete(&Path::from(path)).await).map(drop)
}

/// Removes objects as [`remove`] does, several at a time. Returns how many were removed; stores that do not report a missing
/// object count it as well.
///
/// # Errors
/// Fails with an [`outage`] at the first object that cannot be listed or removed.
pub async fn remove_all(store: &Store, paths: BoxStream<'static, object_store::Result<Path>>) -> Result<u64, Failure> {
    let mut removed = store.delete_stream(paths);
    let mut count = 0;
    while let Some(outcome) = removed.next().await {
        count += u64::from(unless_missing(outcome)?.is_some());
    }
    Ok(count)
}

/// Removes the objects at these paths as [`remove_all`] does.
///
/// # Errors
/// Fails with an [`outage`] at the first object that cannot be removed.
pub async fn remove_each(store: &Store, paths: impl Iterator<Item = String>) -> Result<u64, Failure> {
    let paths: Vec<_> = paths.map(|path| Ok(Path::parse(path)?)).collect();
    remove_all(store, stream::iter(paths).boxed()).await
}

/// Returns the metadata of an object; `None` if it does not exist.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used.
pub async fn head(store: &Store, path: &str) -> Result<Option<ObjectMeta>, Failure> {
    unless_missing(store.head(&Path::from(path)).await)
}

/// Returns whether an object exists.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used.
pub async fn exists(store: &Store, path: &str) -> Result<bool, Failure> {
    Ok(head(store, path).await?.is_some())
}
