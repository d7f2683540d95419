//! The merger: the enriched chunks of a batch in, one dataset out.
//!
//! Any number of merger processes work on the same batch, in any order, on anything that is delivered any number of
//! times. Each stages what it is given under a name that derives from it, and then looks whether the batch is complete.
//!
//! ```text
//! enriched-chunk ─▶ staging/<batch>/<split_id>/chunk-N ─┐           ┌─ absent: whoever stages it looks next
//! batch-split ────▶ staging/<batch>/<split_id>/split ───┴─▶ probe ──┤
//!                                                                   └─ complete ─▶ dataset/<batch>/part-… ─▶ manifest
//!                                                                                  ─▶ staging cleared ─▶ dataset-ready
//! ```
//!
//! * [`join`] (pure): rows, statistics, parts, the manifest;
//! * [`arrivals`] (pure): what is known, what to probe next, who announces;
//! * [`recent`] (pure): the bounded memory of batches;
//! * `dataset`: the objects in the store.
//!
//! **Why nothing is missed.** The store is strongly consistent and every message is probed for *after* it is staged and
//! before it is acknowledged. Of all the messages of a batch one is the last to be staged; its handler finds everything
//! there, or the manifest of a process that found it first. Should it die, the broker delivers its message again.
//!
//! **Why nothing is done twice that shows.** Whoever joins the batch reads the same staged bytes and writes the same
//! parts and the same manifest. Staging is cleared only once the manifest is there, so a probe that ends without a
//! manifest in the store looked at a whole staging area; one that finds the manifest has but to remove what it staged
//! too late. A process that was given up (suspended past its heartbeat, or with a request held back by a network) may
//! still write, but not where another splitting is joined: each splitting of a batch has a folder of its own, and its
//! `batch-split` message has the fingerprint of the chunks it sent. A sweep, at every connect and every hour, removes
//! what is staged beside a manifest. The announcement leaves after the manifest and before the acknowledgement; see
//! [`arrivals::Announced`] for who repeats it.

pub mod arrivals;
mod dataset;
pub mod join;
pub mod recent;

use arrivals::{Announced, Arrivals, Probe, Rank, wider};
use common::{
    dataset::PART_BYTES_MAX,
    envelope::Envelope,
    message::{self, BatchSplit, EnrichedChunk, Input, Kind, Message, Undecodable},
    outcome::{Failure, Outputs},
    topology::queue,
};
use object_store::ObjectMeta;
use recent::Recent;
use records::{Store, layout, store};
use runtime::{
    Worker,
    config::{self, Problem},
};
use serde::{Deserialize, Serialize};
use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

/// Section `merger` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Bytes of one dataset file at most. All mergers of a fleet must agree on it: the dataset depends on it.
    pub part_bytes_max: u64,
    /// Staged chunks read ahead of the one being joined.
    pub read_ahead: usize,
    /// Chunks probed for at once at most.
    pub probes_max: u32,
    /// Bytes of one request of an upload. Stores of the S3 kind take no less than 5 MiB.
    pub upload_bytes: usize,
    /// Bytes that may be spent on remembering which chunks are staged. With less, more is asked of the store.
    pub known_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            part_bytes_max: PART_BYTES_MAX,
            read_ahead: 8,
            probes_max: 32,
            upload_bytes: 8 * 1024 * 1024,
            known_bytes_max: 16 * 1024 * 1024,
        }
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = "merger";

    fn check(&self) -> Result<(), Problem> {
        if self.part_bytes_max == 0 {
            return Err(Problem::new("part_bytes_max", self.part_bytes_max, "at least 1 byte"));
        }
        if !(1..=256).contains(&self.read_ahead) {
            return Err(Problem::new("read_ahead", self.read_ahead, "1 to 256 chunks"));
        }
        if !(1..=256).contains(&self.probes_max) {
            return Err(Problem::new("probes_max", self.probes_max, "1 to 256 probes"));
        }
        if self.upload_bytes == 0 {
            return Err(Problem::new("upload_bytes", self.upload_bytes, "at least 1 byte, 5242880 for S3"));
        }
        Ok(())
    }
}

