//! What has become of each batch, by the store and by dead letters.

use crate::{Failed, job::staged, output::legible};
use common::{
    contract::{
        dataset::{Claim, Manifest},
        dead_letter::Letter,
        layout,
        topology::queue,
        waiting::Waiting,
    },
    runtime::{Store, store, waiting},
};
use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::{ObjectStoreExt, path::Path};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Copies of dropped letters that are looked at.
const COPIES_MAX: usize = 500;

/// One batch.
#[derive(Serialize)]
pub(super) struct BatchStatus {
    batch_id: String,
    /// `ready`, `in progress`, `refused` (a dead letter) or `dropped` (a dead letter that an operator dropped).
    state: &'static str,
    /// When it was first split, RFC 3339 in UTC, by the store's clock.
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Absent where the batch was never split.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    staged_rides: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    /// Why it is refused or dropped, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Of its dataset, when it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<Manifest>,
}

/// All batches of the store, or one, the newest last.
pub(super) async fn all(store: &Store, batch: Option<&str>) -> Result<Vec<BatchStatus>, Failed> {
    let claims = claims(store, batch).await?;
    let (mut dropped, waiting) = (dropped(store).await?, waiting(store).await?);
    let mut batches = Vec::new();
    for (since, claim) in claims {
        let mut status = look(store, claim, since).await?;
        let given_up = dropped.remove(&status.batch_id);
        if status.manifest.is_none() {
            if let Some((_, why)) = given_up {
                status.state = "dropped";
                status.why = Some(why);
            } else {
                let of_batch = |one: &&Waiting| one.batch_id.as_deref().is_none_or(|id| id == status.batch_id);
                let cause = |one: &Waiting| format!("{} waits since {}: {}", one.worker, one.since, one.why);
                status.why = waiting.iter().find(of_batch).map(cause);
            }
        }
        batches.push(status);
    }
    // Refused before they were split, so that nothing but the copy of their letter is left.
    let never_split = dropped.into_iter().filter(|(batch_id, _)| batch.is_none_or(|batch| batch == batch_id));
    batches.extend(never_split.map(|(batch_id, (at, why))| BatchStatus {
        batch_id,
        state: "dropped",
        since: at.to_string(),
        source: None,
        sha256: None,
        chunk_size: None,
        staged_rides: None,
        accepted: None,
        why: Some(why),
        manifest: None,
    }));
    batches.sort_by(|a, b| a.since.cmp(&b.since));
    Ok(batches)
}

/// Marks the batches that dead letters speak of as refused; returns the letters of batches that the store does not know, which
/// were refused as a whole.
pub(super) fn merge(batches: &mut [BatchStatus], letters: Vec<Letter>) -> Vec<Letter> {
    let mut others = Vec::new();
    for letter in letters {
        let known = batches.iter_mut().find(|batch| Some(batch.batch_id.as_str()) == letter.batch_id.as_deref());
        match known {
            // A later publisher's conflict says nothing of the batch that has the id.
            Some(batch) if batch.manifest.is_none() && letter.reason != "batch_id_conflict" => {
                batch.state = "refused";
                batch.why = Some(format!("by the {}: {}: {}", letter.queue, letter.reason, letter.why));
            }
            Some(batch) if letter.reason != "batch_id_conflict" && batch.manifest.is_some() => {}
            _ => others.push(letter),
        }
    }
    others
}

impl BatchStatus {
    /// As one line.
    pub(super) fn line(&self) -> String {
        let source = legible(self.source.as_deref().unwrap_or_default(), false);
        let Self { batch_id, state, since, .. } = self;
        let what = match (&self.manifest, &self.why) {
            (Some(manifest), _) if manifest.received == 0 => "no ride in it".to_owned(),
            (Some(m), _) => format!("{} received, {} rejected, {} to train on", m.received, m.rejected, m.trainable),
            (None, Some(why)) if self.sha256.is_none() => legible(why, false).into_owned(),
            (None, why) => {
                let of = self.accepted.map_or("a number not yet known".to_owned(), |total| total.to_string());
                let joined = format!("{} of {of} rides joined", self.staged_rides.unwrap_or(0));
                why.as_ref().map_or(joined.clone(), |why| format!("{joined}; {}", legible(why, false)))
            }
        };
        format!("{batch_id:<18} {since:<20} {state:<12} {what}   {source}")
    }
}

async fn claims(store: &Store, batch: Option<&str>) -> Result<Vec<(Timestamp, Claim)>, Failed> {
    let time =
        |meta: &object_store::ObjectMeta| Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or_default();
    let mut objects: Vec<(Timestamp, String)> = match batch {
        Some(batch_id) => {
            let path = layout::claim(batch_id);
            let meta = store.head(&Path::from(path.as_str())).await.ok();
            meta.map(|meta| (time(&meta), path)).into_iter().collect()
        }
        None => {
            let prefix = Path::from(layout::BATCHES);
            store.list(Some(&prefix)).map_ok(|meta| (time(&meta), meta.location.to_string())).try_collect().await?
        }
    };
    objects.sort_unstable();
    let mut claims = Vec::new();
    for (at, path) in objects {
        claims.extend(store::read_json::<Claim>(store, &path).await?.map(|claim| (at, claim)));
    }
    Ok(claims)
}

async fn look(store: &Store, claim: Claim, since: Timestamp) -> Result<BatchStatus, Failed> {
    let manifest: Option<Manifest> = store::read_json(store, &layout::manifest(&claim.batch_id)).await?;
    let progress = if manifest.is_none() { staged(store, &claim.batch_id).await } else { None };
    Ok(BatchStatus {
        state: if manifest.is_some() { "ready" } else { "in progress" },
        since: since.to_string(),
        staged_rides: progress.as_ref().map(|progress| progress.rides),
        accepted: manifest.as_ref().map(|m| m.accepted).or(progress.and_then(|progress| progress.total)),
        batch_id: claim.batch_id,
        source: claim.source,
        sha256: Some(claim.sha256),
        chunk_size: Some(claim.chunk_size),
        why: None,
        manifest,
    })
}

/// When and why each batch was given up whose dead letter an operator dropped.
async fn dropped(store: &Store) -> Result<BTreeMap<String, (Timestamp, String)>, Failed> {
    let mut dropped = BTreeMap::new();
    let prefix = Path::from("dead");
    let copies: Vec<Path> = store.list(Some(&prefix)).map_ok(|meta| meta.location).try_collect().await?;
    for path in copies.into_iter().take(COPIES_MAX) {
        let Some(copy) = store::read_json::<Value>(store, path.as_ref()).await.ok().flatten() else { continue };
        if let (Some(batch_id), Some(reason), Some(why)) =
            (copy["batch_id"].as_str(), copy["reason"].as_str(), copy["why"].as_str())
        {
            let at = copy["dead_at"].as_str().and_then(|at| at.parse().ok()).unwrap_or_default();
            dropped.insert(batch_id.to_owned(), (at, format!("{reason}: {why}")));
        }
    }
    Ok(dropped)
}

/// What the workers between ingest and dataset wait for.
async fn waiting(store: &Store) -> Result<Vec<Waiting>, Failed> {
    let mut all = Vec::new();
    for worker in [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER] {
        all.extend(waiting::read(store, worker).await?);
    }
    Ok(all)
}
