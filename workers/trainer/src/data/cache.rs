//! A cache of parsed datasets, so that a training reads only the files of new datasets.
//!
//! ```text
//! cache/trainer/<format>/<hash>    a pack: pieces of many datasets, ordered by batch id
//! ```
//!
//! A piece is the result of [`parse`](crate::data::rows::parse) for one block of a dataset. Its key is the SHA-256 of the dataset's
//! manifest, which contains the SHA-256 of every file. So a hit needs none of the files, and a revision of a dataset has another key.
//! Cached pieces go through the same code in the same order as freshly parsed blocks: models are identical to the byte with and without
//! the cache, whatever part of it exists.
//!
//! * **Packs.** Opening thousands of small objects takes longer than parsing them. So a training collects the pieces of new datasets and
//!   merges them with packs that are not much larger, as a log-structured merge tree does: the number of packs is about the binary
//!   logarithm of the number of rides, and a piece is rewritten about as often in its life. Packs are sorted, so that a training reads
//!   each from start to end, a part of [`packs`] at a time, in the order of the batch ids. A pack is at most as large as 8 MiB and one
//!   piece.
//! * **Trust.** No training needs the cache: it may be removed at any time, wholly or in part, while trainers run. Every index and every
//!   piece has a checksum. The dataset of a damaged piece is read from its files instead, with a warning, and cached again. The last
//!   piece of a dataset is its seal: it lists the pieces before it, and exists only if the SHA-256 of every file was right when they
//!   were parsed. A training never fails because of the cache; it takes longer.
//! * **Several trainers** write packs whose names are hashes of their bytes. If one removes a pack that it has merged while another reads
//!   it, the other looks for the pieces again.
//! * **Removal.** A training that writes removes packs that it read no piece from: their datasets are gone, or their pieces are in a
//!   larger pack too. It merges a pack of which less than half is read, whatever its size. It removes packs of other formats once they
//!   are a week old.
//! * **Cost.** 30 to 40 bytes per ride, a quarter to a third of the CSV file, and some 30 MB of memory while a training writes. Parsing
//!   and writing together take a fifth longer than parsing alone, so a single dataset is not cached. A training does not notice that
//!   a dataset file was damaged after it was cached; it uses the rides of the intact file. `wildrydes export` and `wildrydes describe`
//!   notice the damage.
//!
//! Why not an existing format: Parquet and Arrow are designed for row groups of many thousands of rides. For a dataset of a
//! hundred rides their metadata is larger than the rides, and compiling either takes longer than compiling the trainer.
//! `postcard` encodes the columns and indexes.

mod pack;
mod packs;
mod piece;

use crate::data::rows::ParsedBlock;
use bytes::Bytes;
use common::{dataset::Manifest, features::later_features, model::TrainedOn};
use pack::{BYTES_MAX, Entry, ManifestHash, PACK_BYTES_MAX};
use packs::{Pack, PackList, ReadError};
use records::{
    layout,
    store::{self, Store},
};
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_64;

/// Raise it whenever the same dataset would give other pieces: other block boundaries, another rule for which rides are trainable,
/// another encoding.
const FORMAT: &str = "1";

/// Returns the format's part of every path. Another set of features is another format.
fn format() -> String {
    [FORMAT].into_iter().chain(later_features()).collect::<Vec<_>>().join("-")
}

/// Maximum number of times that one training lists the packs again because one was gone.
const LOOKS_MAX: u32 = 3;

/// The cache during one training.
pub(crate) struct Cache<'a> {
    store: &'a Store,
    manifests: &'a [Manifest],
    hashes: Vec<ManifestHash>,
    packs: Vec<Pack>,
    damaged: Vec<String>,
    /// For each dataset that is complete in the cache: every piece, as index of its pack and index in that pack.
    complete: HashMap<ManifestHash, Vec<(usize, usize)>>,
    looks_left: u32,
    /// Pieces of datasets that were read from their files, to be written.
    new_pieces: Vec<NewPiece>,
    new_bytes: u64,
    open_dataset: OpenDataset,
    /// [`PACK_BYTES_MAX`], or less in tests.
    pack_bytes_max: u64,
}

/// A piece to be written, with the index of its dataset in the plan.
type NewPiece = (usize, Entry, Bytes);

/// The dataset that is being read from its files.
#[derive(Default)]
struct OpenDataset {
    /// The last piece so far; held back because it may become the seal.
    last: Option<NewPiece>,
    /// Checksums of the pieces before it.
    checksums: Vec<u64>,
}

/// The encoded piece of a block.
#[derive(Debug)]
pub(crate) struct EncodedPiece {
    bytes: Bytes,
    rides: u64,
    trainable: u64,
}

impl EncodedPiece {
    /// Encodes a block of a dataset.
    pub(crate) fn of(parsed: &ParsedBlock) -> Self {
        Self { bytes: piece::encode(parsed).into(), rides: parsed.rides, trainable: parsed.trainable() }
    }
}

