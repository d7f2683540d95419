//! Batches as the API shows them: their state, from `records::batches` and the dead letters, and their counts.

use super::dead_letters::{DeadLetterSnapshot, Refusal};
use common::{
    dataset::{DatasetFile, Manifest},
    outcome::Failure,
    ride::Counts,
};
use records::{
    Store,
    batch_log::{BatchLog, Cursor, Limits, Page, Seen},
    batches::{self, Letter, State},
    datasets::StoredManifest,
    staging::Staged,
};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use utoipa::ToSchema;

/// A batch and its state.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Batch {
    pub(crate) batch_id: String,
    pub(crate) state: BatchState,
    /// Name given by its publisher.
    #[schema(nullable = false)]
    source: Option<String>,
    /// When it was submitted to the gateway, RFC 3339; absent for batches that were published directly.
    #[schema(nullable = false)]
    submitted_at: Option<String>,
    /// SHA-256 of its bytes.
    sha256: String,
    /// Progress; only while the batch is in progress.
    #[schema(nullable = false)]
    progress: Option<Progress>,
    /// If the dataset is ready and has no ride: whether the batch had none, or all were rejected, and the most frequent reason.
    #[schema(nullable = false)]
    note: Option<String>,
    /// Counts of its rides; only if its dataset is ready.
    #[schema(nullable = false)]
    counts: Option<RideCounts>,
    /// Number of rides per weather station.
    #[schema(nullable = false)]
    stations: Option<BTreeMap<String, u64>>,
    /// The files of its dataset.
    #[schema(nullable = false)]
    files: Option<Vec<FileOfDataset>>,
    /// Number of the newest complete revision of its dataset, from 1; a refresh with other weather makes the next one.
    #[schema(nullable = false, minimum = 1)]
    revision: Option<u32>,
    /// SHA-256 of the manifest of that revision.
    #[schema(nullable = false)]
    manifest_sha256: Option<String>,
    /// Why the batch is refused; an operator can replay it.
    #[schema(nullable = false)]
    refused: Option<Refused>,
    links: Links,
}

/// The state of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BatchState {
    /// The batch waits for a splitter.
    Queued,
    /// The fleet joins its rides with weather.
    InProgress,
    /// The dataset is ready.
    Ready,
    /// The batch, or a chunk of it, is a dead letter.
    Refused,
}

impl From<State> for BatchState {
    fn from(state: State) -> Self {
        match state {
            State::Unknown | State::Queued => Self::Queued,
            State::InProgress => Self::InProgress,
            State::Ready => Self::Ready,
            State::Refused | State::Dropped => Self::Refused,
        }
    }
}

/// The progress of a batch.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// Rides in staged chunks; the last chunk counts as full.
    rides_joined: u64,
    /// Accepted rides; null until they are counted.
    #[schema(required = true)]
    rides_total: Option<u64>,
}

/// Counts of a batch's rides.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct RideCounts {
    /// `accepted + rejected`.
    received: u64,
    /// In the dataset.
    accepted: u64,
    /// In `…/rejected`.
    rejected: u64,
    /// Rejected rides by reason.
    #[schema(value_type = BTreeMap<String, u64>)]
    rejected_by_reason: Counts,
    /// Rides in the dataset without weather, by reason.
    #[schema(value_type = BTreeMap<String, u64>)]
    without_weather: Counts,
    /// Rides in the dataset with a label.
    labelled: u64,
    /// Rides in the dataset with a label and weather: those usable for training.
    trainable: u64,
}

/// One file of a dataset.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct FileOfDataset {
    /// Path in the object store.
    path: String,
    bytes: u64,
    /// Number of rides.
    rows: u64,
    sha256: String,
}

/// Why a batch is refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Refused {
    /// The queue of the worker that gave the message up.
    queue: String,
    /// Stable code.
    reason: String,
    /// Explanation.
    why: String,
}

