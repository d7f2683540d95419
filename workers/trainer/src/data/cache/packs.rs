//! The packs in the store: listed, read in turn, written, removed.

use super::pack::{self, BYTES_MAX, DamagedPack, Entry};
use bytes::Bytes;
use common::outcome::Failure;
use futures::{StreamExt, TryStreamExt, stream};
use records::{
    layout,
    store::{self, Listed, Store},
};
use runtime::host;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a pack per read; a smaller pack is read whole.
const READ_BYTES: u64 = 256 * 1024;
/// Packs whose indexes are read at the same time.
const INDEXES_AT_ONCE: usize = 8;
/// Age from which on packs of another format are removed: trainers of two versions may alternate for a while.
const OTHER_FORMAT_SECONDS_MAX: i64 = 7 * 24 * 60 * 60;

/// A piece in a pack.
#[derive(Debug, Clone)]
pub(super) struct PieceLocation {
    pub(super) entry: Entry,
    pub(super) place: Range<u64>,
    /// Index of its dataset in the plan; `None` if the plan does not have it, or the piece is read from another pack.
    pub(super) dataset: Option<usize>,
}

/// A pack whose index has been read.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) pieces: Vec<PieceLocation>,
    /// Whether a piece of it is damaged.
    pub(super) is_damaged: bool,
    /// The bytes read last, and their offset in the pack.
    read: (u64, Bytes),
}

/// The packs in the store.
#[derive(Debug, Default)]
pub(super) struct PackList {
    /// Largest first: if two packs hold the same piece, it is read from the larger one.
    pub(super) packs: Vec<Pack>,
    /// Objects that are not valid packs.
    pub(super) damaged: Vec<String>,
}

/// Why a piece could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// Another trainer has merged the pack into a larger one.
    #[error("the pack is gone")]
    Gone,
    /// The pack, or the piece, is not as its index describes it.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Failure),
}

impl From<DamagedPack> for ReadError {
    fn from(damaged: DamagedPack) -> Self {
        Self::Damaged(damaged.to_string())
    }
}

impl Pack {
    /// Total size in bytes of the pieces that are read from it.
    pub(super) fn used(&self) -> u64 {
        let used = self.pieces.iter().filter(|piece| piece.dataset.is_some());
        used.map(|piece| u64::from(piece.entry.bytes)).sum()
    }

    /// Returns whether less than half of its bytes are read.
    pub(super) fn is_wasteful(&self) -> bool {
        let all: u64 = self.pieces.iter().map(|piece| u64::from(piece.entry.bytes)).sum();
        self.used() * 2 < all
    }

    /// Reads a piece and verifies its checksum. Consecutive pieces are read together.
    pub(super) async fn piece(&mut self, store: &Store, piece: usize) -> Result<Bytes, ReadError> {
        let Some(PieceLocation { entry, place, .. }) = self.pieces.get(piece) else { return Err(ReadError::Gone) };
        if !is_within(place, &self.read) {
            let end = place.end.max(place.start.saturating_add(READ_BYTES)).min(self.size);
            let bytes = store::read_range(store, &self.path, place.start..end).await?;
            self.read = (place.start, bytes.ok_or(ReadError::Gone)?);
        }
        let bytes = slice(place, &self.read).ok_or_else(|| ReadError::Damaged("it is cut short".to_owned()))?;
        if xxh3_64(&bytes) == entry.checksum {
            Ok(bytes)
        } else {
            Err(ReadError::Damaged("its checksum differs".to_owned()))
        }
    }

    /// Reads all pieces that are read from this pack; leaves damaged ones out.
    pub(super) async fn whole(&self, store: &Store) -> Result<Vec<(usize, Entry, Bytes)>, ReadError> {
        let read = (0, store::read(store, &self.path).await?.ok_or(ReadError::Gone)?);
        let used = self.pieces.iter().filter_map(|piece| {
            let bytes = slice(&piece.place, &read).filter(|bytes| xxh3_64(bytes) == piece.entry.checksum)?;
            // A slice would keep the whole pack in memory.
            Some((piece.dataset?, piece.entry.clone(), Bytes::copy_from_slice(&bytes)))
        });
        Ok(used.collect())
    }
}

fn is_within(place: &Range<u64>, (start, bytes): &(u64, Bytes)) -> bool {
    place.start >= *start && place.end <= start + bytes.len() as u64
}

fn slice(place: &Range<u64>, read: &(u64, Bytes)) -> Option<Bytes> {
    let at = |offset: u64| usize::try_from(offset - read.0).ok();
    is_within(place, read).then(|| Some(read.1.slice(at(place.start)?..at(place.end)?))).flatten()
}

/// Finds the packs of `format`, and removes old packs of other formats.
///
/// # Errors
/// Fails if the packs cannot be listed. A pack that cannot be read is left out, with a warning.
pub(super) async fn find(store: &Store, format: &str) -> Result<PackList, Failure> {
    let listed: Vec<Listed> = store::list(store, layout::TRAINER_CACHE).try_collect().await?;
    let folder = layout::trainer_cache(format, "");
    let (mut listed, others): (Vec<_>, Vec<_>) = listed.into_iter().partition(|pack| pack.path.starts_with(&folder));
    remove_old(store, others).await;
    listed.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let mut list = PackList::default();
    let mut reading = stream::iter(listed)
        .map(|pack| async move { (pack.path.clone(), open(store, pack).await) })
        .buffered(INDEXES_AT_ONCE);
    while let Some((path, opened)) = reading.next().await {
        match opened {
            Ok(pack) => list.packs.push(pack),
            Err(ReadError::Damaged(why)) => {
                tracing::warn!(path, %why, "a pack of the trainer's cache is damaged; it is removed, and its datasets are read from their files");
                list.damaged.push(path);
            }
            Err(ReadError::Gone) => {}
            Err(error) => tracing::warn!(path, %error, "a pack of the trainer's cache cannot be read now"),
        }
    }
    Ok(list)
}

async fn open(store: &Store, Listed { path, bytes: size, .. }: Listed) -> Result<Pack, ReadError> {
    if size > BYTES_MAX {
        return Err(DamagedPack("it is too large").into());
    }
    let read_to = async |end| store::read_range(store, &path, 0..end).await?.ok_or(ReadError::Gone);
    // Object stores reject an empty range.
    let start = if size == 0 { Bytes::new() } else { read_to(size.min(READ_BYTES)).await? };
    let end = pack::index_end(&start, size)?;
    let read = (0, start);
    let index = match slice(&(0..end), &read) {
        Some(index) => index,
        None => read_to(end).await?,
    };
    let pieces = pack::read_index(&index, size)?.into_iter();
    let pieces = pieces.map(|(entry, place)| PieceLocation { entry, place, dataset: None }).collect();
    Ok(Pack { path, size, pieces, is_damaged: false, read })
}

async fn remove_old(store: &Store, others: Vec<Listed>) {
    for Listed { path, written_at, .. } in others {
        if host::now().as_second() - written_at.as_second() > OTHER_FORMAT_SECONDS_MAX {
            remove(store, &path).await;
        }
    }
}

/// Removes a pack that is no longer needed. If that fails, a later training removes it.
pub(super) async fn remove(store: &Store, path: &str) {
    if let Err(failure) = store::remove(store, path).await {
        tracing::warn!(path, %failure, "a pack of the trainer's cache cannot be removed now");
    }
}
