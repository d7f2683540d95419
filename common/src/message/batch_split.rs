//! `batch-split.v1`: how a batch was split. It tells the merger when a batch is complete.

use crate::{
    message::{
        check::{check_batch_id, check_provenance, check_sha256},
        decode::Message,
        object,
        refresh::{self, Refresh},
        violation::Violation,
    },
    ride::Counts,
};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use xxhash_rust::xxh3::Xxh3;

/// Maximum number of reason codes in one message; about 25 exist.
const REASONS_MAX: usize = 1_000;

/// The splitter's counts of one batch: `received = accepted + rejected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSplit {
    /// Batch id.
    pub batch_id: String,
    /// SHA-256 of the batch's bytes as received, 64 hex digits.
    pub sha256: String,
    /// Id of the splitting that this message counts; see [`new_split_id`]. Absent in messages from before November
    /// 2026, and if the dataset was already complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_id: Option<String>,
    /// [`SplitDigest`] of the published chunks, 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The attempt to join the batch again that this message belongs to; `None` in the first join.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub refresh: Option<Refresh>,
    /// Number of published chunks: `ceil(accepted / chunk size)`; 0 if no ride was accepted.
    pub chunks: u32,
    /// Number of rides in the batch.
    pub received: u64,
    /// Number of rides published in chunks.
    pub accepted: u64,
    /// Number of rides written to `rejected/<batch_id>.ndjson`.
    pub rejected: u64,
    /// Number of rejected rides by reason code.
    #[serde(default)]
    pub rejected_by_reason: Counts,
}

/// Returns an id for one splitting of the bytes with this SHA-256 (64 hex digits), in the first join or in the attempt
/// of a refresh. `random` makes it differ from the ids of other splittings.
///
/// A batch may be split several times: if the splitter is killed and its message is delivered again, or if the batch is
/// replayed after its weather was corrected. Only chunks of the same splitting are joined. So chunks from an abandoned
/// process, or from bytes that changed meanwhile, never enter a dataset.
pub fn new_split_id(sha256: &str, refresh: Option<Refresh>, random: u64) -> String {
    let of_attempt = refresh.map_or_else(String::new, |Refresh { attempt, .. }| format!("r{attempt}-"));
    format!("{of_attempt}{}-{random:016x}", sha256.get(..16).unwrap_or(sha256))
}

/// Returns the attempt of a refresh in whose course a splitting was made; `None` if it was made in the first join.
pub fn attempt_of_split(split_id: &str) -> Option<NonZeroU32> {
    split_id.strip_prefix('r')?.split_once('-')?.0.parse().ok()
}

/// Fingerprint of the chunks of one splitting: 128-bit XXH3 over the fingerprints of the chunks, in the order of the
/// batch.
#[derive(Clone, Default)]
pub struct SplitDigest(Xxh3);

impl SplitDigest {
    /// Adds bytes to the fingerprint.
    pub fn add(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// Returns the fingerprint, 32 hex digits.
    pub fn finish(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}

impl std::fmt::Debug for SplitDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.finish())
    }
}

impl Message for BatchSplit {
    fn message_id(&self) -> String {
        format!("{}/batch-split", refresh::prefix(&self.batch_id, self.refresh))
    }

    fn batch_id(&self) -> Option<&str> {
        Some(&self.batch_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_batch_id("batch_id", &self.batch_id)?;
        check_sha256("sha256", &self.sha256)?;
        check_provenance(self.split_id.as_deref(), self.digest.as_deref())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_id_names_its_attempt() {
        let sha256 = "abcdef0123456789".repeat(4);
        let refresh = |attempt: u32| Refresh { attempt: attempt.try_into().unwrap(), asked_at: Default::default() };
        for refresh in [None, Some(refresh(1)), Some(refresh(u32::MAX))] {
            let split_id = new_split_id(&sha256, refresh, u64::MAX);
            assert_eq!(attempt_of_split(&split_id), refresh.map(|refresh| refresh.attempt), "{split_id}");
            assert_eq!(check_batch_id("", &split_id), Ok(()));
        }
        for other in ["", "r", "r1", "r0-a", "rx-a", "r-1-a"] {
            assert_eq!(attempt_of_split(other), None, "{other}");
        }
    }
}
