//! How far a batch is, read off the store: staged chunks of all chunks.

use common::{
    contract::{dataset::Claim, layout, message::BatchSplit},
    runtime::{Store, store},
};
use futures::TryStreamExt;
use object_store::path::Path;

/// How much of a batch is staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Staged {
    /// Rides in staged chunks (the last chunk counts as a full one).
    pub(crate) rides: u64,
    /// Accepted rides, once the splitter has counted them.
    pub(crate) total: Option<u64>,
}

/// Reads how far a batch is; `None` when nothing of it is in progress.
pub(crate) async fn staged(store: &Store, batch_id: &str) -> Option<Staged> {
    let claim: Claim = store::read_json(store, &layout::claim(batch_id)).await.ok()??;
    let split: Option<BatchSplit> = store::read_json(store, &layout::staged_split(batch_id)).await.ok()?;
    let prefix = Path::from(layout::staging(batch_id));
    let chunks = store.list(Some(&prefix)).try_fold(0u64, |count, found| async move {
        Ok(count + u64::from(found.location.filename().is_some_and(|name| name.starts_with("chunk-"))))
    });
    let total = split.map(|split| split.accepted);
    let rides = chunks.await.ok()? * u64::from(claim.chunk_size);
    Some(Staged { rides: total.map_or(rides, |total| rides.min(total)), total })
}
