//! `uploads/<batch_id>.json` and `idempotency/<hash>.json`: batches that were submitted to a gateway.

use crate::reading::Reading;
use serde::{Deserialize, Serialize};

/// The record of an upload, `uploads/<batch_id>.json`. It makes the batch known from its confirm on, before a splitter
/// reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Upload {
    /// Batch id.
    pub batch_id: String,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
    /// Size in bytes, as stored.
    pub bytes: u64,
    /// Name given by its publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Path of its bytes in the object store.
    pub object: String,
    /// Time of submission, RFC 3339.
    pub submitted_at: String,
    /// Whether the broker has confirmed the batch. Records of earlier versions lack this member and count as confirmed.
    #[serde(default = "default_confirmed")]
    pub confirmed: bool,
    /// Number of its entry in the batch log. Absent in records of earlier versions, and if a splitter of an earlier version had
    /// claimed the batch before it was submitted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<u64>,
    /// How to read its bytes.
    #[serde(flatten)]
    pub reading: Reading,
}

fn default_confirmed() -> bool {
    true
}

/// The batch that an idempotency key stands for: `idempotency/<hash>.json`, where the hash is the SHA-256 of the key and its
/// owner.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct IdempotencyRecord {
    /// Batch id.
    pub batch_id: String,
    /// SHA-256 of the batch's bytes, 64 hex digits.
    pub sha256: String,
    /// How to read its bytes.
    #[serde(flatten)]
    pub reading: Reading,
}