/// What the merger reads.
#[derive(Debug, Clone, PartialEq)]
pub enum MergerIn {
    /// Some of a batch's rides, with their weather.
    Chunk(EnrichedChunk),
    /// How many there are.
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

    fn rank(&self) -> Rank {
        match self {
            Self::Chunk(chunk) => Rank::chunk(chunk.chunk),
            Self::Split(_) => Rank::SPLIT,
        }
    }
}

/// The worker.
pub struct Merger {
    settings: Settings,
    store: Store,
    batches: Mutex<Recent<Arc<Batch>>>,
    /// One join at a time: each holds chunks read ahead and parts being uploaded, whatever the number of batches.
    joining: tokio::sync::Mutex<()>,
}

/// What this process remembers of one splitting of a batch. If it is forgotten, the store is probed again.
#[derive(Default)]
struct Batch {
    /// Whether no manifest was there when this process last looked.
    in_progress: AtomicBool,
    arrivals: Mutex<Arrivals>,
    /// Messages staged so far by this process.
    staged: AtomicU64,
    round: tokio::sync::Mutex<Round>,
}

/// One handler at a time looks whether the batch is complete, for all that staged something before it began to look.
#[derive(Default)]
struct Round {
    /// The messages up to this count of [`Batch::staged`] were looked after.
    covered: u64,
    announced: Announced,
}

impl Batch {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_arrivals(&self) {
        *self.arrivals() = Arrivals::default();
    }
}

impl Worker for Merger {
    const NAME: &'static str = queue::MERGER;
    type In = MergerIn;

    async fn handle(&self, envelope: Envelope<MergerIn>) -> Result<Outputs, Failure> {
        let input = envelope.payload;
        let key = layout::splitting(input.batch(), input.split_id());
        let batch = self.batches().get(&key);
        let outcome = self.take(&batch, &input).await;
        let bytes = 2 * key.len() + size_of::<Batch>() + batch.arrivals().bytes();
        self.batches().set_cost(&key, bytes);
        outcome
    }

    async fn tend(&self) -> Result<(), Failure> {
        dataset::sweep(&self.store).await
    }
}

impl Merger {
    /// A merger on this store.
    pub fn new(settings: Settings, store: Store) -> Self {
        let batches = Mutex::new(Recent::new(settings.known_bytes_max));
        Self { settings, store, batches, joining: tokio::sync::Mutex::default() }
    }

