//! The objects of a batch in the store: stages, joins and clears them.

use crate::{
    join::{self, Heading, JoinError, Statistics},
    settings::{READ_AHEAD, Settings},
};
use common::{
    dead_letter::BATCH_ID_CONFLICT,
    message::{BatchSplit, EnrichedChunk, SplitDigest},
    outcome::Failure,
    topology::process::MERGER,
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{
    datasets::{self, Writer},
    layout, staging,
    store::{self, Store},
};
use runtime::metrics::metrics;

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

/// Joins the staged chunks into the dataset; writes the manifest last. Returns false if a staged chunk is gone, because another
/// process finished the batch or the chunk was removed.
pub(crate) async fn join(store: &Store, settings: &Settings, split: &BatchSplit) -> Result<bool, Failure> {
    let mut files = Writer::open(store, &split.batch_id, settings.part_bytes_max, settings.upload_bytes);
    let total = match write_rows(store, split, settings.read_ahead.unwrap_or(READ_AHEAD), &mut files).await {
        Ok(Some(total)) => total,
        other => {
            files.abort().await;
            return other.map(|_| false);
        }
    };
    let manifest = join::manifest(split, total, files.finish().await?)?;
    datasets::create_manifest(store, &manifest).await?;
    metrics().rides(MERGER.name, "joined", manifest.accepted);
    tracing::info!(
        batch_id = split.batch_id,
        rides = manifest.accepted,
        files = manifest.files.len(),
        "dataset joined"
    );
    Ok(true)
}

/// Writes the rows of every chunk in the order of the batch; returns `None` if a chunk is gone.
async fn write_rows(
    store: &Store,
    split: &BatchSplit,
    read_ahead: usize,
    files: &mut Writer,
) -> Result<Option<Statistics>, Failure> {
    let read = |chunk| async move {
        let path = layout::staged_chunk(&split.batch_id, split.split_id.as_deref(), chunk);
        let object = store::read(store, &path).await?;
        Ok::<_, Failure>((chunk, object))
    };
    let mut staged = stream::iter(0..split.chunks).map(read).buffered(read_ahead);
    let (mut total, mut sent) = (Statistics::default(), SplitDigest::default());
    while let Some((chunk, object)) = staged.try_next().await? {
        let Some(object) = object else { return Ok(None) };
        let (Heading { digest, statistics }, start) = join::open_staged(chunk, &object)?;
        sent.add(digest.unwrap_or_default().as_bytes());
        files.push(object.get(start..).unwrap_or_default(), statistics.rides).await?;
        total.add(&statistics);
    }
    join::check_digest(split, &sent)?;
    Ok(Some(total))
}

/// Removes one staged chunk of a finished batch.
pub(crate) async fn clear_chunk(store: &Store, chunk: &EnrichedChunk) -> Result<(), Failure> {
    let path = layout::staged_chunk(&chunk.batch_id, chunk.split_id.as_deref(), chunk.chunk);
    store::remove(store, &path).await
}

/// Removes objects that were staged after their dataset was complete.
pub(crate) async fn sweep(store: &Store) -> Result<(), Failure> {
    for batch_id in staging::batches(store).await? {
        if !store::exists(store, &layout::manifest(&batch_id)).await? {
            continue;
        }
        let count = staging::remove(store, staging::objects(store, &batch_id).await?).await?;
        if count > 0 {
            tracing::info!(batch_id, count, "removed objects that were staged too late");
        }
    }
    Ok(())
}
