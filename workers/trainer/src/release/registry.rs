//! The registry: versions of a model, which never change, and their aliases `champion` and `challenger`, which do.
//!
//! ```text
//! models/<model>/champion/0000000001.json   the first champion; never changes
//! models/<model>/champion/0000000002.json   the second, …
//! models/<model>/champion.json              a copy of the newest generation, which scorers read
//! ```
//!
//! Each generation lists the [`HISTORY_MAX`] before it; the bound keeps the object that scorers read every second small.
//!
//! Not every object store can replace an object conditionally, but all can create one on condition that it does not exist. So each
//! generation is an object of its own: of several writers at once, one creates the next generation and the others start again. Then the
//! writer overwrites the copy and looks for a newer generation once more, so that the slower of two writers repairs its own stale write.
//! A trainer that dies in between leaves its message unacknowledged, and the next delivery repeats the work. A late write, by a trainer
//! that was given up, can set the copy back at any time: readers follow the generations beyond the copy ([`alias`]), and each trainer
//! repairs the copy at its start and every hour.

use common::{
    model::{Alias, AliasName, HISTORY_MAX, Model, Past},
    outcome::Failure,
    schema::Described,
};
use records::store::unreadable_as_missing;
use records::{
    alias, layout,
    store::{self, Store},
};
use runtime::host;
use sha2::{Digest, Sha256};

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
    /// The artefact cannot be decoded, or belongs to another version.
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
    let Some(bytes) = store::read(store, &path).await? else {
        return Ok(Err(VersionError::Missing { model: model.to_owned(), model_id: model_id.to_owned() }));
    };
    let broken = |why: String| Ok(Err(VersionError::Broken { path: path.clone(), why }));
    let artefact: Model = match serde_json::from_slice(&bytes) {
        Ok(artefact) => artefact,
        Err(error) => return broken(error.to_string()),
    };
    if (artefact.model.as_str(), artefact.model_id.as_str()) != (model, model_id) {
        return broken(format!("it is {}/{}", artefact.model, artefact.model_id));
    }
    let sha256 = hex::encode(Sha256::digest(&bytes));
    Ok(Ok((Version { model: model.to_owned(), model_id: model_id.to_owned(), sha256 }, artefact)))
}

/// Reads an alias as [`alias::current`] does, but treats one that cannot be decoded as missing, with a warning: the next write replaces
/// it.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn current(store: &Store, model: &str, alias: AliasName) -> Result<Option<Alias>, Failure> {
    unreadable_as_missing(alias::current(store, model, alias).await)
}

/// Points the alias to `version` if it is still `current`, which [`current`] returned; `None` if another writer changed it meanwhile.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn set_alias_after(
    store: &Store,
    alias: AliasName,
    current: Option<Alias>,
    version: &Version,
    by: &str,
    why: &str,
) -> Result<Option<Alias>, Failure> {
    let mut next = successor(alias, current, version, by, why);
    loop {
        let path = layout::alias_generation(&next.model, alias, next.generation);
        if store::create(store, &path, encode(&next)?).await? {
            return publish(store, next).await.map(Some);
        }
        match store::read_json::<Alias>(store, &path).await {
            // A loss of power left this generation torn before anybody read it: its number stays taken.
            Err(Failure::Permanent { .. }) => next.generation = next.generation.saturating_add(1),
            read => return read.map(|_| None),
        }
    }
}

/// Points the alias to `version`, whatever it points to now.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn set_alias(
    store: &Store,
    alias: AliasName,
    version: &Version,
    by: &str,
    why: &str,
) -> Result<Alias, Failure> {
    loop {
        let current = current(store, &version.model, alias).await?;
        if let Some(current) = &current
            && current.model_id == version.model_id
        {
            return publish(store, current.clone()).await;
        }
        if let Some(alias) = set_alias_after(store, alias, current, version, by, why).await? {
            return Ok(alias);
        }
    }
}

fn successor(name: AliasName, current: Option<Alias>, version: &Version, by: &str, why: &str) -> Alias {
    let (mut history, mut generation) = (Vec::new(), 1);
    if let Some(Alias { model_id, sha256, by, at, why, history: before, generation: last, .. }) = current {
        (history, generation) = (before, last.saturating_add(1));
        history.push(Past { model_id, sha256, by, at, why });
        history.drain(..history.len().saturating_sub(HISTORY_MAX));
    }
    Alias {
        schema: Alias::SCHEMA.name.to_owned(),
        alias: name,
        model: version.model.clone(),
        model_id: version.model_id.clone(),
        object: layout::model(&version.model, &version.model_id),
        sha256: version.sha256.clone(),
        by: by.to_owned(),
        at: host::now().to_string(),
        why: why.to_owned(),
        generation,
        history,
    }
}

