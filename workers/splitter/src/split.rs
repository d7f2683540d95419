//! Collects validated rides into chunks, counts and lists the rejected ones.

use crate::{
    document::{Content, Element, HEAD_BYTES},
    ride::{Outline, Validation},
};
use common::{
    document::RejectedRide,
    message::{BatchSplit, Refresh, RideChunk, SplitDigest},
    ride::{RejectReason, Ride},
};
use compact_str::CompactString;
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};
use xxhash_rust::xxh3::xxh3_128;

/// Maximum number of rides of one batch with their own `ride_id`. The table of their hashes, 16 bytes each, finds duplicates.
/// It is the only state that grows with the batch: up to 72 MB.
pub const GIVEN_IDS_MAX: usize = 3_500_000;

/// The batch has more than [`GIVEN_IDS_MAX`] rides with their own `ride_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {GIVEN_IDS_MAX} rides with a ride_id of their own; publish the batch in parts")]
pub struct TooManyRideIds;

/// The numbers of rides with and without a `ride_id`, counted by the first pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RideIds {
    /// Number of objects with a `ride_id`, valid or not.
    pub given: u64,
    /// Number of objects without one. If accepted, they get an id generated from their position.
    pub absent: u64,
}

impl RideIds {
    /// Counts one element of the document.
    pub fn count(&mut self, content: &Content<Outline>) {
        match content {
            Content::Object(Outline { has_ride_id: true, .. }) => self.given += 1,
            Content::Object(Outline { has_ride_id: false, .. }) => self.absent += 1,
            Content::NotAnObject | Content::Broken | Content::TooLarge => {}
        }
    }
}

/// Splits one batch into chunks.
#[derive(Debug)]
pub struct Split {
    batch_id: String,
    split_id: String,
    refresh: Option<Refresh>,
    /// `{batch_id}-`.
    prefix: CompactString,
    chunk_size: usize,
    rides: Vec<Ride>,
    /// Digest of the raw bytes of the rides in the current chunk.
    read: SplitDigest,
    /// Digest of the chunks sent so far.
    sent: SplitDigest,
    chunks: u32,
    accepted: u64,
    rejected: BTreeMap<RejectReason, u64>,
    reject_lines: Vec<u8>,
    given_ids: HashSet<u128, BuildHasherDefault<AlreadyHashed>>,
    generates_ids: bool,
}

impl Split {
    /// Starts to split `batch_id` into chunks of `chunk_size` rides (at least 1). `split_id` identifies this splitting,
    /// which is part of the attempt `refresh` to join the batch again, if given; `ride_ids` counts the ids in the document.
    pub fn new(batch_id: &str, split_id: String, refresh: Option<Refresh>, chunk_size: u32, ride_ids: RideIds) -> Self {
        let given = usize::try_from(ride_ids.given).unwrap_or(usize::MAX).min(GIVEN_IDS_MAX);
        let chunk_size = usize::try_from(chunk_size.max(1)).unwrap_or(usize::MAX);
        Self {
            batch_id: batch_id.to_owned(),
            split_id,
            refresh,
            prefix: compact_str::format_compact!("{batch_id}-"),
            chunk_size,
            rides: Vec::new(),
            read: SplitDigest::default(),
            sent: SplitDigest::default(),
            chunks: 0,
            accepted: 0,
            rejected: BTreeMap::new(),
            reject_lines: Vec::new(),
            given_ids: HashSet::with_capacity_and_hasher(given, BuildHasherDefault::default()),
            generates_ids: ride_ids.absent > 0,
        }
    }

    /// Takes the next element of the document and adds a ride to the chunk or a line to the rejects.
    ///
    /// # Errors
    /// Fails if the batch has more than [`GIVEN_IDS_MAX`] given ids.
    pub fn take(&mut self, element: Element<'_, Validation>) -> Result<(), TooManyRideIds> {
        let Element { index, raw, content } = element;
        let outcome = match content {
            Content::Object(Validation::Accepted(ride)) if ride.ride_id.is_empty() => {
                Ok(Ride { ride_id: self.generated_id(index), ..ride })
            }
            Content::Object(Validation::Accepted(ride)) => {
                if self.is_duplicate(&ride.ride_id, index)? {
                    Err(RejectReason::DuplicateRideId)
                } else {
                    Ok(ride)
                }
            }
            Content::Object(Validation::Rejected { reason, ride_id }) => {
                if !ride_id.is_empty() {
                    self.is_duplicate(&ride_id, index)?;
                }
                Err(reason)
            }
            Content::NotAnObject => Err(RejectReason::NotAnObject),
            Content::Broken => Err(RejectReason::InvalidJson),
            Content::TooLarge => Err(RejectReason::RideTooLarge),
        };
        match outcome {
            Ok(ride) => {
                self.accepted += 1;
                self.rides.push(ride);
                self.read.add(raw);
            }
            Err(reason) => {
                *self.rejected.entry(reason).or_default() += 1;
                write_reject(&mut self.reject_lines, index, reason, raw);
            }
        }
        Ok(())
    }

