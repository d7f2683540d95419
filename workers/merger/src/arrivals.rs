//! The chunks of a batch known to be staged, the next probe, and who announces the dataset. Pure.
//!
//! A batch is complete when its `batch-split` message and every chunk are staged. Processes do not talk to each other: each
//! records what it staged or found itself and *probes* the store for the rest, the lowest chunk first, until a chunk is absent
//! (whoever stages that one probes afterwards) or none is missing. Staged objects stay until the manifest is written, so no
//! chunk is probed for again once found, and the process that stages last finds all of them.
//!
//! ```text
//! split?  0 1 2 3 4 5 6 …            known: ■   unknown: □
//!   ■     ■ ■ □ ■ □ □ ■ …  probe 2 ─ found ─▶ probe 4, 5 ─ found ─▶ probe the next 4 … ─ absent ─▶ stop
//! ```

use common::message::BatchSplit;
use std::{collections::BTreeMap, sync::Arc};

/// Number of chunks per page of the bitmap.
const PAGE_CHUNKS: u64 = 4096;
const WORDS: usize = 64;

type Page = Box<[u64; WORDS]>;

/// The objects of one batch that one process knows to be staged.
#[derive(Debug, Default)]
pub struct Arrivals {
    split: Option<Arc<BatchSplit>>,
    /// Every chunk below this number is known. `u64`, because one more than the largest chunk number must fit.
    first_unknown: u64,
    /// Known chunks from the page of `first_unknown` on.
    pages: BTreeMap<u64, Page>,
}

/// The next objects to look for in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The `batch-split` message, which has the number of chunks.
    Split,
    /// These chunks, in ascending order.
    Chunks(Vec<u32>),
    /// None: the batch is complete.
    Complete(Arc<BatchSplit>),
}

impl Arrivals {
    /// Records that a chunk is staged.
    pub fn insert(&mut self, chunk: u32) {
        let chunk = u64::from(chunk);
        if chunk < self.first_unknown {
            return;
        }
        let page = self.pages.entry(chunk / PAGE_CHUNKS).or_insert_with(|| Box::new([0; WORDS]));
        page[word_of(chunk)] |= 1 << (chunk % 64);
        self.first_unknown = self.unknown_from(self.first_unknown);
        self.pages = self.pages.split_off(&(self.first_unknown / PAGE_CHUNKS));
    }

    /// Records that the `batch-split` message is staged.
    pub fn insert_split(&mut self, split: BatchSplit) {
        self.split = Some(Arc::new(split));
    }

    /// Returns the next probe: the `batch-split` message first, then at most `width` of the lowest unknown chunks.
    pub fn probe(&self, width: u32) -> Probe {
        let Some(split) = &self.split else { return Probe::Split };
        let mut chunks = Vec::new();
        let mut at = self.first_unknown;
        while chunks.len() < width.max(1) as usize {
            match u32::try_from(at) {
                Ok(chunk) if chunk < split.chunks => chunks.push(chunk),
                _ => break,
            }
            at = self.unknown_from(at + 1);
        }
        if chunks.is_empty() { Probe::Complete(Arc::clone(split)) } else { Probe::Chunks(chunks) }
    }

    /// Returns the `batch-split` message, if known.
    pub fn split(&self) -> Option<&BatchSplit> {
        self.split.as_deref()
    }

    /// Returns the memory in use, bytes.
    pub fn bytes(&self) -> usize {
        let page = size_of::<[u64; WORDS]>() + 4 * size_of::<u64>();
        size_of::<Self>() + self.pages.len() * page + self.split.as_ref().map_or(0, |_| size_of::<BatchSplit>() + 256)
    }

    /// Returns the first unknown chunk at or above `from`.
    fn unknown_from(&self, from: u64) -> u64 {
        let mut at = from;
        while let Some(page) = self.pages.get(&(at / PAGE_CHUNKS)) {
            let unknown = !page[word_of(at)] >> (at % 64);
            if unknown != 0 {
                return at + u64::from(unknown.trailing_zeros());
            }
            at = (at / 64 + 1) * 64;
        }
        at
    }
}

fn word_of(chunk: u64) -> usize {
    (chunk / 64) as usize % WORDS
}

/// Returns the width of the next probe after one of `width` found all its chunks. Doubling keeps the number of vain probes
/// below the number of successful ones plus one for each pass.
pub fn wider(width: u32, width_max: u32) -> u32 {
    width.saturating_mul(2).min(width_max).max(1)
}

/// The order of a message in its batch: the `batch-split` message precedes every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

impl Rank {
    /// Rank of the `batch-split` message.
    pub const SPLIT: Self = Self(0);

    /// Returns the rank of a chunk.
    pub fn chunk(chunk: u32) -> Self {
        Self(u64::from(chunk) + 1)
    }
}

/// The message of a finished batch with which this process announced the dataset.
///
/// The handler of a message that finds the manifest cannot know whether the message is a late duplicate, or the one whose
/// announcement was lost with its process. If every handler announced, a batch published again would be announced once per
/// chunk; if none did, the announcement could be lost. So a handler skips the announcement only if this process announced
/// with a message of lower rank. That message is confirmed, or it is delivered again and skips only for one of still lower
/// rank. Ranks cannot fall for ever, so some announcement is confirmed. Of n late duplicates in random order about ln n
/// announce; in the order of the batch, two.
#[derive(Debug, Default)]
pub struct Announced(Option<(Option<String>, Rank)>);

impl Announced {
    /// Returns whether the message of this rank must announce the manifest of this version (its etag).
    pub fn must_announce(&self, version: Option<&str>, rank: Rank) -> bool {
        self.0.as_ref().is_none_or(|(announced, by)| announced.as_deref() != version || rank <= *by)
    }

    /// Records that the message of this rank announces.
    pub fn record(&mut self, version: Option<&str>, rank: Rank) {
        self.0 = Some((version.map(str::to_owned), rank));
    }
}

#[cfg(test)]
mod tests;
