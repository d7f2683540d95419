//! The object store: a local folder by default, or what the URL names. The only state the workers share.

mod confined;
#[cfg(test)]
mod conformance;
mod leftovers;

use anyhow::Context;
use common::outcome::Failure;
use confined::Confined;
use futures::{StreamExt, stream::BoxStream};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// `[store]`: the object store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// A folder's path (or `file:///…`). All workers of a fleet name the same place.
    pub url: String,
    /// Whether a write is on the disk before it counts: survives a power failure of the machine, at the price of speed.
    pub fsync: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { url: "wildrydes-data".to_owned(), fsync: false }
    }
}

/// A handle to the object store.
pub type Store = Arc<dyn ObjectStore>;

/// Opens the store that the settings name: a folder, by its path or as `file:///…`; creates it if it is missing. Also
/// restricts the umask of this process: only its user and its group can open the files it creates from now on.
///
/// # Errors
/// Fails if the folder cannot be used; the message says what would work.
pub fn open(settings: &StoreSettings) -> anyhow::Result<Store> {
    keep_from_others();
    opened(settings)
}

fn opened(settings: &StoreSettings) -> anyhow::Result<Store> {
    let folder = folder(settings)?;
    std::fs::create_dir_all(folder).with_context(|| format!("store.url: cannot make the folder {folder}"))?;
    let store = object_store::local::LocalFileSystem::new_with_prefix(folder)
        .with_context(|| format!("store.url: cannot use the folder {folder}"))?
        .with_automatic_cleanup(false)
        .with_fsync(settings.fsync);
    Ok(Arc::new(Confined::new(store)))
}

/// As [`open`], for a process that stays: it removes what killed writers left there, now and every hour.
///
/// # Errors
/// As for [`open`].
pub fn open_swept(settings: &StoreSettings) -> anyhow::Result<Store> {
    let store = open(settings)?;
    leftovers::sweep_in_background(folder(settings)?.into());
    Ok(store)
}

/// Opens the store that the settings name if it exists, for commands that only read it. Leaves the umask of this
/// process as it is.
///
/// # Errors
/// As for [`open`].
pub fn open_if_there(settings: &StoreSettings) -> anyhow::Result<Option<Store>> {
    match std::path::Path::new(folder(settings)?).exists() {
        true => opened(settings).map(Some),
        false => Ok(None),
    }
}

/// Restricts the umask of this process: its user can write new files, its group can read them, others have no access
/// (0640, folders 0750). A stricter umask is kept.
#[cfg(unix)]
pub fn keep_from_others() {
    use rustix::{fs::Mode, process::umask};
    let strict = Mode::from_raw_mode(0o027);
    let before = umask(strict);
    umask(before | strict);
}

/// Does nothing: this platform has no umask.
#[cfg(not(unix))]
pub fn keep_from_others() {}

/// Returns whether this process runs as the owner of the store's folder. Files that another user creates there may be
/// inaccessible to the workers.
#[cfg(unix)]
pub fn is_own(settings: &StoreSettings) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = folder(settings).ok().and_then(|folder| std::fs::metadata(folder).ok()).map(|found| found.uid());
    owner == Some(rustix::process::geteuid().as_raw())
}

/// Returns true: on this platform files have no owner that matters here.
#[cfg(not(unix))]
pub fn is_own(_settings: &StoreSettings) -> bool {
    true
}

fn folder(settings: &StoreSettings) -> anyhow::Result<&str> {
    let place = settings.url.as_str();
    match place.split_once("://") {
        Some(("file", path)) => Ok(path),
        Some((scheme, _)) => {
            anyhow::bail!("store.url: {scheme}:// is not built in; use a folder that all workers see, or file:///…")
        }
        None => Ok(place),
    }
}

/// A store that fails is waited out: the input stays in its queue until the store is back.
pub fn outage(error: object_store::Error) -> Failure {
    Failure::outage("object store", error)
}

/// Reads a small object whole; `None` when it is not there.
///
/// # Errors
/// [`outage`].
pub async fn read(store: &Store, path: &str) -> Result<Option<bytes::Bytes>, Failure> {
    match store.get(&Path::from(path)).await {
        Ok(found) => found.bytes().await.map(Some).map_err(outage),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(outage(error)),
    }
}

/// Reads a small JSON object; `None` when it is not there.
///
/// # Errors
/// [`outage`], and permanently when the object is not the JSON it should be.
pub async fn read_json<T: serde::de::DeserializeOwned>(store: &Store, path: &str) -> Result<Option<T>, Failure> {
    let Some(bytes) = read(store, path).await? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Failure::permanent("broken_object", format!("{path}: {error}"))),
    }
}

/// Writes an object, replacing what was there. It becomes visible whole or not at all.
///
/// # Errors
/// [`outage`].
pub async fn write(store: &Store, path: &str, body: impl Into<PutPayload>) -> Result<(), Failure> {
    store.put(&Path::from(path), body.into()).await.map(drop).map_err(outage)
}

/// Writes an object unless there is one: the winner of a race gets `true`.
///
/// # Errors
/// [`outage`].
pub async fn create(store: &Store, path: &str, body: impl Into<PutPayload>) -> Result<bool, Failure> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(&Path::from(path), body.into(), options).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(outage(error)),
    }
}

/// SHA-256 of an object's content, 64 hex digits; `None` when it is not there. Reads the whole object: the size alone does
/// not tell whether it is damaged.
///
/// # Errors
/// [`outage`].
pub async fn sha256(store: &Store, path: &str) -> Result<Option<String>, Failure> {
    let found = match store.get(&Path::from(path)).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(outage(error)),
    };
    let mut hasher = Sha256::new();
    let mut pieces = found.into_stream();
    while let Some(piece) = pieces.next().await {
        hasher.update(&piece.map_err(outage)?);
    }
    Ok(Some(hex::encode(hasher.finalize())))
}

/// Removes an object. One that is missing already is not an error.
///
/// # Errors
/// [`outage`].
pub async fn remove(store: &Store, path: &str) -> Result<(), Failure> {
    gone(store.delete(&Path::from(path)).await).map(drop)
}

/// Removes objects as [`remove`] does, several at a time. Returns how many were removed; stores that do not report a missing
/// object count it as well.
///
/// # Errors
/// [`outage`], with the first that fails or cannot be listed.
pub async fn remove_all(store: &Store, paths: BoxStream<'static, object_store::Result<Path>>) -> Result<u64, Failure> {
    let mut removed = store.delete_stream(paths);
    let mut count = 0;
    while let Some(outcome) = removed.next().await {
        count += u64::from(gone(outcome.map(drop))?);
    }
    Ok(count)
}

/// Whether the object existed.
fn gone(outcome: object_store::Result<()>) -> Result<bool, Failure> {
    match outcome {
        Ok(()) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(outage(error)),
    }
}

/// Whether an object is there.
///
/// # Errors
/// [`outage`].
pub async fn exists(store: &Store, path: &str) -> Result<bool, Failure> {
    match store.head(&Path::from(path)).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(outage(error)),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Other accounts on the machine cannot read the rides.
    #[tokio::test]
    async fn what_is_stored_is_not_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("store");
        let settings = StoreSettings { url: place.to_str().unwrap().to_owned(), ..StoreSettings::default() };
        let store = open(&settings).unwrap();
        write(&store, "raw/a/b", "rides").await.unwrap();
        let mode = |path: &str| std::fs::metadata(place.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode("raw"), mode("raw/a"), mode("raw/a/b")], [0o750, 0o750, 0o750, 0o640]);
    }
}