    /// Returns the next chunk if it is full.
    pub fn full_chunk(&mut self) -> Option<RideChunk> {
        if self.rides.len() >= self.chunk_size { self.chunk() } else { None }
    }

    /// Returns the remaining rides as a chunk, if there are any.
    pub fn last_chunk(&mut self) -> Option<RideChunk> {
        if self.rides.is_empty() { None } else { self.chunk() }
    }

    fn chunk(&mut self) -> Option<RideChunk> {
        let next = Vec::with_capacity(self.rides.len());
        let chunk = self.chunks;
        self.chunks = chunk.checked_add(1)?;
        let digest = std::mem::take(&mut self.read).finish();
        self.sent.add(digest.as_bytes());
        Some(RideChunk {
            batch_id: self.batch_id.clone(),
            chunk,
            split_id: Some(self.split_id.clone()),
            digest: Some(digest),
            refresh: self.refresh,
            rides: std::mem::replace(&mut self.rides, next),
        })
    }

    /// Returns the buffered lines for `rejected/<batch_id>.ndjson`.
    pub fn reject_lines(&self) -> &[u8] {
        &self.reject_lines
    }

    /// Drops the buffered lines after they were written.
    pub fn clear_reject_lines(&mut self) {
        self.reject_lines.clear();
    }

    /// Returns the summary of the batch.
    pub fn summary(&self, sha256: &str) -> BatchSplit {
        let rejected: u64 = self.rejected.values().sum();
        BatchSplit {
            batch_id: self.batch_id.clone(),
            sha256: sha256.to_owned(),
            split_id: Some(self.split_id.clone()),
            digest: Some(self.sent.finish()),
            refresh: self.refresh,
            chunks: self.chunks,
            received: self.accepted + rejected,
            accepted: self.accepted,
            rejected,
            rejected_by_reason: self
                .rejected
                .iter()
                .map(|(why, count)| (<&str>::from(*why).to_owned(), *count))
                .collect(),
        }
    }

    fn generated_id(&self, index: u64) -> CompactString {
        let mut digits = [0; 20];
        let mut ride_id = self.prefix.clone();
        ride_id.push_str(decimal(index, &mut digits));
        ride_id
    }

    /// Returns whether an earlier ride has this id, or, if ids are generated, another ride gets it as its generated id.
    fn is_duplicate(&mut self, ride_id: &str, index: u64) -> Result<bool, TooManyRideIds> {
        if self.generates_ids
            && let Some(digits) = ride_id.strip_prefix(self.prefix.as_str())
            && let Ok(number) = digits.parse::<u64>()
            && digits == decimal(number, &mut [0; 20])
        {
            return Ok(number != index);
        }
        let is_repeated = !self.given_ids.insert(xxh3_128(ride_id.as_bytes()));
        if self.given_ids.len() > GIVEN_IDS_MAX { Err(TooManyRideIds) } else { Ok(is_repeated) }
    }
}

fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &str {
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    let start = digits.len() - used;
    std::str::from_utf8(digits.get(start..).unwrap_or_default()).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(untagged)]
enum RawRide<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

/// Appends one line with the raw ride, without its line breaks. A ride that is not JSON, or that not every parser can read
/// (nested too deeply, a number beyond `f64`), becomes a string; of a ride that is too large only the first [`HEAD_BYTES`]
/// are kept.
fn write_reject(lines: &mut Vec<u8>, index: u64, reason: RejectReason, raw: &[u8]) {
    let excerpt = match reason {
        RejectReason::RideTooLarge => raw.get(..HEAD_BYTES).unwrap_or(raw),
        _ => raw,
    };
    let text = String::from_utf8_lossy(excerpt.trim_ascii());
    let one_line = serde_json::from_str::<Value>(&text).is_ok().then(|| without_line_breaks(&text));
    let json = one_line.as_deref().and_then(|json| serde_json::from_str::<&RawValue>(json).ok());
    let ride = json.map_or(RawRide::Text(&text), RawRide::Json);
    let start = lines.len();
    let (field, reason) = (reason.field().map(Cow::Borrowed), Cow::Borrowed(reason.into()));
    match serde_json::to_writer(&mut *lines, &RejectedRide { index, field, reason, ride }) {
        Ok(()) => lines.push(b'\n'),
        Err(_) => lines.truncate(start),
    }
}

/// Removes line breaks and the indentation after them. In JSON both occur only between tokens.
fn without_line_breaks(json: &str) -> String {
    let mut one_line = String::with_capacity(json.len());
    for (nth, line) in json.split(['\n', '\r']).enumerate() {
        one_line.push_str(if nth == 0 { line } else { line.trim_ascii_start() });
    }
    one_line
}

/// A hasher for keys that are hashes already.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests;
