//! Turns rides into the bytes of a dataset: rows, statistics, parts, and the manifest. Pure.
//!
//! A staged chunk is one line of JSON ([`Heading`]) followed by the chunk's rows without a header. The dataset consists of the
//! rows of all chunks in the order of the batch, so its bytes depend on the rides and not on the chunks.

use common::{
    dataset::{COLUMNS, DatasetFile, Manifest},
    message::{BatchSplit, DatasetReady, EnrichedChunk, EnrichedRide, SplitDigest},
    ride::{Counts, Weather},
    schema::Described,
};
use records::layout;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, io::Write, ops::Range};

/// Why the staged chunks make no dataset.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A staged object does not have the format of this worker.
    #[error("staged chunk {chunk} is broken: {why}")]
    BrokenChunk {
        /// Number of the chunk.
        chunk: u32,
        /// Description of the fault.
        why: String,
    },
    /// The chunks hold more or fewer rides than the splitter counted.
    #[error("the splitter counted {accepted} accepted rides in {chunks} chunks, the chunks hold {staged}")]
    CountsDisagree {
        /// Number of accepted rides in the `batch-split` message.
        accepted: u64,
        /// Number of chunks in the `batch-split` message.
        chunks: u32,
        /// Number of rides in the staged chunks.
        staged: u64,
    },
    /// The staged chunks differ from those that the splitter sent.
    #[error("the splitter sent chunks with digest {sent}, the staged ones have {staged}")]
    DigestsDisagree {
        /// Digest in the `batch-split` message.
        sent: String,
        /// Digest of the staged chunks.
        staged: String,
    },
    /// The manifest exists but cannot be parsed.
    #[error("{path} is not a manifest: {why}")]
    BrokenManifest {
        /// Path in the object store.
        path: String,
        /// Description of the fault.
        why: String,
    },
    /// A value cannot be serialised.
    #[error("cannot be written as JSON: {0}")]
    Unencodable(#[from] serde_json::Error),
}

/// Counts of rides, for one chunk or for several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Number of rides.
    pub rides: u64,
    /// Number of rides with a label.
    pub labelled: u64,
    /// Number of rides with a label and weather.
    pub trainable: u64,
    /// Number of rides without weather, by reason.
    pub without_weather: Counts,
    /// Number of rides with weather, by station.
    pub stations: BTreeMap<String, u64>,
}

impl Statistics {
    /// Counts the rides of one chunk.
    pub fn of(rides: &[EnrichedRide]) -> Self {
        let mut total = Self::default();
        for EnrichedRide { ride, weather } in rides {
            let labelled = u64::from(ride.fieldservice.is_some());
            total.rides += 1;
            total.labelled += labelled;
            match weather {
                Weather::Observed(observation) => {
                    total.trainable += labelled;
                    add(&mut total.stations, &observation.groundstation, 1);
                }
                Weather::Missing(reason) => add(&mut total.without_weather, reason.as_str(), 1),
            }
        }
        total
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        self.rides += other.rides;
        self.labelled += other.labelled;
        self.trainable += other.trainable;
        for (reason, rides) in &other.without_weather {
            add(&mut self.without_weather, reason, *rides);
        }
        for (station, rides) in &other.stations {
            add(&mut self.stations, station, *rides);
        }
    }
}

fn add(counts: &mut BTreeMap<String, u64>, key: &str, rides: u64) {
    match counts.get_mut(key) {
        Some(count) => *count += rides,
        None => drop(counts.insert(key.to_owned(), rides)),
    }
}

/// First line of a staged chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// Digest of the chunk, from its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Counts of its rides.
    #[serde(flatten)]
    pub statistics: Statistics,
}

/// Returns the object that a chunk is staged as: its [`Heading`] in one line of JSON, then its rows.
///
/// # Errors
/// Fails with [`JoinError::Unencodable`], which no ride is known to cause.
pub fn staged(EnrichedChunk { digest, rides, .. }: &EnrichedChunk) -> Result<Vec<u8>, JoinError> {
    let mut object = serde_json::to_vec(&Heading { digest: digest.clone(), statistics: Statistics::of(rides) })?;
    object.reserve(1 + rides.len() * 192);
    object.push(b'\n');
    for ride in rides {
        push_row(&mut object, ride);
    }
    Ok(object)
}

/// Parses a staged object; returns its heading and the offset of its rows.
///
/// # Errors
/// Fails with [`JoinError::BrokenChunk`].
pub fn open_staged(chunk: u32, object: &[u8]) -> Result<(Heading, usize), JoinError> {
    let broken = |why: String| JoinError::BrokenChunk { chunk, why };
    let end = object.iter().position(|&byte| byte == b'\n').ok_or_else(|| broken("it has no first line".to_owned()))?;
    let (line, _) = object.split_at(end);
    let heading = serde_json::from_slice(line).map_err(|error| broken(error.to_string()))?;
    Ok((heading, end + 1))
}

