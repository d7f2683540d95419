//! Reads the state of each batch from the store and from dead letters.

use super::table::{QueueStatus, STAGES, header, pause_text, row};
use crate::session::Failed;
use common::{
    dataset::Manifest,
    dead_letter::{BATCH_ID_CONFLICT, GivenUp, Letter, is_about},
    message::{WorkerControl, check_batch_id},
    outcome::Failure,
    topology::queue,
    waiting::Waiting,
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use records::{
    Store,
    batch_log::{BatchLog, Built, Limits, Seen},
    batches::{self, State},
    control, layout, staging,
    store::{self, Listed},
};
use runtime::host;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Maximum number of copies of dead letters to read, the newest first.
const COPIES_MAX: usize = 500;
/// Maximum number of entries of the batch log to read per batch shown: some entries have no batch.
const ENTRIES_PER_BATCH: usize = 10;
/// From this number of batches on, listing all of them takes seconds.
const MANY: usize = 10_000;
/// Maximum number of pages to read for the newest batches.
const PAGES_MAX: usize = 100;
/// Maximum number of objects read at the same time.
const READS_AT_ONCE: usize = 16;

/// One batch.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
pub(super) struct BatchStatus {
    pub(super) batch_id: String,
    #[serde(serialize_with = "as_name")]
    pub(super) state: State,
    /// When it was first split, by the store's clock; if it was never split, when its message became a dead letter.
    #[serde(serialize_with = "as_text")]
    pub(super) since: Timestamp,
    source: Option<String>,
    /// Absent if the batch was never split.
    sha256: Option<String>,
    chunk_size: Option<u32>,
    pub(super) staged_rides: Option<u64>,
    pub(super) accepted: Option<u64>,
    /// Why it is refused or dropped, or what it waits for.
    pub(super) why: Option<String>,
    /// Manifest of its dataset, if it is ready.
    pub(super) manifest: Option<Manifest>,
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&at.strftime("%FT%TZ"))
}

/// Returns the name of a state.
fn name(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Queued => "queued",
        State::InProgress => "in progress",
        State::Ready => "ready",
        State::Refused => "refused",
        State::Dropped => "dropped",
    }
}

fn as_name<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name(*state))
}

/// Which batches to show.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    /// At most this many of the newest, and older ones that are in progress or refused.
    Newest(usize),
    /// All that have a claim.
    All,
    /// The batch with this id.
    One(&'a str),
}

/// The batches of the store.
#[derive(Default)]
pub(super) struct Listing {
    /// Sorted by time.
    pub(super) batches: Vec<BatchStatus>,
    /// What was not read of the store, and what workers wait for that no listed batch shows.
    pub(super) notes: Vec<String>,
    /// Ids of the listed batches that are older than the requested newest ones.
    older: BTreeSet<String>,
}

impl Listing {
    /// Removes the older batches that are ready.
    pub(super) fn leave_out_older_ready(&mut self) {
        self.batches.retain(|batch| batch.state != State::Ready || !self.older.contains(&batch.batch_id));
    }
}

/// Reads batches of the store, newest last. `named` are ids of batches to include however old they are.
pub(super) async fn shown(
    store: &Store,
    which: Which<'_>,
    named: &[&str],
    paused: &[WorkerControl],
) -> Result<Listing, Failed> {
    list(store, which, named, paused, COPIES_MAX).await
}

/// As [`shown`], but reads at most `copies_max` copies of dead letters.
pub(super) async fn list(
    store: &Store,
    which: Which<'_>,
    named: &[&str],
    paused: &[WorkerControl],
    copies_max: usize,
) -> Result<Listing, Failed> {
    let ((mut given_up, copies_note), waiting) = (given_up(store, copies_max).await?, waiting(store).await?);
    let (mut batches, older, log_notes) = match which {
        Which::Newest(limit) => {
            let named = named.iter().map(|&id| id.to_owned()).chain(given_up.keys().cloned());
            newest(store, limit, named.collect()).await?
        }
        Which::All => (look_at(store, batches::claimed_ids(store).await?).await?, BTreeSet::new(), Vec::new()),
        Which::One(id) => (look_at(store, [id.to_owned()]).await?, BTreeSet::new(), Vec::new()),
    };
    let batch = match which {
        Which::One(id) => Some(id),
        Which::Newest(_) | Which::All => None,
    };
    for status in &mut batches {
        let copy = given_up.remove(&status.batch_id);
        if status.state == State::Ready {
            continue;
        }
        match copy {
            // Unless the message was published again and succeeded: then its result is staged.
            Some((_, copy)) if !staging::has(store, &copy.batch_id, copy.chunk).await? => {
                status.give_up(letter(&copy), &copy.queue, &copy.reason, &copy.why);
            }
            Some(_) | None => status.why = status.cause(&waiting, paused),
        }
    }
    // Refused before they were split: only the copy of their dead letter exists.
    let never_split = given_up.into_values().filter(|(_, copy)| batch.is_none_or(|batch| batch == copy.batch_id));
    batches.extend(never_split.map(|(at, copy)| BatchStatus::never_split(at, copy)));
    batches.sort_by(|a, b| (a.since, &a.batch_id).cmp(&(b.since, &b.batch_id)));
    // A batch that was not split yet is not listed.
    let unlisted = waiting.iter().filter(|one| {
        let shown = |of: &BatchStatus| of.why.as_ref().is_some_and(|why| why.contains(&one.why));
        batch.is_none() && one.attempt.is_none() && !batches.iter().any(shown)
    });
    let notes = log_notes.into_iter().chain(copies_note).chain(unlisted.map(wait_text)).collect();
    Ok(Listing { batches, notes, older })
}

