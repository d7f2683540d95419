//! Aliases: which version is the champion, and which the challenger.
//!
//! An alias is a series of numbered *generations* and a *copy* of the newest one, which scorers read every second. A
//! generation lists at most [`HISTORY_MAX`] previous versions, so that the copy stays small.
//!
//! Not every object store can replace an object conditionally, but all can create one on condition that it does not
//! exist. So each generation is an object of its own: of several concurrent writers, one creates the next generation
//! and the others start again. The winner overwrites the copy and then looks for a newer generation, so that the slower
//! of two writers repairs its own stale write. If a trainer dies in between, its message stays unacknowledged, and the
//! next delivery repeats the work.
//!
//! At any time, a late write by a trainer that lost its message to another can set the copy back to an older
//! generation. Therefore readers start at the generation in the copy and follow later ones to the last, and each
//! trainer repairs the copy at its start and every hour.

use super::version::Version;
use crate::{
    layout,
    store::{self, Store, unreadable_as_missing},
};
use common::{
    model::{Alias, AliasName, HISTORY_MAX, Past},
    outcome::Failure,
    schema::Described,
};
use jiff::Timestamp;

/// Who changes an alias, when, and why.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// A worker and its version, or a person.
    pub by: &'a str,
    /// The time of the change.
    pub at: Timestamp,
    /// The reason, in words.
    pub why: &'a str,
}

/// Returns the highest generation of the alias `name` of the family `model`, even if the copy is out of date; `None` if
/// the alias does not exist.
///
/// # Errors
/// Fails with an outage if the store cannot be reached; permanently (`broken_object`) if neither the copy nor any
/// generation can be decoded.
pub async fn read_alias(store: &Store, model: &str, name: AliasName) -> Result<Option<Alias>, Failure> {
    match store::read_json(store, &layout::alias(model, name)).await {
        Err(broken @ Failure::Permanent { .. }) => match newest(store, model, name, None).await? {
            None => Err(broken),
            newest => Ok(newest),
        },
        known => newest(store, model, name, known?).await,
    }
}

/// Like [`read_alias`], but treats an alias that cannot be decoded as missing, with a warning: the next write replaces
/// it.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn current_alias(store: &Store, model: &str, name: AliasName) -> Result<Option<Alias>, Failure> {
    unreadable_as_missing(read_alias(store, model, name).await)
}

/// Like [`read_alias`], but returns `None` without reading generations if the copy is missing. Scorers use it: they often
/// ask for a breed that has no model, and one read then suffices.
///
/// # Errors
/// Fails with an outage if the store cannot be reached; permanently (`broken_object`) if the copy cannot be decoded.
pub async fn served_alias(store: &Store, model: &str, name: AliasName) -> Result<Option<Alias>, Failure> {
    let Some(known) = store::read_json::<Alias>(store, &layout::alias(model, name)).await? else { return Ok(None) };
    newest(store, model, name, Some(known)).await
}

/// Returns the highest generation from `known` on; `known` itself if none follows it. Skips a generation that cannot be
/// decoded, with a warning; its number stays taken.
async fn newest(
    store: &Store,
    model: &str,
    name: AliasName,
    mut known: Option<Alias>,
) -> Result<Option<Alias>, Failure> {
    let mut next = known.as_ref().map_or(0, |alias: &Alias| alias.generation) + 1;
    loop {
        match store::read_json(store, &layout::alias_generation(model, name, next)).await {
            Ok(None) => return Ok(known),
            Err(Failure::Permanent { why, .. }) => tracing::warn!(%why, "a generation of an alias cannot be read"),
            read => known = read?,
        }
        next += 1;
    }
}

