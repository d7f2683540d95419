//! What has become of each batch, by the store and by dead letters.

use crate::{Failed, job::staged, output::legible};
use common::{
    contract::{
        dataset::{Claim, Manifest},
        dead_letter::{GivenUp, Letter},
        layout,
        topology::queue,
        waiting::Waiting,
    },
    runtime::{Store, store, waiting},
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use object_store::{ObjectMeta, ObjectStoreExt, path::Path};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Copies of dead letters that are looked at, the latest first.
const COPIES_MAX: usize = 500;
/// Objects that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// The reason of a batch with an id that other bytes have already.
const BATCH_ID_CONFLICT: &str = "batch_id_conflict";

/// One batch.
#[derive(Debug, Serialize)]
pub(super) struct BatchStatus {
    batch_id: String,
    /// `ready`, `in progress`, `refused` (a message of it is a dead letter) or `dropped` (an operator dropped that letter).
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
    let looking = stream::iter(claims(store, batch).await?).map(|(since, path)| look(store, since, path));
    let found: Vec<Option<BatchStatus>> = looking.buffered(READS_AT_ONCE).try_collect().await?;
    let mut batches: Vec<BatchStatus> = found.into_iter().flatten().collect();
    let (mut given_up, waiting) = (given_up(store).await?, waiting(store).await?);
    for status in &mut batches {
        let copy = given_up.remove(&status.batch_id);
        if status.manifest.is_some() {
            continue;
        }
        let copy = match copy {
            Some(copy) if !is_overtaken(store, &copy).await? => Some(copy),
            Some(_) | None => None,
        };
        if let Some(copy) = copy {
            status.state = state(&copy);
            status.why = Some(cause(&copy));
        } else {
            let of_batch = |one: &&Waiting| one.batch_id.as_deref().is_none_or(|id| id == status.batch_id);
            let words = |one: &Waiting| format!("{} waits since {}: {}", one.worker, one.since, one.why);
            status.why = waiting.iter().find(of_batch).map(words);
        }
    }
    // Refused before they were split, so that nothing but the copy of their letter is left.
    let never_split = given_up.into_values().filter(|copy| batch.is_none_or(|batch| batch == copy.batch_id));
    batches.extend(never_split.map(|copy| BatchStatus {
        state: state(&copy),
        since: copy.dead_at.unwrap_or_default().to_string(),
        why: Some(cause(&copy)),
        batch_id: copy.batch_id,
        source: None,
        sha256: None,
        chunk_size: None,
        staged_rides: None,
        accepted: None,
        manifest: None,
    }));
    batches.sort_by(|a, b| a.since.cmp(&b.since));
    Ok(batches)
}

/// The state of a batch whose message was given up.
fn state(copy: &GivenUp) -> &'static str {
    if copy.dropped { "dropped" } else { "refused" }
}

fn cause(GivenUp { queue, reason, why, .. }: &GivenUp) -> String {
    format!("by the {queue}: {reason}: {why}")
}

/// Whether the message that was given up has succeeded since, published again.
async fn is_overtaken(store: &Store, copy: &GivenUp) -> Result<bool, Failed> {
    let path = match copy.chunk {
        Some(chunk) => layout::staged_chunk(&copy.batch_id, chunk),
        None => layout::staged_split(&copy.batch_id),
    };
    Ok(store::exists(store, &path).await?)
}

/// Marks the batches that dead letters speak of as refused; returns the letters of batches that the store does not know, which
/// were refused as a whole.
pub(super) fn merge(batches: &mut [BatchStatus], letters: Vec<Letter>) -> Vec<Letter> {
    let mut others = Vec::new();
    for letter in letters {
        let known = batches.iter_mut().find(|batch| Some(batch.batch_id.as_str()) == letter.batch_id.as_deref());
        match known {
            Some(_) if letter.reason == BATCH_ID_CONFLICT => others.push(letter),
            Some(batch) if batch.manifest.is_none() => {
                batch.state = "refused";
                batch.why = Some(format!("by the {}: {}: {}", letter.queue, letter.reason, letter.why));
            }
            Some(_) => {}
            None => others.push(letter),
        }
    }
    others
}