/// Returns what the copy of a dead letter says about it.
fn letter(copy: &GivenUp) -> batches::Letter {
    if copy.dropped { batches::Letter::Dropped } else { batches::Letter::Kept }
}

fn refusal(queue: &str, reason: &str, why: &str) -> String {
    format!("by the {queue}: {reason}: {why}")
}

/// Marks the batches that dead letters are about as refused, each with its first letter. Returns the letters of batches
/// that the store does not know, and those of messages that used the id of another batch.
pub(super) fn merge(batches: &mut [BatchStatus], letters: Vec<Letter>) -> Vec<Letter> {
    let (mut others, mut marked) = (Vec::new(), BTreeSet::new());
    for letter in letters {
        let of_batch = |status: &&mut BatchStatus| Some(status.batch_id.as_str()) == letter.batch_id.as_deref();
        match batches.iter_mut().find(of_batch) {
            Some(status)
                if status
                    .sha256
                    .as_deref()
                    .is_none_or(|claimed| is_about(&letter.reason, letter.sha256.as_deref(), claimed)) =>
            {
                // The letter of a batch with a complete dataset does not change the batch's state.
                if status.state != State::Ready && marked.insert(status.batch_id.clone()) {
                    status.give_up(batches::Letter::Kept, &letter.queue, &letter.reason, &letter.why);
                }
            }
            Some(_) | None => others.push(letter),
        }
    }
    others
}

/// Names a queue that no process reads as the cause of a wait, where no other cause is known.
pub(super) fn without_reader(batches: &mut [BatchStatus], queues: &[QueueStatus]) {
    for status in batches.iter_mut().filter(|status| status.state == State::InProgress && status.why.is_none()) {
        let unread = |queue: &&QueueStatus| status.needs(&queue.queue) && queue.messages > 0 && queue.consumers == 0;
        status.why = queues.iter().find(unread).map(|queue| {
            format!("no process reads the queue {}, in which {} messages wait", queue.queue, queue.messages)
        });
    }
}

/// Formats a table of batches, and of letters about batches that the store does not know, newest last.
pub(super) fn table(batches: &[BatchStatus], refused: &[Letter]) -> Vec<String> {
    let line = |letter: &Letter| {
        let Letter { batch_id, queue, reason, why, dead_at, .. } = letter;
        let batch_id = batch_id.as_deref().unwrap_or("(no batch id)");
        (*dead_at, row(batch_id, &time_text(*dead_at), name(State::Refused), &refusal(queue, reason, why)))
    };
    let mut rows: Vec<(Option<Timestamp>, String)> =
        batches.iter().map(|batch| (Some(batch.since), batch.line())).collect();
    rows.extend(refused.iter().map(line));
    if rows.is_empty() {
        return Vec::new();
    }
    rows.sort();
    [header()].into_iter().chain(rows.into_iter().map(|(_, line)| line)).collect()
}

/// Formats a time to the second; `-` if it is unknown.
fn time_text(at: Option<Timestamp>) -> String {
    at.map_or("-".to_owned(), |at| at.strftime("%FT%TZ").to_string())
}

impl BatchStatus {
    /// `copied_at`: when the copy was made, for a letter without a time.
    fn never_split(copied_at: Timestamp, copy: GivenUp) -> Self {
        Self {
            state: State::Unknown.after(letter(&copy)),
            since: copy.dead_at.unwrap_or(copied_at),
            why: Some(refusal(&copy.queue, &copy.reason, &copy.why)),
            batch_id: copy.batch_id,
            source: None,
            sha256: None,
            chunk_size: None,
            staged_rides: None,
            accepted: None,
            manifest: None,
        }
    }

