//! The log of batches: their ids in the order in which they came, so that the newest are found without a listing, whether
//! the store has a hundred batches or a million.
//!
//! ```text
//! batch-log/0000000001   a batch id, written once (PutMode::Create), entry n only where entry n-1 is
//! batch-log/0000000002   …
//! batch-log/earlier.txt  the ids that were there before the log, oldest first; read backwards, piece by piece
//! ```
//!
//! *Who writes.* The gateway appends an entry before it publishes an upload, the splitter before it claims a batch that no
//! upload has an entry for. The record of the upload and the claim name the entry (`listed`). Whoever breaks off in between
//! leaves an entry that nothing names, which readers skip.
//!
//! *Where a batch is shown.* At the entry that its claim names, else at the one that its upload names ([`place`]); at its line
//! of the earlier batches if that entry does not hold its id, or none is named. So each batch is shown once, and a batch
//! stays where it is: the claim takes the entry of the upload over.
//!
//! *Repair.* Nothing but listings depends on the log. If the folder `batch-log/` is gone, whoever needs the log next builds it
//! anew: all batches are then earlier ones, and the entries that their claims name do not hold their ids. Move the folder away
//! while no splitter and no gateway is running, then remove it.
//!
//! The newest entry is found by probing: from the last known one, else at the powers of two, then between the last that is there
//! and the first that is missing. No step lists objects.

mod earlier;
mod page;
#[cfg(test)]
mod tests;

pub use earlier::Built;
pub use page::{Cursor, InvalidCursor, Limits, Page, Seen};

use super::{Store, store};
use crate::contract::{dataset::Claim, layout, message::check_batch_id, outcome::Failure};
use bytes::Bytes;
use futures::future::try_join_all;
use serde::Deserialize;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};
use tokio::sync::Mutex;

/// Entries that are looked for at the same time.
const PROBES: u32 = 8;

/// A handle to the log of a store. Clones share what they know.
#[derive(Debug, Clone)]
pub struct BatchLog {
    store: Store,
    /// The last entry that was seen; 0 before one was.
    seen: Arc<AtomicU64>,
    /// The earlier batches, where they cannot be written to the store.
    unwritten: Arc<Mutex<Option<Bytes>>>,
}

/// The entry that stands for a batch: the one that its claim names, else the one that its upload names.
pub fn place(claim: Option<&Claim>, uploaded: Option<u64>) -> Option<u64> {
    claim.and_then(|claim| claim.listed).or(uploaded)
}

impl BatchLog {
    /// The log of that store. Nothing is read yet.
    pub fn new(store: Store) -> Self {
        Self { store, seen: Arc::default(), unwritten: Arc::default() }
    }

    /// The entry for a batch that is about to be claimed: that of its upload, else a new one.
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
    /// Fails with an outage if the store cannot be read or written. The entry may be there all the same.
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

    /// The number of the newest entry; 0 if there is none.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read.
    pub async fn newest(&self) -> Result<u64, Failure> {
        let last = self.last_seen().await?;
        self.last_from(last).await
    }

    /// Whether an entry is that of this batch.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read.
    pub async fn holds(&self, number: u64, batch_id: &str) -> Result<bool, Failure> {
        Ok(self.entry(number).await?.as_deref() == Some(batch_id))
    }

    /// The batch id in an entry; `None` if there is no such entry or no batch id in it.
    async fn entry(&self, number: u64) -> Result<Option<String>, Failure> {
        let found = store::read(&self.store, &layout::batch_log_entry(number)).await?;
        Ok(found.and_then(|bytes| batch_id(&bytes)))
    }

    /// The last entry that was seen; 0 if it is not there any more, since the log was removed to be built anew.
    async fn last_seen(&self) -> Result<u64, Failure> {
        let seen = self.seen.load(SeqCst);
        if seen == 0 || self.is_there(seen).await? {
            return Ok(seen);
        }
        let _ = self.seen.compare_exchange(seen, 0, SeqCst, SeqCst);
        Ok(0)
    }

    /// The last entry, from one that is there, or from 0.
    async fn last_from(&self, there: u64) -> Result<u64, Failure> {
        let last = match self.is_there(there + 1).await? {
            true => self.search(there + 1).await?,
            false => there,
        };
        self.seen.fetch_max(last, SeqCst);
        Ok(last)
    }

    /// The last entry, from one that is there: ever larger steps, then the space between.
    async fn search(&self, mut there: u64) -> Result<u64, Failure> {
        let mut step = 1;
        let mut missing = loop {
            let probes: Vec<u64> = (0..PROBES).map(|doublings| there + (step << doublings)).collect();
            let (last, missing) = self.probe(&probes).await?;
            there = last.unwrap_or(there);
            if let Some(missing) = missing {
                break missing;
            }
            step <<= PROBES;
        };
        while missing - there > 1 {
            let parts = (missing - there).min(u64::from(PROBES) + 1);
            let probes: Vec<u64> = (1..parts).map(|part| there + (missing - there) * part / parts).collect();
            let (last, first_missing) = self.probe(&probes).await?;
            (there, missing) = (last.unwrap_or(there), first_missing.unwrap_or(missing));
        }
        Ok(there)
    }

    /// Of ascending numbers: the last entry before the first that is missing, and that.
    async fn probe(&self, numbers: &[u64]) -> Result<(Option<u64>, Option<u64>), Failure> {
        let found = try_join_all(numbers.iter().map(|&number| self.is_there(number))).await?;
        let count = found.iter().take_while(|is_there| **is_there).count();
        Ok((count.checked_sub(1).map(|last| numbers[last]), numbers.get(count).copied()))
    }

    async fn is_there(&self, number: u64) -> Result<bool, Failure> {
        store::exists(&self.store, &layout::batch_log_entry(number)).await
    }
}

/// The entry that the record of an upload names; `None` if there is no such record, or it names none.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn uploaded(store: &Store, batch_id: &str) -> Result<Option<u64>, Failure> {
    #[derive(Deserialize)]
    struct Record {
        listed: Option<u64>,
    }
    let record = store::read(store, &layout::upload(batch_id)).await?;
    // A record that cannot be read is its owner's to complain about.
    Ok(record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok()?.listed))
}

/// The batch id that an entry or a line consists of; `None` if it is none.
fn batch_id(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?;
    check_batch_id("batch_id", text).ok().map(|()| text.to_owned())
}