impl<'a> Cache<'a> {
    /// Finds the cached pieces of these datasets; `manifests` and `datasets` have the same order.
    pub(crate) async fn open(store: &'a Store, manifests: &'a [Manifest], datasets: &[TrainedOn]) -> Self {
        let hash = |dataset: &TrainedOn| {
            let mut hash = ManifestHash::default();
            // This trainer computed the SHA-256 itself: it is valid hex.
            let _ = hex::decode_to_slice(&dataset.manifest_sha256, &mut hash);
            hash
        };
        let mut cache = Self {
            store,
            manifests,
            hashes: datasets.iter().map(hash).collect(),
            packs: Vec::new(),
            damaged: Vec::new(),
            complete: HashMap::new(),
            looks_left: LOOKS_MAX,
            new_pieces: Vec::new(),
            new_bytes: 0,
            open_dataset: OpenDataset::default(),
            pack_bytes_max: PACK_BYTES_MAX,
        };
        cache.look().await;
        cache
    }

    async fn look(&mut self) {
        let PackList { packs, damaged } = match packs::find(self.store, &format()).await {
            Ok(list) => list,
            Err(error) => {
                tracing::warn!(%error, "the trainer's cache cannot be listed now; datasets are read from their files");
                PackList::default()
            }
        };
        (self.packs, self.damaged) = (packs, damaged);
        self.complete.clear();
        let mut pieces: HashMap<(ManifestHash, u32, u64), (usize, usize)> = HashMap::new();
        let mut seals: HashMap<ManifestHash, Vec<(usize, usize)>> = HashMap::new();
        for (pack, Pack { pieces: placed, .. }) in self.packs.iter().enumerate() {
            for (index, placed) in placed.iter().enumerate() {
                let Entry { manifest, number, checksum, seal, .. } = &placed.entry;
                pieces.entry((*manifest, *number, *checksum)).or_insert((pack, index));
                if seal.is_some() {
                    seals.entry(*manifest).or_default().push((pack, index));
                }
            }
        }
        for (dataset, (hash, manifest)) in self.hashes.iter().zip(self.manifests).enumerate() {
            let mut sealed = seals.get(hash).into_iter().flatten();
            let Some(complete) = sealed.find_map(|seal| complete(&self.packs, &pieces, *seal, manifest)) else {
                continue;
            };
            for (pack, index) in &complete {
                self.packs[*pack].pieces[*index].dataset = Some(dataset);
            }
            self.complete.insert(*hash, complete);
        }
    }

    /// Passes the pieces of a dataset to `add`, one after the other.
    ///
    /// # Errors
    /// If the cache does not have the whole dataset, returns the number of pieces that it passed: the first blocks of the files.
    pub(crate) async fn replay(&mut self, dataset: usize, mut add: impl FnMut(ParsedBlock)) -> Result<(), usize> {
        let Some(hash) = self.hashes.get(dataset).copied() else { return Err(0) };
        let mut added = 0;
        loop {
            let Some(pieces) = self.complete.get(&hash) else { return Err(added) };
            let Some(&(pack, index)) = pieces.get(added) else { return Ok(()) };
            match read(self.store, &mut self.packs[pack], index).await {
                Ok(parsed) => {
                    add(parsed);
                    added += 1;
                }
                Err(ReadError::Gone) if self.looks_left > 0 => {
                    self.looks_left -= 1;
                    self.look().await;
                }
                Err(why) => {
                    let Pack { path, is_damaged, .. } = &mut self.packs[pack];
                    *is_damaged |= matches!(why, ReadError::Damaged(_));
                    tracing::warn!(path, %why, "a dataset in the trainer's cache cannot be read; it is read from its files");
                    return Err(added);
                }
            }
        }
    }

    /// Adds the next block of a dataset that is read from its files.
    pub(crate) async fn keep(&mut self, dataset: usize, block: EncodedPiece) {
        let EncodedPiece { bytes, rides, trainable } = block;
        let (Some(manifest), Ok(length)) = (self.hashes.get(dataset), u32::try_from(bytes.len())) else { return };
        let number = self.open_dataset.checksums.len() + usize::from(self.open_dataset.last.is_some());
        let entry = Entry {
            manifest: *manifest,
            number: u32::try_from(number).unwrap_or(u32::MAX),
            bytes: length,
            checksum: xxh3_64(&bytes),
            rides,
            trainable,
            seal: None,
        };
        if let Some(before) = self.open_dataset.last.replace((dataset, entry, bytes)) {
            self.open_dataset.checksums.push(before.1.checksum);
            self.gather(before).await;
        }
    }

    /// Seals the dataset whose blocks were added: it is complete, and its files are as its manifest says.
    pub(crate) async fn seal(&mut self) {
        let OpenDataset { last, checksums } = std::mem::take(&mut self.open_dataset);
        if let Some((dataset, entry, bytes)) = last {
            self.gather((dataset, Entry { seal: Some(checksums), ..entry }, bytes)).await;
        }
    }

