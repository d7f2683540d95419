//! The datasets of the store and their manifests.

use crate::{
    layout,
    store::{self, Store},
};
use common::{dataset::Manifest, message::DatasetReady, outcome::Failure, schema::Described};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, num::NonZeroU32};

/// Why a dataset cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatasetError {
    /// The object store cannot be used, or this process is shutting down.
    #[error(transparent)]
    Unavailable(#[from] Failure),
    /// A manifest or a file has content that is not that of a dataset.
    #[error("{path}: {why}")]
    Broken {
        /// Path of the manifest or file.
        path: String,
        /// The fault.
        why: String,
    },
    /// A file differs from its manifest.
    #[error("{path}: {why}")]
    Changed {
        /// Path of the file.
        path: String,
        /// The difference.
        why: String,
    },
}

/// A damaged dataset is a permanent failure (`broken_object`), as other damaged objects are.
impl From<DatasetError> for Failure {
    fn from(error: DatasetError) -> Self {
        match error {
            DatasetError::Unavailable(failure) => failure,
            damaged => Self::permanent("broken_object", damaged),
        }
    }
}

/// Lists the datasets: the newest complete revision of each, by batch id. A revision without a manifest is unfinished. Lists
/// the objects of all datasets once and reads none.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn list(store: &Store) -> Result<BTreeMap<String, NonZeroU32>, Failure> {
    newest_below(store, layout::DATASET).await
}

/// Returns the newest complete revision of a batch's dataset; `None` if there is none.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn newest_revision(store: &Store, batch_id: &str) -> Result<Option<NonZeroU32>, Failure> {
    Ok(newest_below(store, &layout::dataset(batch_id)).await?.remove(batch_id))
}

async fn newest_below(store: &Store, folder: &str) -> Result<BTreeMap<String, NonZeroU32>, Failure> {
    let mut newest: BTreeMap<String, NonZeroU32> = BTreeMap::new();
    let mut objects = store::list(store, folder);
    while let Some(object) = objects.try_next().await? {
        let Some((batch_id, revision)) = layout::manifest_parts(&object.path) else { continue };
        match newest.get_mut(batch_id) {
            Some(known) => *known = revision.max(*known),
            None => drop(newest.insert(batch_id.to_owned(), revision)),
        }
    }
    Ok(newest)
}

/// Reads the manifest of the newest complete revision of a batch's dataset; `None` if there is none.
///
/// # Errors
/// As for [`revision`].
pub async fn manifest(store: &Store, batch_id: &str) -> Result<Option<StoredManifest>, DatasetError> {
    match newest_revision(store, batch_id).await? {
        Some(newest) => revision(store, batch_id, newest).await,
        None => Ok(None),
    }
}

/// Reads the manifest of a revision of a batch's dataset; `None` if the revision does not exist or is incomplete.
///
/// # Errors
/// Fails with an outage if the store cannot be used; with [`DatasetError::Broken`] as [`StoredManifest::decode`] does.
pub async fn revision(
    store: &Store,
    batch_id: &str,
    revision: NonZeroU32,
) -> Result<Option<StoredManifest>, DatasetError> {
    let bytes = store::read(store, &layout::manifest(batch_id, revision)).await?;
    bytes.map(|bytes| StoredManifest::decode(batch_id, revision, &bytes)).transpose()
}

/// Creates a manifest, which completes its revision. Does nothing if the store has the same one.
///
/// # Errors
/// Fails with an outage if the store cannot be used; permanently (`dataset_differs`) if it has another manifest of the
/// revision.
pub async fn create_manifest(store: &Store, manifest: &Manifest) -> Result<(), Failure> {
    let (path, bytes) = (layout::manifest(&manifest.batch_id, manifest.revision()), store::pretty(manifest)?);
    if !store::create(store, &path, bytes.clone()).await? {
        let stored = store::read(store, &path).await?;
        if stored.is_some_and(|stored| stored != bytes) {
            let why = format!("{path} exists already and describes another dataset; it is not replaced");
            return Err(Failure::permanent("dataset_differs", why));
        }
    }
    Ok(())
}

/// A manifest and the hash that identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// The manifest. All its files are below the folder of its dataset.
    pub manifest: Manifest,
    /// SHA-256 of the stored bytes, 64 hex digits.
    pub sha256: String,
}

impl StoredManifest {
    /// Decodes the manifest of a batch's revision and checks it.
    ///
    /// # Errors
    /// Fails if the bytes are no manifest, have another schema, belong to another batch or revision, or name a file elsewhere.
    pub fn decode(batch_id: &str, revision: NonZeroU32, bytes: &[u8]) -> Result<Self, DatasetError> {
        let broken = |why: String| DatasetError::Broken { path: layout::manifest(batch_id, revision), why };
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
        if manifest.schema != Manifest::SCHEMA.name {
            return Err(broken(format!("its schema is {}, expected {}", manifest.schema, Manifest::SCHEMA.name)));
        }
        if manifest.batch_id != batch_id {
            return Err(broken(format!("it is the manifest of {}", manifest.batch_id)));
        }
        if manifest.revision() != revision {
            return Err(broken(format!("it is the manifest of revision {}", manifest.revision())));
        }
        let folder = layout::dataset_revision(batch_id, revision);
        if let Some(file) = manifest.files.iter().find(|file| !layout::is_below(&folder, &file.path)) {
            return Err(broken(format!("it names {:?}, which is not below {folder}/", file.path)));
        }
        Ok(Self { manifest, sha256: hex::encode(Sha256::digest(bytes)) })
    }

    /// Returns the announcement of the dataset.
    pub fn announcement(&self) -> DatasetReady {
        let Manifest { batch_id, accepted, .. } = &self.manifest;
        DatasetReady {
            batch_id: batch_id.clone(),
            manifest: layout::manifest(batch_id, self.manifest.revision()),
            manifest_sha256: self.sha256.clone(),
            rides: *accepted,
            revision: self.manifest.revision,
        }
    }
}