/// Returns the header line, with which every part starts.
pub fn header() -> Vec<u8> {
    let mut line = COLUMNS.join(",").into_bytes();
    line.push(b'\n');
    line
}

/// Appends the row of one ride in the order of [`COLUMNS`].
pub fn push_row(out: &mut Vec<u8>, EnrichedRide { ride, weather }: &EnrichedRide) {
    push_text(out, &ride.ride_id);
    out.push(b',');
    push_text(out, &ride.name);
    out.push(b',');
    push_text(out, ride.breed.as_deref().unwrap_or_default());
    out.push(b',');
    out.extend_from_slice(&ride.statustime.canonical());
    for number in [ride.latitude, ride.longitude, ride.distance, ride.healthpoints, ride.magicpoints] {
        out.push(b',');
        push_number(out, number);
    }
    out.push(b',');
    if let Some(label) = ride.fieldservice {
        out.push(b'0' + u8::from(label.0));
    }
    match weather {
        Weather::Observed(observation) => {
            out.push(b',');
            push_text(out, &observation.groundstation);
            out.push(b',');
            push_six_decimals(out, observation.station_km);
            for tenths in [observation.tmin, observation.tmax, observation.prcp] {
                out.push(b',');
                push_integer(out, tenths.into());
            }
        }
        Weather::Missing(_) => out.extend_from_slice(b",,,,,"),
    }
    out.push(b'\n');
}

/// Appends a text field, quoted if RFC 4180 requires it.
fn push_text(out: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes();
    if !text.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Appends the shortest text that parses to the same number; an integer has no fraction.
fn push_number(out: &mut Vec<u8>, number: f64) {
    // Up to 2^53 the digits of an integer are its shortest text.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if number.trunc() == number && number.abs() <= WHOLE_MAX {
        return push_integer(out, number as i64);
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(number);
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

fn push_integer(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_digits(out, number.unsigned_abs(), 1);
}

/// Appends at least `width` digits, at most 20.
fn push_digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 && used >= width {
            break;
        }
    }
    let (_, digits) = digits.split_at(20 - used);
    out.extend_from_slice(digits);
}

/// Appends exactly six decimals.
fn push_six_decimals(out: &mut Vec<u8>, number: f64) {
    // More than half of Earth's circumference, and small enough that an `f64` resolves a millionth.
    const FAST_MAX: f64 = 1_000_000.0;
    if !(0.0..FAST_MAX).contains(&number) {
        let _ = write!(out, "{number:.6}");
        return;
    }
    let millionths = (number * 1e6).round() as u64;
    push_digits(out, millionths / 1_000_000, 1);
    out.push(b'.');
    push_digits(out, millionths % 1_000_000, 6);
}

/// Cuts a stream of rows into parts. A part ends before the row that would exceed the maximum size, but has at least one row. So
/// the cuts depend on the rows and not on the pieces in which they arrive.
#[derive(Debug)]
pub struct Parts {
    part_bytes_max: u64,
    number: u32,
    bytes: u64,
    rows: u64,
    sha256: Sha256,
}

/// A step of writing a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write these bytes of the piece to the open part.
    Write(Range<usize>),
    /// Close the open part. The next one starts with its [`header`].
    Close(Part),
}

/// A complete part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Number from 0.
    pub number: u32,
    /// Size with the header, bytes.
    pub bytes: u64,
    /// Number of rides.
    pub rows: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

impl Parts {
    /// Opens part 0, which starts with its [`header`].
    pub fn new(part_bytes_max: u64) -> Self {
        Self::open(part_bytes_max, 0)
    }

    fn open(part_bytes_max: u64, number: u32) -> Self {
        let header = header();
        let sha256 = Sha256::new_with_prefix(&header);
        Self { part_bytes_max, number, bytes: header.len() as u64, rows: 0, sha256 }
    }

    /// Takes the next `rows` rows. Returns the steps to write them, in order.
    pub fn push(&mut self, csv: &[u8], rows: u64) -> Vec<Step> {
        let mut steps = Vec::with_capacity(1);
        let (mut from, mut left) = (0, rows);
        while let Some(rest) = csv.get(from..).filter(|rest| !rest.is_empty()) {
            let room = self.part_bytes_max.saturating_sub(self.bytes);
            let (fit, fit_rows) = if rest.len() as u64 <= room {
                (rest.len(), left)
            } else {
                whole_rows(rest, usize::try_from(room).unwrap_or(usize::MAX), self.rows == 0)
            };
            if fit > 0 {
                let (written, _) = rest.split_at(fit);
                self.sha256.update(written);
                self.bytes += fit as u64;
                self.rows += fit_rows;
                left = left.saturating_sub(fit_rows);
                steps.push(Step::Write(from..from + fit));
                from += fit;
            }
            if from < csv.len() {
                let next = Self::open(self.part_bytes_max, self.number.saturating_add(1));
                steps.push(Step::Close(std::mem::replace(self, next).finish()));
            }
        }
        steps
    }