    async fn gather(&mut self, piece: NewPiece) {
        // Not cached, because its pack could exceed `BYTES_MAX`; the next training reads the dataset from its files
        // again.
        if piece.2.len() as u64 > BYTES_MAX - 2 * PACK_BYTES_MAX {
            return;
        }
        self.new_bytes += piece.2.len() as u64;
        self.new_pieces.push(piece);
        if self.new_bytes >= self.pack_bytes_max {
            let new_pieces = std::mem::take(&mut self.new_pieces);
            self.new_bytes = 0;
            self.write(new_pieces).await;
        }
    }

    /// Writes the new pieces, merged with small packs, and removes packs that are no longer needed.
    pub(crate) async fn finish(mut self) {
        for path in &self.damaged {
            packs::remove(self.store, path).await;
        }
        let mut new_pieces = std::mem::take(&mut self.new_pieces);
        // Pieces without a seal: the dataset could not be read to its end.
        if let Some((dataset, ..)) = self.open_dataset.last {
            new_pieces.retain(|piece| piece.0 != dataset);
        }
        let mut bytes: u64 = new_pieces.iter().map(|piece| piece.2.len() as u64).sum();
        let mut merged = Vec::new();
        let mut written = Vec::new();
        let packs = std::mem::take(&mut self.packs);
        // Smallest first.
        for pack in packs.into_iter().rev() {
            let used = pack.used();
            let wasteful = pack.is_damaged || pack.is_wasteful();
            if used == 0 {
                merged.push(pack.path);
            } else if wasteful || (used <= 2 * bytes && bytes + used <= self.pack_bytes_max) {
                match pack.whole(self.store).await {
                    Ok(pieces) => new_pieces.extend(pieces),
                    Err(error) => {
                        tracing::warn!(path = %pack.path, %error, "a pack of the trainer's cache cannot be merged now");
                        continue;
                    }
                }
                bytes += used;
                if pack.is_damaged {
                    // Removed first, because its intact pieces may give a pack of the same name.
                    packs::remove(self.store, &pack.path).await;
                } else {
                    merged.push(pack.path);
                }
                if bytes >= self.pack_bytes_max {
                    written.push(self.write(std::mem::take(&mut new_pieces)).await);
                    bytes = 0;
                }
            }
        }
        if !new_pieces.is_empty() {
            written.push(self.write(new_pieces).await);
        }
        // If a write failed, the merged pieces exist only in the old packs.
        if written.iter().all(Option::is_some) {
            for path in merged.iter().filter(|path| !written.iter().flatten().any(|written| written == *path)) {
                packs::remove(self.store, path).await;
            }
        }
    }

    /// Writes a pack; returns its path.
    async fn write(&self, mut pieces: Vec<NewPiece>) -> Option<String> {
        let key = |piece: &NewPiece| (piece.0, piece.1.number, piece.1.checksum);
        pieces.sort_by_key(key);
        pieces.dedup_by_key(|piece| key(piece));
        let pieces: Vec<(Entry, Bytes)> = pieces.into_iter().map(|(_, entry, bytes)| (entry, bytes)).collect();
        let (name, bytes) = pack::write(&pieces);
        let path = layout::trainer_cache(&format(), &name);
        match store::create(self.store, &path, bytes).await {
            // If the object exists already, it has the same bytes.
            Ok(_) => Some(path),
            Err(failure) => {
                tracing::warn!(path, %failure, "a pack of the trainer's cache cannot be written; the next training reads its datasets from their files");
                None
            }
        }
    }
}

/// Returns the pieces that a seal names and the seal itself, if all exist and hold as many rides as the manifest says.
fn complete(
    packs: &[Pack],
    pieces: &HashMap<(ManifestHash, u32, u64), (usize, usize)>,
    seal: (usize, usize),
    manifest: &Manifest,
) -> Option<Vec<(usize, usize)>> {
    let entry = |(pack, index): (usize, usize)| Some(&packs.get(pack)?.pieces.get(index)?.entry);
    let Entry { manifest: hash, seal: Some(before), number, .. } = entry(seal)? else { return None };
    let before = (0..).zip(before).map(|(number, checksum)| pieces.get(&(*hash, number, *checksum)).copied());
    let mut all: Vec<(usize, usize)> = before.collect::<Option<_>>()?;
    all.push(seal);
    let sum = |count: fn(&Entry) -> u64| all.iter().filter_map(|piece| entry(*piece)).map(count).sum::<u64>();
    let right = usize::try_from(*number).ok() == Some(all.len() - 1)
        && (sum(|entry| entry.rides), sum(|entry| entry.trainable)) == (manifest.accepted, manifest.trainable);
    right.then_some(all)
}

async fn read(store: &Store, pack: &mut Pack, index: usize) -> Result<ParsedBlock, ReadError> {
    let bytes = pack.piece(store, index).await?;
    let parsed = piece::decode(&bytes).map_err(|why| ReadError::Damaged(why.to_string()))?;
    let Some(Entry { rides, trainable, .. }) = pack.pieces.get(index).map(|placed| &placed.entry) else {
        return Err(ReadError::Gone);
    };
    if (parsed.rides, parsed.trainable()) == (*rides, *trainable) {
        Ok(parsed)
    } else {
        Err(ReadError::Damaged("its number of rides differs from its index".to_owned()))
    }
}

#[cfg(test)]
mod tests;
