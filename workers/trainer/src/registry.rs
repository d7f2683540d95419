//! Versions of a model never change; names for them do: which one is the champion, which the challenger.
//!
//! ```text
//! models/<model>/champion/0000000001.json   the first champion, for ever
//! models/<model>/champion/0000000002.json   the second, …
//! models/<model>/champion.json              a copy of the highest: the alias scorers read
//! ```
//!
//! Each tells of the [`HISTORY_MAX`] before it, so that what scorers read every second stays small.
//!
//! Not every object store can replace an object on condition that nobody else has, but all can create one on condition
//! that there is none. So each generation is an object of its own: of several who change a name at once one creates it,
//! the others look again. The alias is overwritten afterwards; whoever writes it looks for a higher generation once
//! more, so that the slower of two writers repairs what it has put back. A trainer that dies in between leaves its
//! message unacknowledged, and the next delivery does it again. A late write, of a trainer that was given up, can set
//! the alias back at any time: so readers follow the generations beyond the alias ([`alias`]), and each trainer repairs
//! the alias at its start and every hour.

use common::{
    model::{ALIAS_SCHEMA, Alias, AliasName, HISTORY_MAX, Model, Past},
    outcome::Failure,
};
use records::{
    alias, layout,
    store::{self, Store},
};
use runtime::host;
use sha2::{Digest, Sha256};

/// Why a version cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoVersion {
    /// There is no such artefact.
    #[error("there is no version {model_id} of {model}: `wildrydes model list` shows those there are")]
    Missing {
        /// Model family.
        model: String,
        /// As asked for.
        model_id: String,
    },
    /// The artefact is not what its path says.
    #[error("{path} cannot be used: {why}")]
    Broken {
        /// Path of the artefact.
        path: String,
        /// In words.
        why: String,
    },
}

/// A version whose artefact is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Model family.
    pub model: String,
    /// The version.
    pub model_id: String,
    /// SHA-256 of the artefact's bytes.
    pub sha256: String,
}

/// Reads a version with its artefact.
///
/// # Errors
/// When the store is away; within, when there is no such version or its artefact is broken.
pub async fn version(
    store: &Store,
    model: &str,
    model_id: &str,
) -> Result<Result<(Version, Model), NoVersion>, Failure> {
    let path = layout::model(model, model_id);
    let Some(bytes) = store::read(store, &path).await? else {
        return Ok(Err(NoVersion::Missing { model: model.to_owned(), model_id: model_id.to_owned() }));
    };
    let broken = |why: String| Ok(Err(NoVersion::Broken { path: path.clone(), why }));
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

/// As [`alias::current`], but an alias that cannot be decoded counts as missing, with a warning; it will be
/// overwritten.
///
/// # Errors
/// When the store is away.
pub async fn current(store: &Store, model: &str, alias: AliasName) -> Result<Option<Alias>, Failure> {
    readable(alias::current(store, model, alias).await)
}

/// Gives `version` the name after `current`, which is what [`current`] said; `None` when somebody else gave it meanwhile:
/// then look again.
///
/// # Errors
/// When the store is away.
pub async fn succeed(
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
            // What a loss of power left of one that nobody has seen: its place stays taken.
            Err(Failure::Permanent { .. }) => next.generation = next.generation.saturating_add(1),
            read => return read.map(|_| None),
        }
    }
}

