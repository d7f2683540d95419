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
    /// Number of staged chunks read ahead during a join. `None`: [`READ_AHEAD`], with a service [`READ_AHEAD_REMOTE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_ahead: Option<usize>,
    /// Maximum number of chunks probed for at a time.
    pub probes_max: u32,
    /// Size of one request of an upload, bytes. To a service at least 5 MiB.
    pub upload_bytes: usize,
    /// Maximum memory for the set of staged chunks, bytes. Less memory causes more requests to the store.
    pub known_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            part_bytes_max: PART_BYTES_MAX,
            read_ahead: None,
            probes_max: 32,
            upload_bytes: 8 * 1024 * 1024,
            known_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// Default of [`Settings::read_ahead`].
pub(crate) const READ_AHEAD: usize = 8;
/// A service takes longer to answer, and answers many requests at the same time.
const READ_AHEAD_REMOTE: usize = 32;
/// Minimum size of a part of an upload to S3, except the last one, bytes.
const UPLOAD_BYTES_MIN: usize = 5 * 1024 * 1024;

impl Settings {
    /// Adapts the settings to the kind of store.
    pub(crate) fn on(self, is_remote: bool) -> Self {
        let upload_bytes = if is_remote { self.upload_bytes.max(UPLOAD_BYTES_MIN) } else { self.upload_bytes };
        let read_ahead = self.read_ahead.or(is_remote.then_some(READ_AHEAD_REMOTE));
        Self { upload_bytes, read_ahead, ..self }
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = MERGER.section;
    const REFERENCE: &'static [Entry] = &[
        at_least("part_bytes_max", "bytes", 1).means(
            "size of one dataset file; must be equal in all mergers of a fleet, since the dataset depends on it",
        ),
        number("read_ahead", "chunks", 1..=256)
            .means("staged chunks read ahead of the one being joined; 8, with s3://, gs:// and az:// 32"),
        number("probes_max", "chunks", 1..=256).means("staged chunks looked up at the same time"),
        at_least("upload_bytes", "bytes", 1)
            .means("size of one request of an upload; with s3://, gs:// and az:// 5 MiB or more"),
        at_least("known_bytes_max", "bytes", 0)
            .means("memory for the list of staged chunks; with less, the store is asked more often"),
    ];
}
