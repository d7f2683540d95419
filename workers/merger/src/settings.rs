//! Section `[merger]` of the configuration.

use common::dataset::PART_BYTES_MAX;
use runtime::config::{self, Problem};
use serde::{Deserialize, Serialize};

/// Settings of the merger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Maximum size of one dataset file, bytes. The dataset depends on it, so all mergers of a fleet must have the same value.
    pub part_bytes_max: u64,
    /// Number of staged chunks read ahead during a join.
    pub read_ahead: usize,
    /// Maximum number of chunks probed for at a time.
    pub probes_max: u32,
    /// Size of one request of an upload, bytes. S3 requires at least 5 MiB.
    pub upload_bytes: usize,
    /// Maximum memory for the set of staged chunks, bytes. Less memory causes more requests to the store.
    pub known_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            part_bytes_max: PART_BYTES_MAX,
            read_ahead: 8,
            probes_max: 32,
            upload_bytes: 8 * 1024 * 1024,
            known_bytes_max: 16 * 1024 * 1024,
        }
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = "merger";

    fn check(&self) -> Result<(), Problem> {
        if self.part_bytes_max == 0 {
            return Err(Problem::new("part_bytes_max", self.part_bytes_max, "at least 1 byte"));
        }
        if !(1..=256).contains(&self.read_ahead) {
            return Err(Problem::new("read_ahead", self.read_ahead, "1 to 256 chunks"));
        }
        if !(1..=256).contains(&self.probes_max) {
            return Err(Problem::new("probes_max", self.probes_max, "1 to 256 probes"));
        }
        if self.upload_bytes == 0 {
            return Err(Problem::new("upload_bytes", self.upload_bytes, "at least 1 byte, 5242880 for S3"));
        }
        Ok(())
    }
}