/// Paths of related resources.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Links {
    #[serde(rename = "self")]
    own: String,
    rejected: String,
    dataset: String,
}

impl Links {
    pub(crate) fn of(batch_id: &str) -> Self {
        let own = format!("/v1/batches/{batch_id}");
        Self { rejected: format!("{own}/rejected"), dataset: format!("{own}/dataset"), own }
    }
}

/// Maximum number of entries of the batch log to read per batch of a page: some entries have no batch.
const LOOKS_PER_BATCH: usize = 10;

/// Builds the batch log's list of earlier batches in advance: that takes long in a store with many batches.
pub(crate) async fn prepare(log: BatchLog) {
    /// Pause after a failure of the store.
    const AGAIN_AFTER: Duration = Duration::from_secs(30);
    while let Err(why) = log.prepare().await {
        tracing::warn!(%why, "cannot list the batches for the batch log; retrying");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Reads a page of batches, newest first.
pub(crate) async fn page(
    log: &BatchLog,
    store: &Store,
    dead: &DeadLetterSnapshot,
    after: Option<Cursor>,
    batches: usize,
) -> Result<Page<Batch>, Failure> {
    let limits = Limits { batches, looks: batches * LOOKS_PER_BATCH };
    let look = |id: String| {
        let (store, dead) = (Arc::clone(store), dead.clone());
        async move { look(&store, &id, &dead).await }
    };
    log.page(after, limits, look).await
}

/// Reads one batch; `None` if it is unknown.
pub(crate) async fn look(
    store: &Store,
    batch_id: &str,
    dead: &DeadLetterSnapshot,
) -> Result<Option<Seen<Batch>>, Failure> {
    let records = batches::read(store, batch_id).await?;
    let letter = dead.of_batch(batch_id, records.sha256());
    let Some(sha256) = records.sha256().or(letter.as_ref().map(|_| "")).map(str::to_owned) else {
        // A broken record of an upload hides what the batch is.
        return records.upload.map(|_| None);
    };
    let (listed, progress) = (records.listed(), records.progress(store).await?);
    let state = records.state(letter.as_ref().map(|_| Letter::Kept));
    let claim = records.claim;
    // An upload that the broker has not confirmed is not a batch yet, unless a splitter has claimed it.
    let upload = records.upload?.filter(|upload| upload.confirmed || claim.is_some());
    let mut batch = Batch {
        batch_id: batch_id.to_owned(),
        state: state.into(),
        source: upload.as_ref().and_then(|upload| upload.source.clone()).or(claim.and_then(|claim| claim.source)),
        submitted_at: upload.map(|upload| upload.submitted_at),
        sha256,
        progress: progress.map(|Staged { rides, total }| Progress { rides_joined: rides, rides_total: total }),
        note: None,
        counts: None,
        stations: None,
        files: None,
        revision: None,
        manifest_sha256: None,
        refused: letter.filter(|_| state == State::Refused).map(|Refusal { queue, reason, why, .. }| Refused {
            queue,
            reason,
            why,
        }),
        links: Links::of(batch_id),
    };
    if let Some(StoredManifest { manifest, sha256 }) = records.dataset {
        let revision = manifest.revision().get();
        batch.note = note(&manifest, &batch.links);
        batch.counts = Some(RideCounts {
            received: manifest.received,
            accepted: manifest.accepted,
            rejected: manifest.rejected,
            rejected_by_reason: manifest.rejected_by_reason,
            without_weather: manifest.without_weather,
            labelled: manifest.labelled,
            trainable: manifest.trainable,
        });
        batch.stations = Some(manifest.stations);
        batch.files = Some(manifest.files.into_iter().map(FileOfDataset::from).collect());
        batch.revision = Some(revision);
        batch.manifest_sha256 = Some(sha256);
    }
    Ok(Some(Seen { batch, listed }))
}

/// Returns the note on a dataset without rides.
fn note(manifest: &Manifest, links: &Links) -> Option<String> {
    if manifest.received == 0 {
        return Some("the batch holds no rides".to_owned());
    }
    if manifest.accepted > 0 {
        return None;
    }
    let most = manifest.rejected_by_reason.iter().max_by_key(|(_, count)| **count);
    let most = most.map_or_else(String::new, |(reason, count)| format!(", {count} of them for {reason}"));
    Some(format!("all {} rides were rejected{most}: see {}", manifest.rejected, links.rejected))
}

impl From<DatasetFile> for FileOfDataset {
    fn from(DatasetFile { path, bytes, rows, sha256 }: DatasetFile) -> Self {
        Self { path, bytes, rows, sha256 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::schema::Described;
    use object_store::memory::InMemory;
    use records::datasets::column_names;
    use records::{layout, store};
    use serde_json::json;

    async fn write(store: &Store, path: &str, document: serde_json::Value) {
        store::write(store, path, document.to_string()).await.unwrap();
    }

    /// Batches that are queued, in progress or older than the log are listed once each, newest first; uploads that the
    /// broker has not confirmed are not listed.
    #[tokio::test]
    async fn a_batch_is_listed_once_from_its_confirm_on() {
        let store: Store = Arc::new(InMemory::new());
        let log = BatchLog::new(Arc::clone(&store));
        let upload = |id: &str, confirmed: bool, listed: Option<u64>| {
            json!({
                "batch_id": id, "sha256": "0".repeat(64), "bytes": 1, "object": "raw/a", "confirmed": confirmed,
                "submitted_at": "2026-11-29T00:00:00Z", "listed": listed,
            })
        };
        write(&store, &layout::upload("old"), upload("old", true, None)).await;
        for (id, confirmed) in [("claimed", true), ("given-up", false), ("queued", true)] {
            let listed = log.append(id).await.unwrap();
            write(&store, &layout::upload(id), upload(id, confirmed, Some(listed))).await;
        }
        let listed = log.enter("claimed").await.unwrap();
        let claim = json!({ "batch_id": "claimed", "sha256": "0".repeat(64), "chunk_size": 1, "listed": listed });
        write(&store, &layout::claim("claimed"), claim).await;
        let dead = DeadLetterSnapshot::default();
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let page = page(&log, &store, &dead, after, 1).await.unwrap();
            listed.extend(page.batches.into_iter().map(|batch| (batch.batch_id, batch.state)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let expected =
            [("queued", BatchState::Queued), ("claimed", BatchState::InProgress), ("old", BatchState::Queued)];
        assert_eq!(listed, expected.map(|(id, state)| (id.to_owned(), state)));
    }

    #[test]
    fn a_dataset_without_rides_has_a_note_with_the_reason() {
        let manifest = |accepted, reasons: &[(&str, u64)]| {
            let rejected = reasons.iter().map(|(_, count)| count).sum::<u64>();
            Manifest {
                schema: Manifest::SCHEMA.name.to_owned(),
                batch_id: "b".to_owned(),
                revision: None,
                sha256: "0".repeat(64),
                columns: column_names().map(str::to_owned).to_vec(),
                received: accepted + rejected,
                accepted,
                rejected,
                rejected_by_reason: reasons.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
                without_weather: Counts::new(),
                labelled: 0,
                trainable: 0,
                stations: BTreeMap::new(),
                files: Vec::new(),
            }
        };
        let note = |accepted, reasons: &[(&str, u64)]| note(&manifest(accepted, reasons), &Links::of("b"));
        assert_eq!(note(0, &[]).as_deref(), Some("the batch holds no rides"));
        let all = note(0, &[("invalid_distance", 1), ("missing_latitude", 11)]).unwrap();
        assert_eq!(all, "all 12 rides were rejected, 11 of them for missing_latitude: see /v1/batches/b/rejected");
        assert_eq!(note(1, &[("missing_latitude", 11)]), None);
    }
}
