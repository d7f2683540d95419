//! The staging area: how far a batch is joined, for people, and its removal for a replay.

use super::{Store, store};
use crate::layout;
use common::{
    dataset::Claim,
    message::{BatchSplit, attempt_of_split},
    outcome::Failure,
};
use futures::TryStreamExt;
use std::{collections::BTreeMap, num::NonZeroU32};

/// Number of staged rides of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Staged {
    /// Number of rides in staged chunks; the last chunk counts as a full one.
    pub rides: u64,
    /// Number of accepted rides, once the splitter has counted them.
    pub total: Option<u64>,
}

/// Returns the progress of the splitting with the most staged chunks. Other splittings were abandoned, or have the same
/// chunks.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn look(store: &Store, claim: &Claim) -> Result<Staged, Failure> {
    let mut splittings: BTreeMap<String, (u64, Option<String>)> = BTreeMap::new();
    let mut objects = store::list(store, &layout::staging(&claim.batch_id));
    while let Some(object) = objects.try_next().await? {
        let Some((folder, name)) = object.path.rsplit_once('/') else { continue };
        let (chunks, split) = splittings.entry(folder.to_owned()).or_default();
        match name {
            "split.json" => *split = Some(object.path),
            name if name.starts_with("chunk-") => *chunks += 1,
            _ => {}
        }
    }
    let Some((chunks, split)) = splittings.into_values().max() else { return Ok(Staged::default()) };
    let split: Option<BatchSplit> = match split {
        Some(path) => store::read_json(store, &path).await?,
        None => None,
    };
    let total = split.map(|split| split.accepted);
    let rides = chunks * u64::from(claim.chunk_size);
    Ok(Staged { rides: total.map_or(rides, |total| rides.min(total)), total })
}

/// Returns whether any splitting of the batch has staged `chunk`; if `chunk` is `None`, its `batch-split` message.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn has(store: &Store, batch_id: &str, chunk: Option<u32>) -> Result<bool, Failure> {
    let folder = layout::staging(batch_id);
    let staged = match chunk {
        Some(chunk) => layout::staged_chunk(batch_id, None, chunk),
        None => layout::staged_split(batch_id, None),
    };
    let name = staged.strip_prefix(&folder);
    let mut objects = store::list(store, &folder);
    while let Some(object) = objects.try_next().await? {
        if name.is_some_and(|name| object.path.ends_with(name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the ids of the batches with staged objects.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn batches(store: &Store) -> Result<Vec<String>, Failure> {
    store::folders(store, layout::STAGING).await
}

/// Returns the paths of a batch's staged objects: those of the first join under `None`, those of each attempt to join the
/// batch again under its number.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn objects(store: &Store, batch_id: &str) -> Result<BTreeMap<Option<NonZeroU32>, Vec<String>>, Failure> {
    let folder = layout::staging(batch_id);
    let mut by_attempt: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut objects = store::list(store, &folder);
    while let Some(object) = objects.try_next().await? {
        let below = object.path.strip_prefix(&folder).unwrap_or_default();
        let attempt =
            below.trim_start_matches('/').split_once('/').and_then(|(split_id, _)| attempt_of_split(split_id));
        by_attempt.entry(attempt).or_default().push(object.path);
    }
    Ok(by_attempt)
}

/// Removes staged objects; returns their number.
///
/// # Errors
/// Fails with an outage if the store cannot be written.
pub async fn remove(store: &Store, objects: Vec<String>) -> Result<u64, Failure> {
    store::remove_each(store, objects.into_iter()).await
}

/// Removes all staged objects of a finished join, of every splitting: those of the first join, or those of the attempt to join
/// the batch again that `split_id` belongs to. The `batch-split` message of `split_id` is removed last: if it is missing, the
/// rest is removed already.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn clear(store: &Store, batch_id: &str, split_id: Option<&str>) -> Result<(), Failure> {
    let split = layout::staged_split(batch_id, split_id);
    if !store::exists(store, &split).await? {
        return Ok(());
    }
    let attempt = split_id.and_then(attempt_of_split);
    let mut others = objects(store, batch_id).await?.remove(&attempt).unwrap_or_default();
    others.retain(|path| *path != split);
    remove(store, others).await?;
    store::remove(store, &split).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::reading::Reading;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_splitting_with_the_most_chunks_counts() {
        let store: Store = Arc::new(InMemory::new());
        let claim = Claim {
            batch_id: "b".to_owned(),
            sha256: "0".repeat(64),
            chunk_size: 10,
            source: None,
            object: None,
            listed: None,
            reading: Reading::default(),
        };
        assert_eq!(look(&store, &claim).await.unwrap(), Staged::default());
        for (split_id, chunks) in [("abandoned", 2), ("current", 3)] {
            for chunk in 0..chunks {
                store::write(&store, &layout::staged_chunk("b", Some(split_id), chunk), "x").await.unwrap();
            }
        }
        assert_eq!(look(&store, &claim).await.unwrap(), Staged { rides: 30, total: None });
        let split = BatchSplit {
            batch_id: "b".to_owned(),
            sha256: "0".repeat(64),
            split_id: Some("current".to_owned()),
            digest: None,
            refresh: None,
            chunks: 3,
            received: 25,
            accepted: 25,
            rejected: 0,
            rejected_by_reason: Default::default(),
        };
        let json = serde_json::to_vec(&split).unwrap();
        assert!(!has(&store, "b", None).await.unwrap());
        store::write(&store, &layout::staged_split("b", Some("current")), json).await.unwrap();
        assert!(has(&store, "b", None).await.unwrap() && has(&store, "b", Some(2)).await.unwrap());
        assert!(!has(&store, "b", Some(3)).await.unwrap());
        assert_eq!(look(&store, &claim).await.unwrap(), Staged { rides: 25, total: Some(25) });
    }
    /// Late messages of the first join clear none of the chunks of an attempt in progress, and the other way round.
    #[tokio::test]
    async fn a_finished_join_clears_its_own_chunks_alone() {
        let store: Store = Arc::new(InMemory::new());
        let splittings = [None, Some("s"), Some("r1-s"), Some("r1-t"), Some("r2-s")];
        for split_id in splittings {
            store::write(&store, &layout::staged_chunk("b", split_id, 0), "x").await.unwrap();
            store::write(&store, &layout::staged_split("b", split_id), "{}").await.unwrap();
        }
        let counts = async || -> Vec<(Option<u32>, usize)> {
            let staged = objects(&store, "b").await.unwrap();
            staged.into_iter().map(|(attempt, paths)| (attempt.map(NonZeroU32::get), paths.len())).collect()
        };
        assert_eq!(counts().await, [(None, 4), (Some(1), 4), (Some(2), 2)]);
        clear(&store, "b", Some("r1-t")).await.unwrap();
        assert_eq!(counts().await, [(None, 4), (Some(2), 2)]);
        clear(&store, "b", Some("s")).await.unwrap();
        assert_eq!(counts().await, [(Some(2), 2)]);
    }
}