/// Writes the copy of this generation, or of a newer one if there is one; returns the generation written.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn publish(store: &Store, mut alias: Alias) -> Result<Alias, Failure> {
    let path = layout::alias(&alias.model, alias.alias);
    loop {
        let body = encode(&alias)?;
        if store::read(store, &path).await?.as_deref() != Some(body.as_slice()) {
            store::write(store, &path, body).await?;
        }
        let newest = alias::newest(store, &alias.model.clone(), alias.alias, Some(alias.clone())).await?;
        match newest.filter(|newest| *newest != alias) {
            Some(newest) => alias = newest,
            None => return Ok(alias),
        }
    }
}

fn encode(alias: &Alias) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec_pretty(alias).map_err(|error| Failure::permanent("unencodable", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{ObjectStoreExt, memory::InMemory};
    use std::sync::Arc;

    fn version(model_id: &str) -> Version {
        Version { model: "m".to_owned(), model_id: model_id.to_owned(), sha256: "0".repeat(64) }
    }

    #[tokio::test]
    async fn the_slower_of_two_writers_repairs_its_stale_write() {
        let store: Store = Arc::new(InMemory::new());
        let champion = AliasName::Champion;
        let first = set_alias_after(&store, champion, None, &version("a"), "me", "first").await.unwrap().unwrap();
        let second = set_alias_after(&store, champion, Some(first.clone()), &version("b"), "you", "better")
            .await
            .unwrap()
            .unwrap();
        assert_eq!((second.history.len(), second.history[0].model_id.as_str()), (1, "a"));
        assert_eq!((second.history[0].by.as_str(), second.history[0].why.as_str()), ("me", "first"));
        // The first writer comes last. Even if it dies before it looks again, the next reader finds the second generation.
        assert_eq!(publish(&store, first.clone()).await.unwrap(), second);
        let alias: Alias = store::read_json(&store, &layout::champion("m")).await.unwrap().unwrap();
        assert_eq!(alias, second);
        store::write(&store, &layout::champion("m"), encode(&first).unwrap()).await.unwrap();
        assert_eq!(current(&store, "m", champion).await.unwrap(), Some(second));
    }

    /// Of two writers at once, one changes the alias and the other has to start again; the other alias does not change.
    #[tokio::test]
    async fn an_alias_changes_only_if_nobody_else_changed_it() {
        let store: Store = Arc::new(InMemory::new());
        let challenger = AliasName::Challenger;
        assert!(set_alias_after(&store, challenger, None, &version("a"), "me", "").await.unwrap().is_some());
        assert_eq!(set_alias_after(&store, challenger, None, &version("b"), "you", "").await.unwrap(), None);
        let named = set_alias(&store, challenger, &version("b"), "you", "").await.unwrap();
        assert_eq!((named.model_id.as_str(), named.generation), ("b", 2));
        assert_eq!(set_alias(&store, challenger, &version("b"), "me", "").await.unwrap().generation, 2);
        assert_eq!(current(&store, "m", AliasName::Champion).await.unwrap(), None);
    }

    /// However often an alias changes, its history stays bounded; older entries are in the objects of older generations.
    #[tokio::test]
    async fn an_alias_remembers_a_bounded_history() {
        let store: Store = Arc::new(InMemory::new());
        let champion = AliasName::Champion;
        let changes = HISTORY_MAX as u64 + 20;
        for change in 1..=changes {
            set_alias(&store, champion, &version(&change.to_string()), "me", "").await.unwrap();
        }
        let alias = current(&store, "m", champion).await.unwrap().unwrap();
        assert_eq!((alias.generation, alias.history.len()), (changes, HISTORY_MAX));
        let remembered: Vec<_> = alias.history.iter().map(|past| past.model_id.parse::<u64>().unwrap()).collect();
        assert!(remembered.into_iter().eq(20..changes));
        assert!(alias.named("20") && !alias.named("19"));
        let first: Alias =
            store::read_json(&store, &layout::alias_generation("m", champion, 1)).await.unwrap().unwrap();
        assert_eq!((first.model_id.as_str(), first.generation), ("1", 1));
    }

    /// A torn generation keeps its number, and readers and writers skip it.
    #[tokio::test]
    async fn a_torn_generation_is_skipped() {
        let store: Store = Arc::new(InMemory::new());
        let champion = AliasName::Champion;
        for (broken, id, generation) in [(1, "a", 2), (3, "b", 4)] {
            store::write(&store, &layout::alias_generation("m", champion, broken), "").await.unwrap();
            let named = set_alias(&store, champion, &version(id), "me", "").await.unwrap();
            assert_eq!((named.model_id.as_str(), named.generation), (id, generation));
            assert_eq!(current(&store, "m", champion).await.unwrap(), Some(named.clone()));
            store.delete(&object_store::path::Path::from(layout::champion("m"))).await.unwrap();
            assert_eq!(current(&store, "m", champion).await.unwrap(), Some(named), "without the alias");
        }
    }
}