    /// Records a dead letter of a batch without a complete dataset.
    fn give_up(&mut self, letter: batches::Letter, queue: &str, reason: &str, why: &str) {
        (self.state, self.why) = (self.state.after(letter), Some(refusal(queue, reason, why)));
    }

    pub(super) fn line(&self) -> String {
        let joined = || {
            let of = self.accepted.map_or("an unknown number".to_owned(), |total| total.to_string());
            format!("{} of {of} rides joined", self.staged_rides.unwrap_or(0))
        };
        let what = match (&self.manifest, &self.why) {
            (Some(manifest), _) => outcome(manifest),
            (None, Some(why)) if self.sha256.is_none() => why.clone(),
            (None, Some(why)) => format!("{}; {why}", joined()),
            (None, None) => joined(),
        };
        let source = self.source.as_deref().unwrap_or_default();
        row(&self.batch_id, &time_text(Some(self.since)), name(self.state), &format!("{what}   {source}"))
    }

    /// Returns whether the batch may still need messages of this worker.
    fn needs(&self, worker: &str) -> bool {
        let left = match (self.accepted, self.staged_rides) {
            (None, _) => &STAGES[..],
            (Some(total), Some(staged)) if staged >= total => &STAGES[2..],
            (Some(_), _) => &STAGES[1..],
        };
        left.contains(&worker)
    }

    /// Returns what it waits for: a recorded cause of its own, else an outage that every batch shares, else a paused worker.
    pub(super) fn cause(&self, waiting: &[Waiting], paused: &[WorkerControl]) -> Option<String> {
        let own = |one: &&Waiting| one.batch_id.as_deref() == Some(self.batch_id.as_str());
        // The record of an outage names the last affected batch, but the outage delays every batch of that worker.
        let shared = |one: &&Waiting| self.needs(&one.worker) && (one.batch_id.is_none() || one.outages > 0);
        let recorded = waiting.iter().find(own).or_else(|| waiting.iter().find(shared));
        recorded.map(wait_text).or_else(|| paused.iter().find(|control| self.needs(&control.worker)).map(pause_text))
    }
}

/// Describes a wait: worker, time and cause.
fn wait_text(Waiting { worker, since, why, .. }: &Waiting) -> String {
    format!("{worker} waits since {since}: {why}")
}

/// Describes the outcome of a batch with a complete dataset.
pub(super) fn outcome(manifest: &Manifest) -> String {
    let Manifest { received, rejected, trainable, accepted, .. } = manifest;
    match (received, accepted) {
        (0, _) => "0 rides: the batch contains no ride".to_owned(),
        (_, 0) => {
            let commonest = manifest.rejected_by_reason.iter().max_by_key(|(_, count)| **count);
            let commonest = commonest.map(|(reason, count)| format!(", {count} of them for {reason}"));
            let rejected_rides = layout::rejected(&manifest.batch_id);
            format!("0 rides: all {received} were rejected{}, see {rejected_rides}", commonest.unwrap_or_default())
        }
        _ => {
            let revision = manifest.revision.map_or_else(String::new, |revision| format!(", revision {revision}"));
            let expected = match manifest.not_yet_published() {
                0 => String::new(),
                rides => format!(", {rides} wait for weather to be published"),
            };
            format!("{received} received, {rejected} rejected, {trainable} trainable{revision}{expected}")
        }
    }
}

/// Builds the batch log's list of earlier batches if it is missing, and reports it, since that can take long.
pub(super) async fn prepare(store: &Store) -> Result<(), Failed> {
    if let Some(Built { batches, unwritten: None }) = BatchLog::new(Arc::clone(store)).prepare().await? {
        eprintln!("listed {batches} batches once, for the batch log");
    }
    Ok(())
}

