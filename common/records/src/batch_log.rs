//! The batch log: the ids of all batches in order of arrival. It shows the newest batches without listing the store, at
//! the same cost for a hundred batches as for a million.
//!
//! ```text
//! batch-log/0000000001   a batch id, created once (PutMode::Create); entry n is created only after entry n-1
//! batch-log/0000000002   …
//! batch-log/earlier.txt  the ids of the batches older than the log, oldest first; read backwards, a range at a time
//! ```
//!
//! *Writers.* The gateway appends an entry before it publishes an upload; the splitter appends one before it claims a
//! batch whose upload has no entry. The record of the upload and the claim keep the entry's number (`listed`). A
//! process that stops in between leaves an entry that neither of them names; readers skip it.
//!
//! *Position of a batch.* A batch is listed at the entry that its claim names, or else at the one that its upload names
//! ([`place`]). If that entry does not hold the batch's id, or neither names one, the batch is listed at its line of
//! `earlier.txt`. So each batch is listed once and keeps its position: the claim takes over the entry of the upload.
//!
//! *Repair.* Only listings depend on the log. To rebuild it, stop all splitters and gateways and move the folder
//! `batch-log/` away. The next process that uses the log lists all batches in a new `earlier.txt`. The claims of these
//! batches still name entries of the old log; readers ignore such an entry, because it does not hold the batch's id.
//!
//! The newest entry is found by probing: in doubling steps from the last known entry, then between the last entry found
//! and the first one missing. No step lists objects.

mod earlier;
mod page;
#[cfg(test)]
mod tests;

pub use earlier::Built;
pub use page::{Cursor, InvalidCursor, Limits, Page, Seen};

use super::{Store, store};
use crate::layout;
use bytes::Bytes;
use common::{dataset::Claim, message::check_batch_id, outcome::Failure};
use futures::future::try_join_all;
use serde::Deserialize;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};
use tokio::sync::Mutex;

/// Entries probed at the same time.
const PROBES: u32 = 8;

/// A handle to the batch log of a store. Clones share their state.
#[derive(Debug, Clone)]
pub struct BatchLog {
    store: Store,
    /// Number of the newest entry seen so far; 0 if none.
    seen: Arc<AtomicU64>,
    /// The list of earlier batches, if it could not be written to the store.
    unwritten: Arc<Mutex<Option<Bytes>>>,
}

/// Number of a batch's entry: the one in its claim, or else the one in the record of its upload.
pub(crate) fn place(claim: Option<&Claim>, uploaded: Option<u64>) -> Option<u64> {
    claim.and_then(|claim| claim.listed).or(uploaded)
}

impl BatchLog {
    /// Returns a handle to the batch log of `store`; reads nothing yet.
    pub fn new(store: Store) -> Self {
        Self { store, seen: Arc::default(), unwritten: Arc::default() }
    }

    /// Returns the number of the entry for a batch that is about to be claimed: that of its upload, or else a new one.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read or written.
    pub async fn enter(&self, batch_id: &str) -> Result<u64, Failure> {
        match uploaded(&self.store, batch_id).await? {
            Some(number) if self.holds(number, batch_id).await? => Ok(number),
            _ => self.append(batch_id).await,
        }
    }

    /// Appends a batch; returns the number of its entry.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read or written. The entry may have been written nevertheless.
    pub async fn append(&self, batch_id: &str) -> Result<u64, Failure> {
        let mut last = self.last_seen().await?;
        if last == 0 {
            self.write_earlier().await?;
            last = self.last_from(0).await?;
        }
        loop {
            let number = last + 1;
            if store::create(&self.store, &layout::batch_log_entry(number), batch_id.to_owned()).await? {
                self.seen.fetch_max(number, SeqCst);
                return Ok(number);
            }
            last = self.last_from(number).await?;
        }
    }

    /// Returns the number of the newest entry; 0 if the log has no entries.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read.
    pub async fn newest(&self) -> Result<u64, Failure> {
        let last = self.last_seen().await?;
        self.last_from(last).await
    }

    /// Returns whether entry `number` holds `batch_id`.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read.
    pub async fn holds(&self, number: u64, batch_id: &str) -> Result<bool, Failure> {
        Ok(self.entry(number).await?.as_deref() == Some(batch_id))
    }

    /// Reads the batch id of an entry; `None` if the entry is missing or does not hold a valid id.
    async fn entry(&self, number: u64) -> Result<Option<String>, Failure> {
        let bytes = store::read(&self.store, &layout::batch_log_entry(number)).await?;
        Ok(bytes.and_then(|bytes| batch_id(&bytes)))
    }

    /// Number of the newest entry seen so far; 0 if it no longer exists, because the log was deleted to be rebuilt.
    async fn last_seen(&self) -> Result<u64, Failure> {
        let seen = self.seen.load(SeqCst);
        if seen == 0 || self.entry_exists(seen).await? {
            return Ok(seen);
        }
        let _ = self.seen.compare_exchange(seen, 0, SeqCst, SeqCst);
        Ok(0)
    }

    /// Returns the newest entry, starting from entry `known`, which exists or is 0.
    async fn last_from(&self, known: u64) -> Result<u64, Failure> {
        let last = if self.entry_exists(known + 1).await? { self.search(known + 1).await? } else { known };
        self.seen.fetch_max(last, SeqCst);
        Ok(last)
    }

    /// Returns the newest entry, starting from one that exists: in doubling steps, then within the last step.
    async fn search(&self, mut known: u64) -> Result<u64, Failure> {
        let mut step = 1;
        let mut missing = loop {
            let probes: Vec<u64> = (0..PROBES).map(|doublings| known + (step << doublings)).collect();
            let (last, missing) = self.probe(&probes).await?;
            known = last.unwrap_or(known);
            if let Some(missing) = missing {
                break missing;
            }
            step <<= PROBES;
        };
        while missing - known > 1 {
            let steps = (missing - known).min(u64::from(PROBES) + 1);
            let probes: Vec<u64> = (1..steps).map(|step| known + (missing - known) * step / steps).collect();
            let (last, first_missing) = self.probe(&probes).await?;
            (known, missing) = (last.unwrap_or(known), first_missing.unwrap_or(missing));
        }
        Ok(known)
    }

    /// Returns the last of the ascending `numbers` before the first missing entry, and the number of that missing
    /// entry.
    async fn probe(&self, numbers: &[u64]) -> Result<(Option<u64>, Option<u64>), Failure> {
        let exist = try_join_all(numbers.iter().map(|&number| self.entry_exists(number))).await?;
        let count = exist.iter().take_while(|exists| **exists).count();
        Ok((count.checked_sub(1).map(|last| numbers[last]), numbers.get(count).copied()))
    }

    async fn entry_exists(&self, number: u64) -> Result<bool, Failure> {
        store::exists(&self.store, &layout::batch_log_entry(number)).await
    }
}

/// Reads the entry number in the record of an upload; `None` if there is no record, or no number in it.
async fn uploaded(store: &Store, batch_id: &str) -> Result<Option<u64>, Failure> {
    #[derive(Deserialize)]
    struct Record {
        listed: Option<u64>,
    }
    let record = store::read(store, &layout::upload(batch_id)).await?;
    // The gateway, which writes these records, reports one that cannot be decoded.
    Ok(record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok()?.listed))
}

/// Parses an entry or a line as a batch id; `None` if it is not a valid one.
fn batch_id(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?;
    check_batch_id("batch_id", text).ok().map(|()| text.to_owned())
}
