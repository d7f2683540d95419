//! Versions: artefacts, and the folders that hold them.

use crate::{
    layout,
    store::{self, Folder, Store},
};
use common::{
    model::{Alias, Model},
    outcome::Failure,
};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Maximum number of versions or aliases to read or write at the same time.
pub const AT_ONCE: usize = 16;

/// A version: its model family and its id.
pub type VersionKey = (String, String);

/// Why a version cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The artefact does not exist.
    #[error("there is no version {model_id} of {model}: `wildrydes model list` lists the versions")]
    Missing {
        /// Model family.
        model: String,
        /// The requested version.
        model_id: String,
    },
    /// The artefact cannot be decoded, or is not the expected one.
    #[error("{path} cannot be used: {why}")]
    Broken {
        /// Path of the artefact.
        path: String,
        /// For people.
        why: String,
    },
}

/// A version whose artefact exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Model family.
    pub model: String,
    /// The version.
    pub model_id: String,
    /// SHA-256 of the artefact's bytes.
    pub sha256: String,
}

/// Returns the names of all model families, sorted.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn families(store: &Store) -> Result<Vec<String>, Failure> {
    store::folders(store, layout::MODELS).await
}

/// Returns the ids of a family's versions, sorted: the folders that have an artefact. A refused training and an
/// interrupted removal leave folders without one.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn versions(store: &Store, model: &str) -> Result<Vec<String>, Failure> {
    let ids = store::folders(store, &layout::model_family(model)).await?;
    let complete = stream::iter(ids)
        .map(|id| async move { Ok(store::exists(store, &layout::model(model, &id)).await?.then_some(id)) });
    complete.buffered(AT_ONCE).try_filter_map(async |id| Ok(id)).try_collect().await
}

/// Reads a version with its artefact; the inner error says why it cannot be used.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn version(
    store: &Store,
    model: &str,
    model_id: &str,
) -> Result<Result<(Version, Model), VersionError>, Failure> {
    let path = layout::model(model, model_id);
    Ok(match store::read(store, &path).await? {
        Some(bytes) => decode(&path, &bytes, model, model_id),
        None => Err(missing(model, model_id)),
    })
}

/// Reads the artefact that an alias names; the inner error says why it cannot be used.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn named_model(store: &Store, alias: &Alias) -> Result<Result<Model, VersionError>, Failure> {
    let path = &alias.object;
    if !layout::is_below(layout::MODELS, path) {
        let why = format!("expected a path below {}/", layout::MODELS);
        return Ok(Err(VersionError::Broken { path: path.clone(), why }));
    }
    Ok(match store::read(store, path).await? {
        Some(bytes) => decode_named(&bytes, alias),
        None => Err(missing(&alias.model, &alias.model_id)),
    })
}

/// Decodes an artefact and checks that it is the one that the alias names, to the byte.
///
/// # Errors
/// Fails with [`VersionError::Broken`] if it is not.
pub fn decode_named(artefact: &[u8], alias: &Alias) -> Result<Model, VersionError> {
    let (Version { sha256, .. }, model) = decode(&alias.object, artefact, &alias.model, &alias.model_id)?;
    if sha256 != alias.sha256 {
        let why = format!("its SHA-256 is {sha256}; the alias names {}", alias.sha256);
        return Err(VersionError::Broken { path: alias.object.clone(), why });
    }
    Ok(model)
}

fn missing(model: &str, model_id: &str) -> VersionError {
    VersionError::Missing { model: model.to_owned(), model_id: model_id.to_owned() }
}

fn decode(path: &str, bytes: &[u8], model: &str, model_id: &str) -> Result<(Version, Model), VersionError> {
    let broken = |why: String| VersionError::Broken { path: path.to_owned(), why };
    let artefact: Model = serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
    if (artefact.model.as_str(), artefact.model_id.as_str()) != (model, model_id) {
        return Err(broken(format!("it is {}/{}, not {model}/{model_id}", artefact.model, artefact.model_id)));
    }
    Ok((of(&artefact, bytes), artefact))
}

fn of(Model { model, model_id, .. }: &Model, bytes: &[u8]) -> Version {
    Version { model: model.clone(), model_id: model_id.clone(), sha256: hex::encode(Sha256::digest(bytes)) }
}

/// Writes an artefact unless it exists: an alias records the SHA-256 of its artefact, so the bytes must never change,
/// not even to those that a newer trainer would write. An artefact that cannot be decoded never had an alias, and is
/// replaced.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn write_artefact(store: &Store, model: &Model) -> Result<Version, Failure> {
    let path = layout::model(&model.model, &model.model_id);
    loop {
        if let Ok((version, _)) = version(store, &model.model, &model.model_id).await? {
            return Ok(version);
        }
        let bytes = store::pretty(model)?;
        if store::create(store, &path, bytes.clone()).await? {
            return Ok(of(model, &bytes));
        }
        if version(store, &model.model, &model.model_id).await?.is_err() {
            store::write(store, &path, bytes).await?;
        }
    }
}

/// Lists the folders of all versions of all families, with an artefact or without.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn version_folders(store: &Store) -> Result<BTreeMap<VersionKey, Folder>, Failure> {
    let folders = store::by_folder::<3>(store, layout::MODELS).await?;
    let of_versions = folders.into_iter().filter(|([_, _, id], _)| !layout::is_alias(id));
    Ok(of_versions.map(|([_, model, id], folder)| ((model, id), folder)).collect())
}

