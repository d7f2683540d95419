//! The merger: joins the enriched chunks of a batch into one dataset.
//!
//! Any number of merger processes work on the same batch, on messages in any order that may be delivered repeatedly. Each
//! process stages its messages under names derived from their content, and then checks whether the batch is complete.
//!
//! ```text
//! enriched-chunk ─▶ staging/<batch>/<split_id>/chunk-N ─┐           ┌─ absent: whoever stages it probes next
//! batch-split ────▶ staging/<batch>/<split_id>/split ───┴─▶ probe ──┤
//!                                                                   └─ complete ─▶ dataset/<batch>/part-… ─▶ manifest
//!                                                                                  ─▶ staging cleared ─▶ dataset-ready
//! ```
//!
//! * [`join`] (pure): staged chunks, statistics, the manifest;
//! * [`arrivals`] (pure): the chunks known to be staged, the next probe, who announces;
//! * `dataset`: the objects in the store; `staged` reads the staged chunks;
//! * `revision`: what an attempt to join a batch again changes.
//!
//! **Why every complete batch is joined.** The store is strongly consistent, and each handler probes *after* it staged its
//! message and before it acknowledges it. One message of a batch is staged last. Its handler finds the whole batch staged, or
//! the manifest of a process that found it first. If the handler dies, the broker delivers its message again.
//!
//! **Why repeated work has no effect.** Every join of a batch reads the same staged bytes and writes the same parts and the
//! same manifest. Staging is cleared only after the manifest exists. So a probe that finds no manifest has seen the whole
//! staging area, and one that finds the manifest only removes its own late chunk. A process that lost its connection
//! (suspended past its heartbeat, or with a delayed request) may still write, but not into the join of another splitting:
//! each splitting of a batch has its own folder, and its `batch-split` message has the digest of its chunks. A sweep, at every
//! connect and every hour, removes what was staged for work that has ended. The announcement is published after the manifest is
//! written and before the acknowledgement; [`arrivals::Announced`] decides who repeats it.
//!
//! **Refreshes.** The messages of an attempt to join a batch again carry `refresh`, and its splittings have folders of their own.
//! The merger compares the staged chunks of the attempt with the base before it writes to the dataset. `records::refreshes` explains
//! why every revision has one content.

pub mod arrivals;
mod dataset;
pub mod join;
pub mod process;
mod revision;
mod settings;
mod staged;

pub use settings::Settings;