    /// Completes the open part.
    pub fn finish(self) -> Part {
        let Self { number, bytes, rows, sha256, .. } = self;
        Part { number, bytes, rows, sha256: hex::encode(sha256.finalize()) }
    }
}

/// Returns the size and the number of the rows that fit into `room`; with `at_least_one` the first row always counts. A line
/// feed inside quotes does not end a row.
fn whole_rows(csv: &[u8], room: usize, at_least_one: bool) -> (usize, u64) {
    let (mut end, mut rows, mut quoted) = (0, 0, false);
    for (at, byte) in csv.iter().enumerate() {
        if at >= room && (rows > 0 || !at_least_one) {
            return (end, rows);
        }
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => {
                end = at + 1;
                rows += 1;
            }
            _ => {}
        }
    }
    // One row that is larger than a part.
    (csv.len(), rows.max(1))
}

/// Returns the manifest of a complete dataset.
///
/// # Errors
/// Fails with [`JoinError::CountsDisagree`].
pub fn manifest(split: &BatchSplit, total: Statistics, parts: Vec<Part>) -> Result<Manifest, JoinError> {
    if total.rides != split.accepted {
        let BatchSplit { accepted, chunks, .. } = *split;
        return Err(JoinError::CountsDisagree { accepted, chunks, staged: total.rides });
    }
    let file = |Part { number, bytes, rows, sha256 }| DatasetFile {
        path: layout::dataset_part(&split.batch_id, number),
        bytes,
        rows,
        sha256,
    };
    Ok(Manifest {
        schema: Manifest::SCHEMA.name.to_owned(),
        batch_id: split.batch_id.clone(),
        sha256: split.sha256.clone(),
        columns: COLUMNS.map(str::to_owned).to_vec(),
        received: split.received,
        accepted: split.accepted,
        rejected: split.rejected,
        rejected_by_reason: split.rejected_by_reason.clone(),
        without_weather: total.without_weather,
        labelled: total.labelled,
        trainable: total.trainable,
        stations: total.stations,
        files: parts.into_iter().map(file).collect(),
    })
}

/// Checks that the staged chunks are those that the splitter sent.
///
/// # Errors
/// Fails with [`JoinError::DigestsDisagree`].
pub fn check_digest(split: &BatchSplit, staged: &SplitDigest) -> Result<(), JoinError> {
    match &split.digest {
        Some(sent) if *sent != staged.finish() => {
            Err(JoinError::DigestsDisagree { sent: sent.clone(), staged: staged.finish() })
        }
        _ => Ok(()),
    }
}

/// Serialises a manifest deterministically: indented JSON with a final line feed.
///
/// # Errors
/// Fails with [`JoinError::Unencodable`], which no manifest is known to cause.
pub fn manifest_bytes(manifest: &Manifest) -> Result<Vec<u8>, JoinError> {
    let mut bytes = serde_json::to_vec_pretty(manifest)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Parses a manifest.
///
/// # Errors
/// Fails with [`JoinError::BrokenManifest`].
pub fn read_manifest(batch_id: &str, bytes: &[u8]) -> Result<Manifest, JoinError> {
    serde_json::from_slice(bytes)
        .map_err(|error| JoinError::BrokenManifest { path: layout::manifest(batch_id), why: error.to_string() })
}

/// Returns whether a manifest describes the batch of `split`: the same bytes with the same counts.
pub fn same_batch(manifest: &Manifest, split: &BatchSplit) -> bool {
    manifest.sha256 == split.sha256
        && manifest.received == split.received
        && manifest.accepted == split.accepted
        && manifest.rejected == split.rejected
        && manifest.rejected_by_reason == split.rejected_by_reason
}

/// Returns the announcement of a dataset whose manifest has these bytes.
pub fn dataset_ready(manifest: &Manifest, bytes: &[u8]) -> DatasetReady {
    DatasetReady {
        batch_id: manifest.batch_id.clone(),
        manifest: layout::manifest(&manifest.batch_id),
        manifest_sha256: hex::encode(Sha256::digest(bytes)),
        rides: manifest.accepted,
    }
}

#[cfg(test)]
mod tests;
