//! `ride-chunk.v1`: accepted rides of a batch, in the order of the batch.

use crate::{
    message::{
        check::{check_batch_id, check_provenance},
        decode::Message,
        object,
        refresh::{self, Refresh},
        violation::Violation,
    },
    ride::Ride,
};
use serde::{Deserialize, Serialize};

/// One chunk of a batch. All chunks of a batch but the last contain the same number of rides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RideChunk {
    /// Batch id.
    pub batch_id: String,
    /// Position of the chunk in the batch, from 0.
    pub chunk: u32,
    /// Id of the splitting that the chunk belongs to; see [`super::new_split_id`]. Absent in messages from before
    /// November 2026.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_id: Option<String>,
    /// Fingerprint of the bytes that the rides were read from, 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The attempt to join the batch again that this message belongs to; `None` in the first join.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub refresh: Option<Refresh>,
    /// The validated rides.
    #[serde(deserialize_with = "object::list")]
    pub rides: Vec<Ride>,
}

impl Message for RideChunk {
    fn message_id(&self) -> String {
        format!("{}/ride-chunk/{}", refresh::prefix(&self.batch_id, self.refresh), self.chunk)
    }

    fn batch_id(&self) -> Option<&str> {
        Some(&self.batch_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_batch_id("batch_id", &self.batch_id)?;
        check_provenance(self.split_id.as_deref(), self.digest.as_deref())
    }
}
