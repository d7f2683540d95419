//! Bounds of reading a batch.

/// Number of bytes at the start of a document by which its format is recognised.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// Decompressed size above which the ratio to the compressed size is checked, bytes.
pub(super) const RATIO_GRACE_BYTES: u64 = 16 * 1024 * 1024;

/// Bounds of reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum size of one piece, bytes.
    pub piece_bytes: usize,
    /// Maximum size of a decompressed batch and of a Parquet file, bytes.
    pub decompressed_bytes_max: u64,
    /// Maximum ratio of decompressed to compressed size.
    pub expansion_max: u64,
}