    fn batches(&self) -> MutexGuard<'_, Recent<Arc<Batch>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, batch: &Batch, input: &MergerIn) -> Result<Outputs, Failure> {
        if !batch.in_progress.load(SeqCst) {
            let mut round = batch.round.lock().await;
            if let ControlFlow::Break(outputs) = self.look_for_manifest(batch, &mut round, input).await? {
                return Ok(outputs);
            }
        }
        self.stage(batch, input).await?;
        let ticket = batch.staged.fetch_add(1, SeqCst) + 1;
        let mut round = batch.round.lock().await;
        if ticket <= round.covered && batch.in_progress.load(SeqCst) {
            return Ok(Outputs::none());
        }
        self.look(batch, &mut round, input).await
    }

    async fn stage(&self, batch: &Batch, input: &MergerIn) -> Result<(), Failure> {
        match input {
            MergerIn::Chunk(chunk) => {
                let chunks = batch.arrivals().split().map_or(u32::MAX, |split| split.chunks);
                if chunk.chunk >= chunks {
                    let why = format!(
                        "batch {} has {chunks} chunks, counted from 0; this is {}",
                        chunk.batch_id, chunk.chunk
                    );
                    return Err(Failure::permanent("chunk_beyond_split", why));
                }
                dataset::stage_chunk(&self.store, chunk).await?;
                batch.arrivals().insert(chunk.chunk);
            }
            MergerIn::Split(split) => {
                dataset::stage_split(&self.store, split).await?;
                batch.arrivals().insert_split(split.clone());
            }
        }
        Ok(())
    }

    /// Looks whether the batch is complete, and joins it if so.
    async fn look(&self, batch: &Batch, round: &mut Round, input: &MergerIn) -> Result<Outputs, Failure> {
        let covers = batch.staged.load(SeqCst);
        // What was remembered can be gone with a manifest that somebody removed since: then once more, from nothing.
        for _ in 0..2 {
            let complete = self.probe(batch, input).await?;
            if let ControlFlow::Break(outputs) = self.look_for_manifest(batch, round, input).await? {
                return Ok(outputs);
            }
            let Some(split) = complete else {
                round.covered = covers;
                return Ok(Outputs::none());
            };
            let joining = self.joining.lock().await;
            if !dataset::join(&self.store, &self.settings, &split).await? {
                batch.forget_arrivals();
            }
            drop(joining);
            if let ControlFlow::Break(outputs) = self.look_for_manifest(batch, round, input).await? {
                return Ok(outputs);
            }
        }
        Err(Failure::transient(format!("what was staged of batch {} disappears", input.batch())))
    }

    /// Looks for what is not known to be staged, the lowest first; the splitter's account when all is there.
    async fn probe(&self, batch: &Batch, input: &MergerIn) -> Result<Option<Arc<BatchSplit>>, Failure> {
        let (batch_id, split_id) = (input.batch(), input.split_id());
        let mut width = 1;
        loop {
            let probe = batch.arrivals().probe(width);
            match probe {
                Probe::Complete(split) => return Ok(Some(split)),
                Probe::Split => match store::read_json(&self.store, &layout::staged_split(batch_id, split_id)).await? {
                    Some(split) => batch.arrivals().insert_split(split),
                    None => return Ok(None),
                },
                Probe::Chunks(chunks) => {
                    let found = dataset::staged(&self.store, batch_id, split_id, chunks).await?;
                    let mut arrivals = batch.arrivals();
                    for &(chunk, _) in found.iter().filter(|(_, there)| *there) {
                        arrivals.insert(chunk);
                    }
                    if found.iter().any(|(_, there)| !there) {
                        return Ok(None);
                    }
                    width = wider(width, self.settings.probes_max);
                }
            }
        }
    }

    /// With the manifest there, the batch is finished and so is the message; else it goes on.
    async fn look_for_manifest(
        &self,
        batch: &Batch,
        round: &mut Round,
        input: &MergerIn,
    ) -> Result<ControlFlow<Outputs>, Failure> {
        match dataset::manifest(&self.store, input.batch()).await? {
            Some(manifest) => {
                batch.forget_arrivals();
                batch.in_progress.store(false, SeqCst);
                self.finished(round, input, &manifest).await.map(ControlFlow::Break)
            }
            None => {
                if !batch.in_progress.swap(true, SeqCst) {
                    batch.forget_arrivals();
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Clears away what is still staged, and announces the dataset where that may not have been done yet.
    async fn finished(&self, round: &mut Round, input: &MergerIn, found: &ObjectMeta) -> Result<Outputs, Failure> {
        let batch_id = input.batch();
        let version = found.e_tag.as_deref();
        if let MergerIn::Chunk(chunk) = input {
            dataset::clear_chunk(&self.store, chunk).await?;
        }
        dataset::clear(&self.store, batch_id, input.split_id()).await?;
        if !round.announced.must_announce(version, input.rank()) {
            return Ok(Outputs::none());
        }
        let path = layout::manifest(batch_id);
        let Some(bytes) = store::read(&self.store, &path).await? else {
            return Err(Failure::transient(format!("{path} was removed a moment ago")));
        };
        let manifest = join::read_manifest(batch_id, &bytes)?;
        if let MergerIn::Split(split) = input
            && !join::same_batch(&manifest, split)
        {
            return Err(dataset::conflict(split, &manifest.sha256));
        }
        let outputs = Outputs::one(&join::dataset_ready(&manifest, &bytes))?;
        round.announced.record(version, input.rank());
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests;
