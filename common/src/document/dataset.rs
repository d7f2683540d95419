//! The dataset of a batch: plain CSV files and the manifest that makes them visible.

use crate::{
    reading::Reading,
    ride::{Counts, WeatherMissing},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, num::NonZeroU32};

/// Maximum size of one dataset file in bytes; a file ends at the last row that fits.
pub const PART_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Number of a dataset's first revision.
pub const FIRST_REVISION: NonZeroU32 = NonZeroU32::MIN;

/// The contents of a complete revision of a dataset. A pure function of the batch's bytes, the weather and the number of the
/// revision: independent of clock and host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of its schema.
    pub schema: String,
    /// Batch id.
    pub batch_id: String,
    /// Number of the revision, from 2; `None` for the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<NonZeroU32>,
    /// SHA-256 of the batch's bytes as received, 64 hex digits.
    pub sha256: String,
    /// Columns of the files, in order: those that `records::datasets` writes.
    pub columns: Vec<String>,
    /// Number of rides in the batch: `accepted + rejected`.
    pub received: u64,
    /// Number of rides in the dataset.
    pub accepted: u64,
    /// Number of rides in `rejected/<batch_id>.ndjson`.
    pub rejected: u64,
    /// Number of rejected rides by reason code.
    pub rejected_by_reason: Counts,
    /// Number of rides without weather by reason code.
    pub without_weather: Counts,
    /// Number of rides with a label.
    pub labelled: u64,
    /// Number of rides with a label and weather: those a model can be trained on.
    pub trainable: u64,
    /// Number of rides by the weather station that was joined to them (GHCN-Daily id).
    pub stations: BTreeMap<String, u64>,
    /// The dataset files, in the order of the batch.
    pub files: Vec<DatasetFile>,
}

impl Manifest {
    /// Returns the number of the revision, from 1.
    pub fn revision(&self) -> NonZeroU32 {
        self.revision.unwrap_or(FIRST_REVISION)
    }

    /// Returns the number of rides whose weather is still expected.
    pub fn not_yet_published(&self) -> u64 {
        let code: &str = WeatherMissing::NotYetPublished.into();
        self.without_weather.get(code).copied().unwrap_or(0)
    }
}

/// One file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetFile {
    /// Path in the object store.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of rides: lines without the header.
    pub rows: u64,
    /// SHA-256 of the file's bytes, 64 hex digits.
    pub sha256: String,
}

/// Binds a batch id to its bytes and its chunk size. Written once, before the first chunk is published, and kept. Other
/// bytes under the same id are refused. The same bytes are always split into the same chunks, because the chunk size of
/// the claim takes precedence over the settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Batch id.
    pub batch_id: String,
    /// SHA-256 of the batch's bytes as received, 64 hex digits.
    pub sha256: String,
    /// Number of rides per chunk, at least 1.
    pub chunk_size: u32,
    /// The publisher's description of the batch, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Path of the batch's bytes in the object store, from which the batch can be replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Number of the batch's entry in the batch log, from 1. Absent in claims that are older than the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<u64>,
    /// How the rides are read from the bytes.
    #[serde(flatten)]
    pub reading: Reading,
}