/// Points the alias to `version` if no other writer has changed it since [`current_alias`] returned the value that the caller
/// passes as `current`; otherwise returns `None`.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn set_alias_after(
    store: &Store,
    name: AliasName,
    current: Option<Alias>,
    version: &Version,
    change: Change<'_>,
) -> Result<Option<Alias>, Failure> {
    let mut next = successor(name, current, version, change);
    loop {
        let path = layout::alias_generation(&next.model, name, next.generation);
        if store::create(store, &path, store::indented(&next)?).await? {
            return publish_alias(store, next).await.map(Some);
        }
        match store::read_json::<Alias>(store, &path).await {
            // A power failure tore this write before anybody read the generation: its number stays taken.
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
    name: AliasName,
    version: &Version,
    change: Change<'_>,
) -> Result<Alias, Failure> {
    loop {
        let current = current_alias(store, &version.model, name).await?;
        if let Some(current) = &current
            && current.model_id == version.model_id
        {
            return publish_alias(store, current.clone()).await;
        }
        if let Some(alias) = set_alias_after(store, name, current, version, change).await? {
            return Ok(alias);
        }
    }
}

fn successor(name: AliasName, current: Option<Alias>, version: &Version, change: Change<'_>) -> Alias {
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
        by: change.by.to_owned(),
        at: change.at.to_string(),
        why: change.why.to_owned(),
        generation,
        history,
    }
}

/// Overwrites the copy with this generation, or with a newer one if there is one; returns the generation written.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn publish_alias(store: &Store, mut alias: Alias) -> Result<Alias, Failure> {
    let path = layout::alias(&alias.model, alias.alias);
    loop {
        let body = store::indented(&alias)?;
        if store::read(store, &path).await?.as_deref() != Some(body.as_slice()) {
            store::write(store, &path, body).await?;
        }
        let newest = newest(store, &alias.model.clone(), alias.alias, Some(alias.clone())).await?;
        match newest.filter(|newest| *newest != alias) {
            Some(newest) => alias = newest,
            None => return Ok(alias),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    fn change<'a>(by: &'a str, why: &'a str) -> Change<'a> {
        Change { by, at: Timestamp::UNIX_EPOCH, why }
    }

    fn version(model_id: &str) -> Version {
        Version { model: "m".to_owned(), model_id: model_id.to_owned(), sha256: "0".repeat(64) }
    }

    #[tokio::test]
    async fn the_slower_of_two_writers_repairs_its_stale_write() {
        let store: Store = Arc::new(InMemory::new());
        let champion = AliasName::Champion;
        let first =
            set_alias_after(&store, champion, None, &version("a"), change("me", "first")).await.unwrap().unwrap();
        let second = set_alias_after(&store, champion, Some(first.clone()), &version("b"), change("you", "better"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((second.history.len(), second.history[0].model_id.as_str()), (1, "a"));
        assert_eq!((second.history[0].by.as_str(), second.history[0].why.as_str()), ("me", "first"));
        // The first writer comes last. Even if it dies before it looks again, the next reader finds the second generation.
        assert_eq!(publish_alias(&store, first.clone()).await.unwrap(), second);
        let alias: Alias = store::read_json(&store, &layout::champion("m")).await.unwrap().unwrap();
        assert_eq!(alias, second);
        store::write_json(&store, &layout::champion("m"), &first).await.unwrap();
        assert_eq!(current_alias(&store, "m", champion).await.unwrap(), Some(second));
    }

    /// Of two writers at once, one changes the alias and the other has to start again; the other alias does not change.
    #[tokio::test]
    async fn an_alias_changes_only_if_nobody_else_changed_it() {
        let store: Store = Arc::new(InMemory::new());
        let challenger = AliasName::Challenger;
        assert!(set_alias_after(&store, challenger, None, &version("a"), change("me", "")).await.unwrap().is_some());
        assert_eq!(set_alias_after(&store, challenger, None, &version("b"), change("you", "")).await.unwrap(), None);
        let named = set_alias(&store, challenger, &version("b"), change("you", "")).await.unwrap();
        assert_eq!((named.model_id.as_str(), named.generation), ("b", 2));
        assert_eq!(set_alias(&store, challenger, &version("b"), change("me", "")).await.unwrap().generation, 2);
        assert_eq!(current_alias(&store, "m", AliasName::Champion).await.unwrap(), None);
    }

    /// However often an alias changes, its history stays bounded; older entries are in the objects of older generations.
    #[tokio::test]
    async fn an_alias_remembers_a_bounded_history() {
        let store: Store = Arc::new(InMemory::new());
        let champion = AliasName::Champion;
        let changes = HISTORY_MAX as u64 + 20;
        for number in 1..=changes {
            set_alias(&store, champion, &version(&number.to_string()), change("me", "")).await.unwrap();
        }
        let alias = current_alias(&store, "m", champion).await.unwrap().unwrap();
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
            let named = set_alias(&store, champion, &version(id), change("me", "")).await.unwrap();
            assert_eq!((named.model_id.as_str(), named.generation), (id, generation));
            assert_eq!(current_alias(&store, "m", champion).await.unwrap(), Some(named.clone()));
            store::remove(&store, &layout::champion("m")).await.unwrap();
            assert_eq!(current_alias(&store, "m", champion).await.unwrap(), Some(named), "without the copy");
        }
    }
}
