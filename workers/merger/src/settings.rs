//! Section `[merger]` of the configuration.

use common::{dataset::PART_BYTES_MAX, topology::process::MERGER};
use runtime::config::{
    self,
    reference::{Entry, at_least, number},
};
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
    const SECTION: &'static str = MERGER.section;
    const REFERENCE: &'static [Entry] = &[
        at_least("part_bytes_max", "bytes", 1).means(
            "size of one dataset file; must be equal in all mergers of a fleet, since the dataset depends on it",
        ),
        number("read_ahead", "chunks", 1..=256).means("staged chunks read ahead of the one being joined"),
        number("probes_max", "chunks", 1..=256).means("staged chunks looked up at the same time"),
        at_least("upload_bytes", "bytes", 1).means("size of one request of an upload; S3 requires 5 MiB or more"),
        at_least("known_bytes_max", "bytes", 0)
            .means("memory for the list of staged chunks; with less, the store is asked more often"),
    ];
}
