//! Which parts of a batch are known to have arrived, what to look for next, and who announces the dataset.
//!
//! A batch is complete when its split and every chunk are staged. No process is told by the others what they staged;
//! each remembers what it staged or saw itself and *probes* the store for the rest, the lowest first, until one is not
//! there (whoever stages that one probes after it) or none is missing. What is staged stays until the manifest is
//! written, so nothing is probed for twice once found, and the last one to stage anything finds everything.
//!
//! ```text
//! split?  0 1 2 3 4 5 6 …            known: ■   unknown: □
//!   ■     ■ ■ □ ■ □ □ ■ …  probe 2 ─ there ─▶ probe 4, 5 ─ there ─▶ probe the next 4 … ─ absent ─▶ stop
//! ```

use common::message::BatchSplit;
use std::{collections::BTreeMap, sync::Arc};

/// Chunks per page of the bitmap.
const PAGE_CHUNKS: u64 = 4096;
const WORDS: usize = 64;

type Page = Box<[u64; WORDS]>;

/// What one process knows to be staged of one batch.
#[derive(Debug, Default)]
pub struct Arrivals {
    split: Option<Arc<BatchSplit>>,
    /// Every chunk below is known. One more than the largest chunk number must fit.
    first_unknown: u64,
    /// Known chunks from the page of `first_unknown` on.
    pages: BTreeMap<u64, Page>,
}

/// What to look for in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The splitter's account: nothing is complete without it.
    Split,
    /// These chunks, in rising order.
    Chunks(Vec<u32>),
    /// Nothing: the batch is complete.
    Complete(Arc<BatchSplit>),
}

impl Arrivals {
    /// The chunk is staged.
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

    /// The splitter's account is staged.
    pub fn insert_split(&mut self, split: BatchSplit) {
        self.split = Some(Arc::new(split));
    }

    /// What to look for next: the split first, then at most `width` of the lowest chunks that are not known.
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

    /// The splitter's account, where it is known.
    pub fn split(&self) -> Option<&BatchSplit> {
        self.split.as_deref()
    }

    /// Memory taken up, in bytes.
    pub fn bytes(&self) -> usize {
        let page = size_of::<[u64; WORDS]>() + 4 * size_of::<u64>();
        size_of::<Self>() + self.pages.len() * page + self.split.as_ref().map_or(0, |_| size_of::<BatchSplit>() + 256)
    }

    /// The first chunk at or above `from` that is not known.
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

/// How many chunks to probe for at once after a probe of `width` found all of its own. Doubling keeps the probes that
/// find nothing fewer than those that found something, plus one for each pass.
pub fn wider(width: u32, width_max: u32) -> u32 {
    width.saturating_mul(2).min(width_max).max(1)
}

/// The place of a message in its batch: the split before every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

impl Rank {
    /// Of the splitter's account.
    pub const SPLIT: Self = Self(0);

    /// Of a chunk.
    pub fn chunk(chunk: u32) -> Self {
        Self(u64::from(chunk) + 1)
    }
}

/// Which message of a finished batch this process announced the dataset with.
///
/// A message that finds the manifest written cannot tell whether it is a late duplicate, or the one whose announcement
/// was lost with the process that made it. If each announced, a batch published again would be announced once for each
/// of its chunks; if none did, the announcement could be lost. So it stays silent only where this process announced
/// with a message of lower rank. That one is confirmed, or delivered again and then silenced only by one of still lower
/// rank: ranks do not fall for ever, so some announcement is confirmed. Of n late duplicates in random order about ln n
/// announce; in the order of the batch, two.
#[derive(Debug, Default)]
pub struct Announced(Option<(Option<String>, Rank)>);

impl Announced {
    /// Whether the message of this rank must announce the manifest of this version (the store's tag for it).
    pub fn must_announce(&self, version: Option<&str>, rank: Rank) -> bool {
        match &self.0 {
            Some((announced, by)) => announced.as_deref() != version || rank <= *by,
            None => true,
        }
    }

    /// The message of this rank answers with the announcement.
    pub fn record(&mut self, version: Option<&str>, rank: Rank) {
        self.0 = Some((version.map(str::to_owned), rank));
    }
}

#[cfg(test)]
mod tests;