/// Removes versions, all artefacts before everything else: a folder without one is not a version.
///
/// # Errors
/// Fails if the store cannot be reached; some objects may be removed.
pub async fn remove_versions(store: &Store, versions: &BTreeMap<VersionKey, Folder>) -> Result<(), Failure> {
    let artefacts = versions.keys().map(|(model, id)| layout::model(model, id));
    store::remove_each(store, artefacts).await?;
    store::remove_each(store, versions.values().flat_map(|folder| folder.objects.iter().cloned())).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{
        message::ModelRejected,
        model::{AliasName, Model},
    };
    use jiff::Timestamp;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    fn model(model_id: &str) -> Model {
        let example = include_str!("../../../../schemas/examples/model.v1.ok-minimal.json");
        Model { model: "m".to_owned(), model_id: model_id.to_owned(), ..serde_json::from_str(example).unwrap() }
    }

    fn why<T>(read: Result<T, VersionError>) -> String {
        read.map(drop).unwrap_err().to_string()
    }

    /// An artefact is written once; only one that cannot be decoded is replaced.
    #[tokio::test]
    async fn an_artefact_never_changes() {
        let store: Store = Arc::new(InMemory::new());
        let path = layout::model("m", "a");
        store::write(&store, &path, "{").await.unwrap();
        assert!(why(version(&store, "m", "a").await.unwrap()).starts_with("models/m/a/model.json cannot be used: EOF"));
        let written = write_artefact(&store, &model("a")).await.unwrap();
        let bytes = store::read(&store, &path).await.unwrap();
        let other = Model { trainer: "other".to_owned(), ..model("a") };
        assert_eq!(write_artefact(&store, &other).await.unwrap(), written);
        assert_eq!(store::read(&store, &path).await.unwrap(), bytes);
        assert_eq!(store::sha256(&store, &path).await.unwrap(), Some(written.sha256.clone()));
        assert_eq!(version(&store, "m", "a").await.unwrap().unwrap(), (written, model("a")));
        store::write(&store, &layout::model("m", "b"), store::pretty(&model("a")).unwrap()).await.unwrap();
        assert_eq!(
            why(version(&store, "m", "b").await.unwrap()),
            "models/m/b/model.json cannot be used: it is m/a, not m/b"
        );
        assert!(why(version(&store, "m", "c").await.unwrap()).starts_with("there is no version c of m"));
    }

    /// An alias names one artefact, to the byte, below the folder of models.
    #[tokio::test]
    async fn only_the_artefact_that_an_alias_names_is_read_for_it() {
        let store: Store = Arc::new(InMemory::new());
        let version = write_artefact(&store, &model("a")).await.unwrap();
        let change = crate::registry::Change { by: "me", at: Timestamp::UNIX_EPOCH, why: "" };
        let alias = crate::registry::set_alias(&store, AliasName::Champion, &version, change).await.unwrap();
        assert_eq!(named_model(&store, &alias).await.unwrap(), Ok(model("a")));
        let bytes = store::read(&store, &alias.object).await.unwrap().unwrap();
        assert_eq!(decode_named(&bytes, &alias), Ok(model("a")));
        for (broken, expected) in [
            (Alias { sha256: String::new(), ..alias.clone() }, "its SHA-256 is"),
            (Alias { model_id: "b".to_owned(), ..alias.clone() }, "it is m/a, not m/b"),
            (Alias { object: "raw/model.json".to_owned(), ..alias.clone() }, "expected a path below models/"),
            (Alias { object: "models/m/b/model.json".to_owned(), ..alias.clone() }, "there is no version a of m"),
        ] {
            let why = why(named_model(&store, &broken).await.unwrap());
            assert!(why.contains(expected), "{why}");
        }
        store::write(&store, &alias.object, [&bytes[..], b" "].concat()).await.unwrap();
        assert!(why(named_model(&store, &alias).await.unwrap()).contains("its SHA-256 is"), "one more blank");
    }

    /// A folder without an artefact, which a refused training leaves, is no version, but it can be removed.
    #[tokio::test]
    async fn versions_are_the_folders_with_an_artefact() {
        let store: Store = Arc::new(InMemory::new());
        for model_id in ["a", "c"] {
            let version = write_artefact(&store, &model(model_id)).await.unwrap();
            let change = crate::registry::Change { by: "me", at: Timestamp::UNIX_EPOCH, why: "" };
            crate::registry::set_alias(&store, AliasName::Challenger, &version, change).await.unwrap();
        }
        let example = include_str!("../../../../schemas/examples/model-rejected.v1.ok.json");
        let refused: ModelRejected = serde_json::from_str(example).unwrap();
        crate::registry::write(&store, "m", "b", &refused).await.unwrap();
        assert_eq!(crate::registry::read(&store, "m", "b").await.unwrap(), Some(refused));
        assert_eq!(
            (families(&store).await.unwrap(), versions(&store, "m").await.unwrap()),
            (vec!["m".to_owned()], vec!["a".to_owned(), "c".to_owned()])
        );
        let mut folders = version_folders(&store).await.unwrap();
        let key = |model_id: &str| ("m".to_owned(), model_id.to_owned());
        assert!(folders.keys().eq(&[key("a"), key("b"), key("c")]));
        folders.remove(&key("c"));
        remove_versions(&store, &folders).await.unwrap();
        let left: Vec<String> =
            version_folders(&store).await.unwrap().into_keys().map(|(_, model_id)| model_id).collect();
        assert_eq!(left, ["c"]);
    }
}
