//! `dataset-ready.v1`: the dataset of a batch is complete.

use crate::{
    message::{
        check::{check_batch_id, check_below, check_sha256},
        decode::Message,
        violation::Violation,
    },
    object_path,
};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// The manifest of a batch is written, and all files that it names can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetReady {
    /// Batch id.
    pub batch_id: String,
    /// Path of the manifest in the object store, below `dataset/`.
    pub manifest: String,
    /// SHA-256 of the manifest's bytes, 64 hex digits. It identifies the dataset.
    pub manifest_sha256: String,
    /// Number of rides in the dataset.
    pub rides: u64,
    /// Number of the dataset's revision, from 2; `None` for the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<NonZeroU32>,
}

impl Message for DatasetReady {
    fn message_id(&self) -> String {
        match self.revision {
            Some(revision) => format!("{}/dataset-ready/{revision}", self.batch_id),
            None => format!("{}/dataset-ready", self.batch_id),
        }
    }

    fn batch_id(&self) -> Option<&str> {
        Some(&self.batch_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_batch_id("batch_id", &self.batch_id)?;
        check_below(object_path::DATASET, "manifest", &self.manifest)?;
        check_sha256("manifest_sha256", &self.manifest_sha256)
    }
}