/// Reads the newest batches, and older ones that are in `named` or have staged chunks. Returns them all, the ids of the
/// older ones, and notes for a person.
async fn newest(
    store: &Store,
    limit: usize,
    named: BTreeSet<String>,
) -> Result<(Vec<BatchStatus>, BTreeSet<String>, Vec<String>), Failed> {
    let log = BatchLog::new(Arc::clone(store));
    let mut notes = Vec::new();
    if let Some(batches) = log.prepare_unwritten().await?.filter(|batches| *batches >= MANY) {
        notes.push(format!(
            "all {batches} batches were listed, which takes long if there are many: a gateway or a splitter of this version writes \
             the list once, and so does `wildrydes status` as the user who owns the store"
        ));
    }
    let look = |id: String| {
        let store = Arc::clone(store);
        async move { look(&store, &id).await }
    };
    let (mut batches, mut next, mut pages) = (Vec::new(), None, 0);
    // A page can be empty: entries of batches that were never split show nothing.
    while pages == 0 || (next.is_some() && batches.len() < limit && pages < PAGES_MAX) {
        let left = limit - batches.len();
        let limits = Limits { batches: left, looks: limit.saturating_mul(ENTRIES_PER_BATCH) };
        let page = log.page(next, limits, look).await?;
        batches.extend(page.batches);
        (next, pages) = (page.next, pages + 1);
    }
    if next.is_some() {
        notes.push(older_note(batches.len()));
    }
    let mut older = named;
    older.extend(staging::batches(store).await?);
    for batch in &batches {
        older.remove(&batch.batch_id);
    }
    older.retain(|id| check_batch_id("batch_id", id).is_ok());
    batches.extend(look_at(store, older.iter().cloned()).await?);
    Ok((batches, older, notes))
}

/// Returns a note that only the newest batches are shown.
fn older_note(shown: usize) -> String {
    format!(
        "only the newest {shown} batches are shown, and older ones that are refused or have staged chunks: --limit N shows more, --all shows all"
    )
}

/// Cuts a time to whole seconds, as it is shown: batches of one second are sorted by id.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or_default()
}

/// Reads the batches with these ids; skips those without a claim.
async fn look_at(store: &Store, ids: impl IntoIterator<Item = String>) -> Result<Vec<BatchStatus>, Failed> {
    let looking = stream::iter(ids).map(|id| async move { look(store, &id).await });
    let found: Vec<Option<Seen<BatchStatus>>> = looking.buffered(READS_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().map(|seen| seen.batch).collect())
}

/// Reads a batch; `None` if it has no claim.
async fn look(store: &Store, batch_id: &str) -> Result<Option<Seen<BatchStatus>>, Failure> {
    let records = batches::read(store, batch_id).await?;
    // Without its progress, the batch is shown all the same.
    let progress = records.progress(store).await.unwrap_or_default();
    let (state, listed) = (records.state(None), records.listed());
    let Some((claim, claimed_at)) = records.claim.zip(records.claimed_at) else { return Ok(None) };
    let manifest = records.dataset.map(|dataset| dataset.manifest);
    let batch = BatchStatus {
        state,
        since: seconds(claimed_at),
        staged_rides: progress.map(|progress| progress.rides),
        accepted: manifest.as_ref().map(|m| m.accepted).or(progress.and_then(|progress| progress.total)),
        batch_id: claim.batch_id,
        source: claim.source,
        sha256: Some(claim.sha256),
        chunk_size: Some(claim.chunk_size),
        why: None,
        manifest,
    };
    Ok(Some(Seen { batch, listed }))
}

/// Reads the copies of dead letters: for each batch the latest copy, with the time when it was made. Also returns a note if
/// not all copies were read.
async fn given_up(
    store: &Store,
    copies_max: usize,
) -> Result<(BTreeMap<String, (Timestamp, GivenUp)>, Option<String>), Failed> {
    let mut copies: Vec<Listed> = Vec::new();
    for queue in STAGES {
        copies.extend(store::list(store, &layout::dropped_from(queue)).try_collect::<Vec<_>>().await?);
    }
    let total = copies.len();
    let folder = layout::DEAD;
    let note = (total > copies_max).then(|| {
        format!(
            "only the newest {copies_max} of the {total} copies of dead letters below {folder}/ are read: a batch of an older one \
             is not shown as dropped or refused"
        )
    });
    copies.sort_by_key(|copy| std::cmp::Reverse(copy.written_at));
    let reading = stream::iter(copies.into_iter().take(copies_max)).map(async |Listed { path, written_at, .. }| {
        let copy = store::read_json::<Value>(store, &path).await.ok()??;
        Some((seconds(written_at), GivenUp::read(&copy)?))
    });
    let read: Vec<Option<(Timestamp, GivenUp)>> = reading.buffered(READS_AT_ONCE).collect().await;
    let mut given_up = BTreeMap::new();
    for (at, copy) in read.into_iter().flatten().filter(|(_, copy)| copy.reason != BATCH_ID_CONFLICT) {
        given_up.entry(copy.batch_id.clone()).or_insert((at, copy));
    }
    Ok((given_up, note))
}

/// Reads what the workers wait for.
async fn waiting(store: &Store) -> Result<Vec<Waiting>, Failed> {
    let mut all = Vec::new();
    for worker in queue::ALL {
        all.extend(control::wait(store, worker, host::now()).await?);
    }
    Ok(all)
}
