//! The objects of a batch in the store: stages, joins and clears them.

use crate::{
    join::{self, Heading, JoinError, Part, Parts, Statistics, Step},
    settings::Settings,
};
use bytes::{Buf, BytesMut};
use common::{
    dead_letter::BATCH_ID_CONFLICT,
    message::{BatchSplit, EnrichedChunk, SplitDigest},
    outcome::Failure,
};
use futures::{StreamExt, TryStreamExt, future, stream};
use object_store::{Error, ObjectMeta, ObjectStoreExt, buffered::BufWriter, path::Path};
use records::{
    layout,
    store::{self, Store},
};
use tokio::io::AsyncWriteExt;

/// Number of bytes of rows that are buffered before they are passed to the upload.
const BUFFER_BYTES: usize = 256 * 1024;
/// Maximum number of concurrent requests of one upload.
const UPLOADS_MAX: usize = 2;

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let reason = match error {
            JoinError::BrokenChunk { .. } | JoinError::BrokenManifest { .. } => "broken_object",
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

/// Returns the metadata of the manifest; `None` while the batch is in progress.
pub(crate) async fn manifest(store: &Store, batch_id: &str) -> Result<Option<ObjectMeta>, Failure> {
    match store.head(&Path::from(layout::manifest(batch_id))).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(store::outage(error)),
    }
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
    let mut upload = Upload::open(store, settings, &split.batch_id);
    let total = match upload.rows(split, settings.read_ahead).await {
        Ok(Some(total)) => total,
        other => {
            upload.abort().await;
            return other.map(|_| false);
        }
    };
    let manifest = join::manifest(split, total, upload.finish().await?)?;
    let bytes = join::manifest_bytes(&manifest)?;
    let path = layout::manifest(&split.batch_id);
    if !store::create(store, &path, bytes.clone()).await? {
        let written = store::read(store, &path).await?;
        if written.is_some_and(|written| written != bytes) {
            let why = format!("{path} exists already and describes another dataset; it is not replaced");
            return Err(Failure::permanent("dataset_differs", why));
        }
    }
    tracing::info!(
        batch_id = split.batch_id,
        rides = manifest.accepted,
        files = manifest.files.len(),
        "dataset joined"
    );
    Ok(true)
}

/// Removes all staged objects of a finished batch, of every splitting. The `batch-split` message of `split_id` is removed last:
/// if it is missing, the rest is removed already.
pub(crate) async fn clear(store: &Store, batch_id: &str, split_id: Option<&str>) -> Result<(), Failure> {
    let split = Path::from(layout::staged_split(batch_id, split_id));
    if !store::exists(store, split.as_ref()).await? {
        return Ok(());
    }
    let last = split.clone();
    let others = store
        .list(Some(&Path::from(layout::staging(batch_id))))
        .map_ok(|object| object.location)
        .try_filter(move |path| future::ready(*path != last))
        .boxed();
    store::remove_all(store, others).await?;
    store::remove(store, split.as_ref()).await
}

/// Removes one staged chunk of a finished batch.
pub(crate) async fn clear_chunk(store: &Store, chunk: &EnrichedChunk) -> Result<(), Failure> {
    let path = layout::staged_chunk(&chunk.batch_id, chunk.split_id.as_deref(), chunk.chunk);
    store::remove(store, &path).await
}

/// Removes objects that were staged after their dataset was complete.
pub(crate) async fn sweep(store: &Store) -> Result<(), Failure> {
    let staging = store.list_with_delimiter(Some(&Path::from(layout::STAGING))).await.map_err(store::outage)?;
    for batch in staging.common_prefixes {
        let Some(batch_id) = batch.filename() else { continue };
        if manifest(store, batch_id).await?.is_none() {
            continue;
        }
        let leftovers = store.list(Some(&batch)).map_ok(|object| object.location).boxed();
        let count = store::remove_all(store, leftovers).await?;
        if count > 0 {
            tracing::info!(batch_id, count, "removed objects that were staged too late");
        }
    }
    Ok(())
}

/// The upload of the parts of one dataset. Each part becomes visible when it is complete.
struct Upload<'a> {
    store: &'a Store,
    batch_id: &'a str,
    upload_bytes: usize,
    parts: Parts,
    writer: BufWriter,
    buffer: BytesMut,
    complete: Vec<Part>,
}

impl<'a> Upload<'a> {
    fn open(store: &'a Store, settings: &Settings, batch_id: &'a str) -> Self {
        let upload_bytes = settings.upload_bytes;
        Self {
            store,
            batch_id,
            upload_bytes,
            parts: Parts::new(settings.part_bytes_max),
            writer: writer(store, batch_id, upload_bytes, 0),
            buffer: BytesMut::from(join::header().as_slice()),
            complete: Vec::new(),
        }
    }

    /// Writes the rows of every chunk in the order of the batch; returns `None` if a chunk is gone.
    async fn rows(&mut self, split: &BatchSplit, read_ahead: usize) -> Result<Option<Statistics>, Failure> {
        let store = self.store;
        let read = |chunk| async move {
            let path = layout::staged_chunk(&split.batch_id, split.split_id.as_deref(), chunk);
            let object = store::read(store, &path).await?;
            Ok::<_, Failure>((chunk, object))
        };
        let mut staged = stream::iter(0..split.chunks).map(read).buffered(read_ahead);
        let (mut total, mut sent) = (Statistics::default(), SplitDigest::default());
        while let Some((chunk, object)) = staged.try_next().await? {
            let Some(mut csv) = object else { return Ok(None) };
            let (Heading { digest, statistics }, start) = join::open_staged(chunk, &csv)?;
            sent.add(digest.unwrap_or_default().as_bytes());
            csv.advance(start);
            for step in self.parts.push(&csv, statistics.rides) {
                match step {
                    Step::Write(range) => self.write(csv.get(range).unwrap_or_default()).await?,
                    Step::Close(part) => self.close(part).await?,
                }
            }
            total.add(&statistics);
        }
        join::check_digest(split, &sent)?;
        Ok(Some(total))
    }

    async fn write(&mut self, rows: &[u8]) -> Result<(), Failure> {
        self.buffer.extend_from_slice(rows);
        if self.buffer.len() >= BUFFER_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let rows = self.buffer.split().freeze();
        self.writer.put(rows).await.map_err(store::outage)
    }

    async fn close(&mut self, part: Part) -> Result<(), Failure> {
        self.flush().await?;
        let next = writer(self.store, self.batch_id, self.upload_bytes, part.number.saturating_add(1));
        let mut full = std::mem::replace(&mut self.writer, next);
        full.shutdown().await.map_err(|error| Failure::outage("object store", error))?;
        self.buffer.extend_from_slice(&join::header());
        self.complete.push(part);
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<Part>, Failure> {
        if let Err(failure) = self.flush().await {
            self.abort().await;
            return Err(failure);
        }
        self.writer.shutdown().await.map_err(|error| Failure::outage("object store", error))?;
        self.complete.push(self.parts.finish());
        Ok(self.complete)
    }

    /// Aborts the upload of the open part. If that fails, the store's own rule removes it.
    async fn abort(mut self) {
        if let Err(error) = self.writer.abort().await {
            tracing::debug!(batch_id = self.batch_id, %error, "an unfinished upload was not removed");
        }
    }
}

fn writer(store: &Store, batch_id: &str, upload_bytes: usize, part: u32) -> BufWriter {
    let path = Path::from(layout::dataset_part(batch_id, part));
    BufWriter::with_capacity(Store::clone(store), path, upload_bytes).with_max_concurrency(UPLOADS_MAX)
}