/// Gives `version` the name, whoever has it now.
///
/// # Errors
/// When the store is away.
pub async fn name(store: &Store, alias: AliasName, version: &Version, by: &str, why: &str) -> Result<Alias, Failure> {
    loop {
        let current = current(store, &version.model, alias).await?;
        if let Some(current) = &current
            && current.model_id == version.model_id
        {
            return publish(store, current.clone()).await;
        }
        if let Some(named) = succeed(store, alias, current, version, by, why).await? {
            return Ok(named);
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
        schema: ALIAS_SCHEMA.to_owned(),
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

/// Has the alias say so, unless there is a higher generation: then that one.
///
/// # Errors
/// When the store is away.
pub async fn publish(store: &Store, mut alias: Alias) -> Result<Alias, Failure> {
    let path = layout::alias(&alias.model, alias.alias);
    loop {
        let body = encode(&alias)?;
        if store::read(store, &path).await?.as_deref() != Some(body.as_slice()) {
            store::write(store, &path, body).await?;
        }
        let found = alias::newest(store, &alias.model.clone(), alias.alias, Some(alias.clone())).await?;
        match found.filter(|found| *found != alias) {
            Some(found) => alias = found,
            None => return Ok(alias),
        }
    }
}

/// Takes an object that is not the JSON it should be for one that is not there.
pub(crate) fn readable<T>(read: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Err(Failure::Permanent { why, .. }) => {
            tracing::warn!(%why, "an object cannot be read; it will be replaced");
            Ok(None)
        }
        other => other,
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
    async fn the_slower_of_two_writers_repairs_what_it_puts_back() {
        let store: Store = Arc::new(InMemory::new());
        let champion = AliasName::Champion;
        let first = succeed(&store, champion, None, &version("a"), "me", "first").await.unwrap().unwrap();
        let second =
            succeed(&store, champion, Some(first.clone()), &version("b"), "you", "better").await.unwrap().unwrap();
        assert_eq!((second.history.len(), second.history[0].model_id.as_str()), (1, "a"));
        assert_eq!((second.history[0].by.as_str(), second.history[0].why.as_str()), ("me", "first"));
        // The first one's writer comes last; also when it dies before it looks again, the next reader finds the second.
        assert_eq!(publish(&store, first.clone()).await.unwrap(), second);
        let alias: Alias = store::read_json(&store, &layout::champion("m")).await.unwrap().unwrap();
        assert_eq!(alias, second);
        store::write(&store, &layout::champion("m"), encode(&first).unwrap()).await.unwrap();
        assert_eq!(current(&store, "m", champion).await.unwrap(), Some(second));
    }

    /// Of two who change a name at once, one does and the other is told to look again; the other name is untouched.
    #[tokio::test]
    async fn a_name_changes_on_condition_that_nobody_else_changed_it() {
        let store: Store = Arc::new(InMemory::new());
        let challenger = AliasName::Challenger;
        assert!(succeed(&store, challenger, None, &version("a"), "me", "").await.unwrap().is_some());
        assert_eq!(succeed(&store, challenger, None, &version("b"), "you", "").await.unwrap(), None);
        let named = name(&store, challenger, &version("b"), "you", "").await.unwrap();
        assert_eq!((named.model_id.as_str(), named.generation), ("b", 2));
        assert_eq!(name(&store, challenger, &version("b"), "me", "").await.unwrap().generation, 2);
        assert_eq!(current(&store, "m", AliasName::Champion).await.unwrap(), None);
    }

    /// However often a name moves, its alias stays small, and what it has forgotten is in the objects of before.
    #[tokio::test]
    async fn an_alias_remembers_a_bounded_history() {
        let store: Store = Arc::new(InMemory::new());
        let champion = AliasName::Champion;
        let changes = HISTORY_MAX as u64 + 20;
        for change in 1..=changes {
            name(&store, champion, &version(&change.to_string()), "me", "").await.unwrap();
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

    /// What a loss of power left of a generation nobody has seen keeps its place, and nobody stumbles over it.
    #[tokio::test]
    async fn a_generation_that_cannot_be_read_is_passed_over() {
        let store: Store = Arc::new(InMemory::new());
        let champion = AliasName::Champion;
        for (broken, id, generation) in [(1, "a", 2), (3, "b", 4)] {
            store::write(&store, &layout::alias_generation("m", champion, broken), "").await.unwrap();
            let named = name(&store, champion, &version(id), "me", "").await.unwrap();
            assert_eq!((named.model_id.as_str(), named.generation), (id, generation));
            assert_eq!(current(&store, "m", champion).await.unwrap(), Some(named.clone()));
            store.delete(&object_store::path::Path::from(layout::champion("m"))).await.unwrap();
            assert_eq!(current(&store, "m", champion).await.unwrap(), Some(named), "without the alias");
        }
    }
}
