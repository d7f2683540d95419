//! `batch-split.v1`: how a batch was split; with it the merger knows when a batch is complete.

use super::{
    Kind, Message, Violation,
    ride_batch::{check_batch_id, check_sha256},
};
use crate::contract::{ride::Counts, topology};
use serde::{Deserialize, Serialize};

/// Reason codes in one account at most: there are some 25.
const REASONS_MAX: usize = 1_000;

/// The splitter's account of one batch: `received = accepted + rejected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSplit {
    /// The batch.
    pub batch_id: String,
    /// SHA-256 of the batch's bytes as they came, 64 hex digits.
    pub sha256: String,
    /// Number of chunks published: `ceil(accepted / chunk size)`, 0 when nothing was accepted.
    pub chunks: u32,
    /// Rides in the batch.
    pub received: u64,
    /// Rides that went on in chunks.
    pub accepted: u64,
    /// Rides written to `rejected/<batch_id>.ndjson`.
    pub rejected: u64,
    /// The rejected ones by reason code.
    #[serde(default)]
    pub rejected_by_reason: Counts,
}

impl Message for BatchSplit {
    const KIND: Kind = Kind { name: "batch-split", major: 1 };
    const EXCHANGE: &'static str = topology::WORK;

    fn message_id(&self) -> String {
        format!("{}/batch-split", self.batch_id)
    }

    fn batch_id(&self) -> Option<&str> {
        Some(&self.batch_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_batch_id("batch_id", &self.batch_id)?;
        check_sha256("sha256", &self.sha256)?;
        if self.accepted.checked_add(self.rejected) != Some(self.received) {
            return Err(Violation::new("received", "expected accepted + rejected"));
        }
        if u64::from(self.chunks) > self.accepted || (self.chunks == 0) != (self.accepted == 0) {
            let why = format!("expected at least one of the {} accepted rides in each chunk", self.accepted);
            return Err(Violation::new("chunks", why));
        }
        if self.rejected_by_reason.len() > REASONS_MAX {
            return Err(Violation::new("rejected_by_reason", format!("expected at most {REASONS_MAX} reasons")));
        }
        Ok(())
    }
}
