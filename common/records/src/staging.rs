//! Progress of a batch, read from the staging area. For people; no result depends on it.

use super::{Store, store};
use crate::layout;
use common::{dataset::Claim, message::BatchSplit, outcome::Failure};
use futures::{StreamExt, TryStreamExt, future};
use object_store::path::Path;
use std::collections::BTreeMap;

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
    for object in store::list(store, &layout::staging(&claim.batch_id)).await? {
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
    let objects = store::list(store, &folder).await?;
    Ok(name.is_some_and(|name| objects.iter().any(|object| object.path.ends_with(name))))
}

/// Removes all staged objects of a finished batch, of every splitting. The `batch-split` message of `split_id` is removed last:
/// if it is missing, the rest is removed already.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn clear(store: &Store, batch_id: &str, split_id: Option<&str>) -> Result<(), Failure> {
    let split = layout::staged_split(batch_id, split_id);
    if !store::exists(store, &split).await? {
        return Ok(());
    }
    let last = Path::from(split.as_str());
    let objects = store.list(Some(&Path::from(layout::staging(batch_id)))).map_ok(|object| object.location);
    let others = objects.try_filter(move |path| future::ready(*path != last)).boxed();
    store::remove_all(store, others).await?;
    store::remove(store, &split).await
}

/// Removes all staged objects of a batch; returns their number.
///
/// # Errors
/// Fails with an outage if the store cannot be used.
pub async fn remove(store: &Store, batch_id: &str) -> Result<u64, Failure> {
    let objects = store.list(Some(&Path::from(layout::staging(batch_id)))).map_ok(|object| object.location);
    store::remove_all(store, objects.boxed()).await
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
}