use arrivals::{Announced, Arrivals, Probe, Rank, wider};
use common::{
    envelope::Envelope,
    message::{self, BatchSplit, EnrichedChunk, Input, Kind, Message, Refresh, Undecodable, attempt_of_split},
    outcome::{Failure, Outputs},
    topology::process::MERGER,
};
use dataset::{Ended, Joined};
use parking_lot::Mutex;
use quick_cache::{Weighter, unsync::Cache};
use records::{Store, datasets, layout, staging, store};
use runtime::{Worker, trace::Causes};
use std::{
    convert::Infallible,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

/// The messages that the merger receives.
#[derive(Debug, Clone, PartialEq)]
pub enum MergerIn {
    /// Some of the rides of a batch, with weather.
    Chunk(EnrichedChunk),
    /// The summary of the batch, with its number of chunks.
    Split(BatchSplit),
}

impl Input for MergerIn {
    const KINDS: &'static [Kind] = &[EnrichedChunk::KIND, BatchSplit::KIND];

    fn decode(kind: Kind, body: &bytes::Bytes) -> Result<Self, Undecodable> {
        if kind == BatchSplit::KIND {
            message::decode(body).map(Self::Split)
        } else {
            message::decode(body).map(Self::Chunk)
        }
    }

    fn batch_id(&self) -> Option<&str> {
        Some(self.batch())
    }
}

impl MergerIn {
    fn batch(&self) -> &str {
        match self {
            Self::Chunk(chunk) => &chunk.batch_id,
            Self::Split(split) => &split.batch_id,
        }
    }

    fn split_id(&self) -> Option<&str> {
        match self {
            Self::Chunk(chunk) => chunk.split_id.as_deref(),
            Self::Split(split) => split.split_id.as_deref(),
        }
    }

    fn refresh(&self) -> Option<Refresh> {
        match self {
            Self::Chunk(chunk) => chunk.refresh,
            Self::Split(split) => split.refresh,
        }
    }

    /// Checks that the split id, which names the folder in the staging area, belongs to the attempt of the message.
    fn check_splitting(&self) -> Result<(), Failure> {
        let attempt = self.split_id().and_then(attempt_of_split);
        if attempt == self.refresh().map(|refresh| refresh.attempt) {
            return Ok(());
        }
        let why = format!("splitting {:?} of batch {} does not belong to the refresh", self.split_id(), self.batch());
        Err(Failure::permanent("foreign_splitting", why))
    }

    fn rank(&self) -> Rank {
        match self {
            Self::Chunk(chunk) => Rank::chunk(chunk.chunk),
            Self::Split(_) => Rank::SPLIT,
        }
    }
}

/// The merger as a worker.
pub struct Merger {
    settings: Settings,
    store: Store,
    /// The batches that this process has seen, by splitting.
    batches: Mutex<Cache<String, Known, Bytes>>,
    /// Allows one join at a time, which bounds the memory for chunks read ahead and parts being uploaded.
    joining: tokio::sync::Mutex<()>,
}

/// The state of one splitting of a batch in this process. If it is evicted, the store is probed again.
#[derive(Default)]
struct Batch {
    /// Whether the work was in progress at the last check.
    in_progress: AtomicBool,
    arrivals: Mutex<Arrivals>,
    /// Number of messages staged by this process.
    staged: AtomicU64,
    /// The messages handled by this process, for the links of the join's span.
    causes: Causes,
    round: tokio::sync::Mutex<Round>,
}

/// A batch in memory.
#[derive(Clone, Default)]
struct Known {
    batch: Arc<Batch>,
    /// Memory of [`Batch::arrivals`] and [`Batch::causes`] after the last message.
    bytes: usize,
}

/// Weighs a batch in memory, in bytes.
struct Bytes;

impl Weighter<String, Known> for Bytes {
    fn weight(&self, key: &String, known: &Known) -> u64 {
        (2 * key.len() + size_of::<Batch>() + known.bytes) as u64
    }
}

/// A check whether the batch is complete. One handler at a time performs it, for all handlers that staged before it began.
#[derive(Default)]
struct Round {
    /// The value of [`Batch::staged`] that the last check covers.
    covered: u64,
    announced: Announced,
}

impl Batch {
    fn reset_arrivals(&self) {
        *self.arrivals.lock() = Arrivals::default();
    }
}

impl Worker for Merger {
    const NAME: &'static str = MERGER.name;
    type In = MergerIn;
    const CONCURRENCY_REMOTE: u16 = 16;

    async fn handle(&self, envelope: Envelope<MergerIn>) -> Result<Outputs, Failure> {
        let input = envelope.payload;
        input.check_splitting()?;
        let key = layout::splitting(input.batch(), input.split_id());
        let batch = self.batch(&key);
        let outcome = self.process(&batch, &input).await;
        let bytes = batch.arrivals.lock().bytes() + batch.causes.bytes();
        self.batches.lock().insert(key, Known { batch, bytes });
        outcome
    }

    async fn tend(&self) -> Result<(), Failure> {
        dataset::sweep(&self.store).await
    }
}

impl Merger {
    /// Creates a merger on this store.
    pub fn new(settings: Settings, store: Store) -> Self {
        let settings = settings.on(store::is_remote(&store));
        let bytes_max = settings.known_bytes_max;
        let batches = Mutex::new(Cache::with_weighter(bytes_max / size_of::<Batch>(), bytes_max as u64, Bytes));
        Self { settings, store, batches, joining: tokio::sync::Mutex::default() }
    }

    /// Returns the state of a splitting, which handlers share while it is in memory.
    fn batch(&self, key: &str) -> Arc<Batch> {
        let new = Known::default();
        let mut batches = self.batches.lock();
        let Ok(known) = batches.get_or_insert_with(key, || Ok::<_, Infallible>(new.clone()));
        Arc::clone(&known.unwrap_or(&new).batch)
    }

    async fn process(&self, batch: &Batch, input: &MergerIn) -> Result<Outputs, Failure> {
        if !batch.in_progress.load(SeqCst) {
            let mut round = batch.round.lock().await;
            if let ControlFlow::Break(outputs) = self.check_ended(batch, &mut round, input).await? {
                return Ok(outputs);
            }
        }
        self.stage(batch, input).await?;
        batch.causes.note();
        let ticket = batch.staged.fetch_add(1, SeqCst) + 1;
        let mut round = batch.round.lock().await;
        if ticket <= round.covered && batch.in_progress.load(SeqCst) {
            return Ok(Outputs::none());
        }
        self.check_complete(batch, &mut round, input).await
    }

    async fn stage(&self, batch: &Batch, input: &MergerIn) -> Result<(), Failure> {
        match input {
            MergerIn::Chunk(chunk) => {
                let chunks = batch.arrivals.lock().split().map_or(u32::MAX, |split| split.chunks);
                if chunk.chunk >= chunks {
                    let why = format!(
                        "batch {} has {chunks} chunks, counted from 0; this is {}",
                        chunk.batch_id, chunk.chunk
                    );
                    return Err(Failure::permanent("chunk_beyond_split", why));
                }
                dataset::stage_chunk(&self.store, chunk).await?;
                batch.arrivals.lock().insert(chunk.chunk);
            }
            MergerIn::Split(split) => {
                dataset::stage_split(&self.store, split).await?;
                batch.arrivals.lock().insert_split(split.clone());
            }
        }
        Ok(())
    }

    /// Checks whether the batch is complete, and joins it if so.
    async fn check_complete(&self, batch: &Batch, round: &mut Round, input: &MergerIn) -> Result<Outputs, Failure> {
        let covers = batch.staged.load(SeqCst);
        // The known chunks may be gone with a manifest that was removed since. Then the second round starts from scratch.
        for _ in 0..2 {
            let complete = self.probe(batch, input).await?;
            if let ControlFlow::Break(outputs) = self.check_ended(batch, round, input).await? {
                return Ok(outputs);
            }
            let Some(split) = complete else {
                round.covered = covers;
                return Ok(Outputs::none());
            };
            let joining = self.joining.lock().await;
            batch.causes.link();
            let joined = dataset::join(&self.store, &self.settings, &split).await?;
            drop(joining);
            if joined == Joined::Gone {
                batch.reset_arrivals();
            }
            if let ControlFlow::Break(outputs) = self.check_ended(batch, round, input).await? {
                return Ok(outputs);
            }
        }
        Err(Failure::transient(format!("staged chunks of batch {} disappear", input.batch())))
    }

    /// Probes for chunks not known to be staged, the lowest first. Returns the `batch-split` message if all are staged.
    async fn probe(&self, batch: &Batch, input: &MergerIn) -> Result<Option<Arc<BatchSplit>>, Failure> {
        let (batch_id, split_id) = (input.batch(), input.split_id());
        let mut width = 1;
        loop {
            let probe = batch.arrivals.lock().probe(width);
            match probe {
                Probe::Complete(split) => return Ok(Some(split)),
                Probe::Split => match store::read_json(&self.store, &layout::staged_split(batch_id, split_id)).await? {
                    Some(split) => batch.arrivals.lock().insert_split(split),
                    None => return Ok(None),
                },
                Probe::Chunks(chunks) => {
                    let probed = dataset::staged(&self.store, batch_id, split_id, chunks).await?;
                    let mut arrivals = batch.arrivals.lock();
                    for &(chunk, _) in probed.iter().filter(|(_, is_staged)| *is_staged) {
                        arrivals.insert(chunk);
                    }
                    if probed.iter().any(|(_, is_staged)| !is_staged) {
                        return Ok(None);
                    }
                    width = wider(width, self.settings.probes_max);
                }
            }
        }
    }

    /// Checks whether the work that the message belongs to has ended. If so, finishes the message; otherwise processing continues.
    async fn check_ended(
        &self,
        batch: &Batch,
        round: &mut Round,
        input: &MergerIn,
    ) -> Result<ControlFlow<Outputs>, Failure> {
        match dataset::ended(&self.store, input.batch(), input.refresh()).await? {
            Some(ended) => {
                batch.reset_arrivals();
                batch.in_progress.store(false, SeqCst);
                self.finish(round, input, ended).await.map(ControlFlow::Break)
            }
            None => {
                if !batch.in_progress.swap(true, SeqCst) {
                    batch.reset_arrivals();
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Clears the staging area, and announces a new revision unless this process has done so already.
    async fn finish(&self, round: &mut Round, input: &MergerIn, ended: Ended) -> Result<Outputs, Failure> {
        let batch_id = input.batch();
        if let MergerIn::Chunk(chunk) = input {
            dataset::clear_chunk(&self.store, chunk).await?;
        }
        staging::clear(&self.store, batch_id, input.split_id()).await?;
        let Ended::Revision { revision, version } = ended else { return Ok(Outputs::none()) };
        let version = version.as_deref();
        if !round.announced.must_announce(version, input.rank()) {
            return Ok(Outputs::none());
        }
        let Some(stored) = datasets::revision(&self.store, batch_id, revision).await? else {
            let path = layout::manifest(batch_id, revision);
            return Err(Failure::transient(format!("{path} was removed during the announcement")));
        };
        if let MergerIn::Split(split) = input
            && !join::same_batch(&stored.manifest, split)
        {
            return Err(dataset::conflict(split, &stored.manifest.sha256));
        }
        let outputs = Outputs::one(&stored.announcement())?;
        round.announced.record(version, input.rank());
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests;
