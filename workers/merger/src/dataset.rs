//! The objects of a batch in the store: stages, joins and clears them.

use crate::{
    join::{self, JoinError},
    revision::{self, Decided},
    settings::Settings,
    staged,
};
use common::{
    dataset::FIRST_REVISION,
    dead_letter::BATCH_ID_CONFLICT,
    message::{BatchSplit, EnrichedChunk, Refresh},
    outcome::Failure,
    topology::process::MERGER,
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{
    batches,
    datasets::{self, Writer},
    layout, refreshes, staging,
    store::{self, Store},
};
use runtime::metrics::metrics;
use std::num::NonZeroU32;

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let reason = match error {
            JoinError::BrokenChunk { .. } => "broken_object",
            JoinError::CountsDisagree { .. } => "counts_disagree",
            JoinError::DigestsDisagree { .. } => "digests_disagree",
            JoinError::Unencodable(_) => "unencodable",
        };
        Self::permanent(reason, error)
    }
}

/// Stages a chunk. The first version stays, so that every reader reads the same bytes.
pub(crate) async fn stage_chunk(store: &Store, chunk: &EnrichedChunk) -> Result<(), Failure> {
    let path = layout::staged_chunk(&chunk.batch_id, chunk.split_id.as_deref(), chunk.chunk);
    store::create(store, &path, join::staged(chunk)?).await.map(drop)
}

/// Stages a `batch-split` message.
///
/// # Errors
/// Fails if the store has a different one of this splitting.
pub(crate) async fn stage_split(store: &Store, split: &BatchSplit) -> Result<(), Failure> {
    let path = layout::staged_split(&split.batch_id, split.split_id.as_deref());
    let object = serde_json::to_vec(split).map_err(JoinError::from)?;
    if store::create(store, &path, object).await? {
        return Ok(());
    }
    match store::read_json::<BatchSplit>(store, &path).await? {
        Some(staged) if staged != *split => Err(conflict(split, &staged.sha256)),
        // It is gone because the batch was finished meanwhile; the next check finds the manifest.
        _ => Ok(()),
    }
}

/// Returns the failure of a batch id that is bound to other bytes, or to the same bytes with other counts.
pub(crate) fn conflict(split: &BatchSplit, known_sha256: &str) -> Failure {
    let BatchSplit { batch_id, sha256, .. } = split;
    let why = if sha256 == known_sha256 {
        format!("batch {batch_id} was split before with other counts")
    } else {
        format!("batch {batch_id} is bound to bytes with SHA-256 {known_sha256}, not {sha256}")
    };
    Failure::permanent(BATCH_ID_CONFLICT, why)
}

/// Returns for each of these chunks of one splitting whether it is staged.
pub(crate) async fn staged(
    store: &Store,
    batch_id: &str,
    split_id: Option<&str>,
    chunks: Vec<u32>,
) -> Result<Vec<(u32, bool)>, Failure> {
    let width = chunks.len();
    let probe = |chunk| async move {
        let is_staged = store::exists(store, &layout::staged_chunk(batch_id, split_id, chunk)).await?;
        Ok((chunk, is_staged))
    };
    stream::iter(chunks).map(probe).buffer_unordered(width).try_collect().await
}

/// The end of the work on a batch, or on an attempt to join it again.
pub(crate) enum Ended {
    /// The revision is complete.
    Revision {
        /// Its number.
        revision: NonZeroU32,
        /// The etag of its manifest, if the store has etags.
        version: Option<String>,
    },
    /// The attempt changed nothing.
    Unchanged,
}

/// Returns how the work that a message belongs to has ended; `None` while it is in progress.
pub(crate) async fn ended(store: &Store, batch_id: &str, refresh: Option<Refresh>) -> Result<Option<Ended>, Failure> {
    let revision = match refresh {
        None => FIRST_REVISION,
        Some(Refresh { attempt, .. }) => match refreshes::outcome(store, batch_id, attempt).await? {
            None => return Ok(None),
            Some(outcome) if !outcome.is_changed() => return Ok(Some(Ended::Unchanged)),
            Some(outcome) => outcome.revision,
        },
    };
    let manifest = store::head(store, &layout::manifest(batch_id, revision)).await?;
    Ok(manifest.map(|manifest| Ended::Revision { revision, version: manifest.e_tag }))
}

/// What became of the staged chunks of a splitting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The work on them has ended: the revision is complete, or the attempt changed nothing.
    Done,
    /// A chunk is gone, because another process finished the work or the chunk was removed.
    Gone,
}

/// Joins the staged chunks into a revision of the dataset: the first one, or, for a refresh, the one that the outcome of the attempt
/// names.
pub(crate) async fn join(store: &Store, settings: &Settings, split: &BatchSplit) -> Result<Joined, Failure> {
    match split.refresh {
        None => write(store, settings, split, FIRST_REVISION).await,
        Some(refresh) => match revision::decide(store, settings, split, refresh).await? {
            Decided::Write(revision) => write(store, settings, split, revision).await,
            Decided::WriteOther(other, revision) => {
                if write(store, settings, &other, revision).await? == Joined::Gone {
                    revision::check_written(store, &split.batch_id, revision, refresh).await?;
                }
                staging::clear(store, &other.batch_id, other.split_id.as_deref()).await?;
                Ok(Joined::Done)
            }
            Decided::Ended => Ok(Joined::Done),
            Decided::Gone => Ok(Joined::Gone),
        },
    }
}

/// Writes the staged chunks as a revision of the dataset; the manifest last.
async fn write(
    store: &Store,
    settings: &Settings,
    split: &BatchSplit,
    revision: NonZeroU32,
) -> Result<Joined, Failure> {
    let mut files = Writer::open(store, &split.batch_id, revision, settings.part_bytes_max, settings.upload_bytes);
    let total = match staged::pass_rows(store, settings, split, &mut files).await {
        Ok(Some(total)) => total,
        other => {
            files.abort().await;
            return other.map(|_| Joined::Gone);
        }
    };
    let manifest = join::manifest(split, revision, total, files.finish().await?);
    datasets::create_manifest(store, &manifest).await?;
    metrics().rides(MERGER.name, "joined", manifest.accepted);
    tracing::info!(
        batch_id = split.batch_id,
        revision,
        rides = manifest.accepted,
        files = manifest.files.len(),
        "dataset joined"
    );
    Ok(Joined::Done)
}

/// Removes one staged chunk of a finished batch.
pub(crate) async fn clear_chunk(store: &Store, chunk: &EnrichedChunk) -> Result<(), Failure> {
    let path = layout::staged_chunk(&chunk.batch_id, chunk.split_id.as_deref(), chunk.chunk);
    store::remove(store, &path).await
}

/// Removes objects that were staged after their dataset was complete, or after their attempt to join the batch again had ended.
pub(crate) async fn sweep(store: &Store) -> Result<(), Failure> {
    for batch_id in staging::batches(store).await? {
        for (attempt, objects) in staging::objects(store, &batch_id).await? {
            let is_finished = match attempt {
                None => batches::is_complete(store, &batch_id).await?,
                Some(attempt) => refreshes::ended(store, &batch_id, attempt).await?.is_some(),
            };
            let count = if is_finished { staging::remove(store, objects).await? } else { 0 };
            if count > 0 {
                tracing::info!(batch_id, attempt, count, "removed objects that were staged too late");
            }
        }
    }
    Ok(())
}
