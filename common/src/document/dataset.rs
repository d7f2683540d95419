//! The dataset of a batch: plain CSV files and the manifest that makes them visible.

use crate::{reading::Reading, ride::Counts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The columns of a dataset file, in order. A missing value is an empty field.
///
/// `latitude`, `longitude` degrees; `distance` miles; `fieldservice` 0 or 1; `station_km` kilometres; `tmin`, `tmax`
/// tenths of °C; `prcp` tenths of mm.
pub const COLUMNS: [&str; 15] = [
    "ride_id",
    "name",
    "breed",
    "statustime",
    "latitude",
    "longitude",
    "distance",
    "healthpoints",
    "magicpoints",
    "fieldservice",
    "groundstation",
    "station_km",
    "tmin",
    "tmax",
    "prcp",
];

/// Bytes of one dataset file at most; a file ends at the last row that fits.
pub const PART_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a complete dataset consists of. A pure function of the batch's bytes and the weather: no clock, no host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `dataset-manifest.v1`.
    pub schema: String,
    /// The batch.
    pub batch_id: String,
    /// SHA-256 of the batch's bytes as they came.
    pub sha256: String,
    /// [`COLUMNS`].
    pub columns: Vec<String>,
    /// Rides in the batch: `accepted + rejected`.
    pub received: u64,
    /// Rides in the dataset.
    pub accepted: u64,
    /// Rides in `rejected/<batch_id>.ndjson`.
    pub rejected: u64,
    /// The rejected rides by reason.
    pub rejected_by_reason: Counts,
    /// Rides without weather by reason.
    pub without_weather: Counts,
    /// Rides with a label.
    pub labelled: u64,
    /// Rides with a label and weather: what can be trained on.
    pub trainable: u64,
    /// Rides served by each station.
    pub stations: BTreeMap<String, u64>,
    /// The files, in the order of the batch.
    pub files: Vec<DatasetFile>,
}

/// Name of the manifest's schema.
pub const MANIFEST_SCHEMA: &str = "dataset-manifest.v1";

/// One file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetFile {
    /// Path in the object store.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Rides, not counting the header line.
    pub rows: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

/// Which bytes a batch id stands for, and how they are cut: written once, before the first chunk is published, and kept.
/// Other bytes under the same id are refused. The same bytes are cut the same way whenever they come again: the chunk size
/// is the one setting on which that depends, and the claim's counts, whatever the settings say by then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The batch.
    pub batch_id: String,
    /// SHA-256 of the batch's bytes as they came.
    pub sha256: String,
    /// Rides per chunk.
    pub chunk_size: u32,
    /// What the publisher called it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where the bytes are in the object store, to replay the batch from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Number of this batch's entry in the batch log, counted from 1. Absent in claims from before the log existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<u64>,
    /// How the bytes are read.
    #[serde(flatten)]
    pub reading: Reading,
}