/// The lines of a table of batches, and of letters of batches that the store does not know: the newest last.
pub(super) fn table(batches: &[BatchStatus], refused: &[Letter]) -> Vec<String> {
    let letter = |letter: &Letter| {
        let Letter { batch_id, queue, reason, why, dead_at, .. } = letter;
        let since = dead_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let why = format!("by the {queue}: {reason}: {why}");
        let line = row(batch_id.as_deref().unwrap_or("(no batch id)"), &since, "refused", &why);
        (since, line)
    };
    let mut rows: Vec<(String, String)> = batches.iter().map(|batch| (batch.since.clone(), batch.line())).collect();
    rows.extend(refused.iter().map(letter));
    rows.sort();
    if !rows.is_empty() {
        rows.insert(0, (String::new(), row("batch", "since, newest last", "state", "rides, or why")));
    }
    rows.into_iter().map(|(_, line)| line).collect()
}

fn row(batch: &str, since: &str, state: &str, rest: &str) -> String {
    legible(&format!("{batch:<18} {since:<20} {state:<12} {rest}"), false).into_owned()
}

impl BatchStatus {
    fn line(&self) -> String {
        let joined = || {
            let of = self.accepted.map_or("a number not yet known".to_owned(), |total| total.to_string());
            format!("{} of {of} rides joined", self.staged_rides.unwrap_or(0))
        };
        let what = match (&self.manifest, &self.why) {
            (Some(manifest), _) if manifest.received == 0 => "no ride in it".to_owned(),
            (Some(m), _) => format!("{} received, {} rejected, {} to train on", m.received, m.rejected, m.trainable),
            (None, Some(why)) if self.sha256.is_none() => why.clone(),
            (None, Some(why)) => format!("{}; {why}", joined()),
            (None, None) => joined(),
        };
        let source = self.source.as_deref().unwrap_or_default();
        row(&self.batch_id, &self.since, self.state, format!("{what}   {source}").trim_end())
    }
}

/// When each claim was made, and where it is.
async fn claims(store: &Store, batch: Option<&str>) -> Result<Vec<(Timestamp, String)>, Failed> {
    let Some(batch_id) = batch else {
        let prefix = Path::from(layout::BATCHES);
        let listed = store.list(Some(&prefix)).map_ok(|object| (time(&object), object.location.to_string()));
        return Ok(listed.try_collect().await?);
    };
    let path = layout::claim(batch_id);
    match store.head(&Path::from(path.as_str())).await {
        Ok(object) => Ok(vec![(time(&object), path)]),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// When an object was written, in whole seconds.
fn time(object: &ObjectMeta) -> Timestamp {
    Timestamp::from_second(object.last_modified.timestamp()).unwrap_or_default()
}

/// The batch of a claim; `None` when the claim has vanished.
async fn look(store: &Store, since: Timestamp, path: String) -> Result<Option<BatchStatus>, Failed> {
    let Some(claim) = store::read_json::<Claim>(store, &path).await? else { return Ok(None) };
    let manifest: Option<Manifest> = store::read_json(store, &layout::manifest(&claim.batch_id)).await?;
    let progress = if manifest.is_none() { staged(store, &claim.batch_id).await } else { None };
    Ok(Some(BatchStatus {
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
    }))
}

/// Why each batch was given up of which a copy of a dead letter is kept, the latest copy of each.
async fn given_up(store: &Store) -> Result<BTreeMap<String, GivenUp>, Failed> {
    let mut objects: Vec<ObjectMeta> = Vec::new();
    for queue in [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER] {
        let prefix = Path::from(format!("{}/{queue}", layout::DEAD));
        objects.extend(store.list(Some(&prefix)).try_collect::<Vec<_>>().await?);
    }
    objects.sort_by_key(|object| std::cmp::Reverse(object.last_modified));
    let paths = objects.into_iter().take(COPIES_MAX).map(|object| object.location.to_string());
    let reading = stream::iter(paths).map(async |path| store::read_json::<Value>(store, &path).await.ok()?);
    let copies: Vec<Option<Value>> = reading.buffered(READS_AT_ONCE).collect().await;
    let mut given_up = BTreeMap::new();
    for copy in copies.iter().flatten().filter_map(GivenUp::read) {
        // A later publisher's conflict says nothing of the batch that has the id.
        if copy.reason != BATCH_ID_CONFLICT {
            given_up.entry(copy.batch_id.clone()).or_insert(copy);
        }
    }
    Ok(given_up)
}

/// What the workers between ingest and dataset wait for.
async fn waiting(store: &Store) -> Result<Vec<Waiting>, Failed> {
    let mut all = Vec::new();
    for worker in [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER] {
        all.extend(waiting::read(store, worker).await?);
    }
    Ok(all)
}
