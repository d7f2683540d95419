//! Packs: the pieces of many datasets in one object, with an index at its start.
//!
//! ```text
//! magic             8 bytes
//! index size        4 bytes, little-endian, in bytes
//! index checksum    8 bytes, little-endian, xxh3_64
//! index             postcard: one entry per piece
//! pieces            one after the other, in the order of the index
//! ```

use serde::{Deserialize, Serialize};
use std::ops::Range;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

const MAGIC: [u8; 8] = *b"wrpack1\n";
const HEAD_BYTES: usize = MAGIC.len() + 4 + 8;
/// Size in bytes from which on a pack gets no further piece.
pub(super) const PACK_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Maximum size in bytes of a pack or a piece; a trainer writes no larger ones, since a piece holds the rides of one block.
pub(super) const BYTES_MAX: u64 = 4 * PACK_BYTES_MAX;

/// SHA-256 of a dataset's manifest.
pub(super) type ManifestHash = [u8; 32];

/// A piece as the index describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its dataset.
    pub(super) manifest: ManifestHash,
    /// Which block of the dataset, counted from 0.
    pub(super) number: u32,
    /// Size in bytes.
    pub(super) bytes: u32,
    /// `xxh3_64` of the piece.
    pub(super) checksum: u64,
    /// Number of rides in it.
    pub(super) rides: u64,
    /// Number of those with a label and weather.
    pub(super) trainable: u64,
    /// In the last piece of a dataset, written once all its files were verified: the checksums of all pieces before it.
    /// A piece that no seal names may come from a damaged file.
    pub(super) seal: Option<Vec<u64>>,
}

/// Why bytes are not a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct DamagedPack(pub(super) &'static str);

/// Reads from the first bytes of a pack where its index ends, in bytes from the start of the pack.
///
/// # Errors
/// Fails if `start` does not begin a pack of `size` bytes.
pub(super) fn index_end(start: &[u8], size: u64) -> Result<u64, DamagedPack> {
    let rest = start.strip_prefix(&MAGIC).ok_or(DamagedPack("it is not a pack"))?;
    let (length, _) = rest.split_first_chunk().ok_or(DamagedPack("it is cut short"))?;
    let end = HEAD_BYTES as u64 + u64::from(u32::from_le_bytes(*length));
    if end > size { Err(DamagedPack("it is cut short")) } else { Ok(end) }
}

/// Reads the pieces of a pack of `size` bytes and their byte ranges in it. `start` is the pack up to [`index_end`].
///
/// # Errors
/// Fails if the pack is damaged.
pub(super) fn read_index(start: &[u8], size: u64) -> Result<Vec<(Entry, Range<u64>)>, DamagedPack> {
    let (checksum, index) =
        start.get(MAGIC.len() + 4..).and_then(<[u8]>::split_first_chunk).ok_or(DamagedPack("it is cut short"))?;
    if xxh3_64(index) != u64::from_le_bytes(*checksum) {
        return Err(DamagedPack("the checksum of its index differs"));
    }
    let entries: Vec<Entry> = postcard::from_bytes(index).map_err(|_| DamagedPack("its index cannot be decoded"))?;
    let mut at = start.len() as u64;
    let place = |entry: Entry| {
        let place = at..at + u64::from(entry.bytes);
        at = place.end;
        (entry, place)
    };
    let entries: Vec<_> = entries.into_iter().map(place).collect();
    if at == size { Ok(entries) } else { Err(DamagedPack("its size differs from its index")) }
}

/// Returns the name of a pack, which is a hash of its bytes, and the bytes.
pub(super) fn write(pieces: &[(Entry, bytes::Bytes)]) -> (String, Vec<u8>) {
    let entries: Vec<&Entry> = pieces.iter().map(|(entry, _)| entry).collect();
    let index = postcard::to_allocvec(&entries).expect("encoding to memory does not fail");
    let total: usize = pieces.iter().map(|(_, piece)| piece.len()).sum();
    let mut pack = Vec::with_capacity(HEAD_BYTES + index.len() + total);
    pack.extend_from_slice(&MAGIC);
    pack.extend_from_slice(&u32::try_from(index.len()).expect("an index of less than 4 GiB").to_le_bytes());
    pack.extend_from_slice(&xxh3_64(&index).to_le_bytes());
    pack.extend_from_slice(&index);
    for (_, piece) in pieces {
        pack.extend_from_slice(piece);
    }
    (format!("{:032x}", xxh3_128(&pack)), pack)
}
