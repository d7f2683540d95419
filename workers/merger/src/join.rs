//! Rides in, dataset bytes out: rows, statistics, the cut into parts, the manifest.
//!
//! A staged chunk is one line of JSON ([`Heading`]) followed by the chunk's rows without a header. The dataset is the
//! rows of all chunks in the order of the batch, so its bytes depend on the rides alone and not on how they were cut
//! into chunks.

use common::{
    dataset::{COLUMNS, DatasetFile, MANIFEST_SCHEMA, Manifest},
    message::{BatchSplit, DatasetReady, EnrichedChunk, EnrichedRide, SplitDigest},
    ride::{Counts, Weather},
};
use records::layout;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, io::Write, ops::Range};

/// Why a dataset cannot be written from what is staged.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A staged object is not what this worker writes.
    #[error("staged chunk {chunk} is broken: {why}")]
    BrokenChunk {
        /// Number of the chunk.
        chunk: u32,
        /// In words.
        why: String,
    },
    /// The chunks hold more or fewer rides than the splitter counted.
    #[error("the splitter counted {accepted} accepted rides in {chunks} chunks, the chunks hold {staged}")]
    CountsDisagree {
        /// By the splitter's account.
        accepted: u64,
        /// By the splitter's account.
        chunks: u32,
        /// In the staged chunks.
        staged: u64,
    },
    /// The staged chunks are not the ones that the splitter sent.
    #[error("the splitter sent chunks with digest {sent}, the staged ones have {staged}")]
    DigestsDisagree {
        /// As the splitter's `batch-split` message says.
        sent: String,
        /// Computed from the staged chunks.
        staged: String,
    },
    /// There is a manifest, but it is not JSON of the shape it should have.
    #[error("{path} is no manifest: {why}")]
    BrokenManifest {
        /// Its path in the object store.
        path: String,
        /// In words.
        why: String,
    },
    /// A value that JSON cannot hold.
    #[error("cannot be written as JSON: {0}")]
    Unencodable(#[from] serde_json::Error),
}

/// What is counted about rides, for one chunk or for many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Rides.
    pub rides: u64,
    /// Rides with a label.
    pub labelled: u64,
    /// Rides with a label and weather.
    pub trainable: u64,
    /// Rides without weather by reason.
    pub without_weather: Counts,
    /// Rides served by each station.
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

    /// Adds what was counted elsewhere.
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
    /// The chunk's fingerprint, as its message names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Counts of its rides.
    #[serde(flatten)]
    pub statistics: Statistics,
}

/// The object a chunk is staged as: its [`Heading`] in one line of JSON, then its rows.
///
/// # Errors
/// [`JoinError::Unencodable`], which no ride is known to cause.
pub fn staged(EnrichedChunk { digest, rides, .. }: &EnrichedChunk) -> Result<Vec<u8>, JoinError> {
    let mut object = serde_json::to_vec(&Heading { digest: digest.clone(), statistics: Statistics::of(rides) })?;
    object.reserve(1 + rides.len() * 192);
    object.push(b'\n');
    for ride in rides {
        push_row(&mut object, ride);
    }
    Ok(object)
}

/// Takes a staged object apart: its heading and where its rows start.
///
/// # Errors
/// [`JoinError::BrokenChunk`].
pub fn open_staged(chunk: u32, object: &[u8]) -> Result<(Heading, usize), JoinError> {
    let broken = |why: String| JoinError::BrokenChunk { chunk, why };
    let end = object.iter().position(|&byte| byte == b'\n').ok_or_else(|| broken("it has no first line".to_owned()))?;
    let (line, _) = object.split_at(end);
    let heading = serde_json::from_slice(line).map_err(|error| broken(error.to_string()))?;
    Ok((heading, end + 1))
}

/// The header line every part starts with.
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

/// A text field, quoted where RFC 4180 asks for it.
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

/// The shortest text that reads back as the same number; whole numbers without a fraction.
fn push_number(out: &mut Vec<u8>, number: f64) {
    // Up to 2^53 the digits of a whole number are the shortest there are.
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

/// At least `width` digits, at most 20.
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

/// Exactly six decimals.
fn push_six_decimals(out: &mut Vec<u8>, number: f64) {
    // Far more than half the Earth's circumference, far below where a millionth is less than one step of an f64.
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

/// Cuts a stream of rows into parts. A part ends where its next row would make it larger than the maximum (but holds at
/// least one), so the cuts depend on the rows and never on the pieces they come in.
#[derive(Debug)]
pub struct Parts {
    part_bytes_max: u64,
    number: u32,
    bytes: u64,
    rows: u64,
    sha256: Sha256,
}

/// What to do with the bytes of a piece, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These bytes of the piece go into the open part.
    Write(Range<usize>),
    /// The open part is complete; the next one starts with its [`header`].
    Close(Part),
}

/// A complete part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub number: u32,
    /// Size, header included.
    pub bytes: u64,
    /// Rides.
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

    /// Takes the next `rows` rows.
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

/// Bytes and number of the rows that fit into `room`; the first fits always when `at_least_one`. A line feed inside
/// quotes ends no row.
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
    // One row, larger than a whole part.
    (csv.len(), rows.max(1))
}

/// The manifest of a complete dataset.
///
/// # Errors
/// [`JoinError::CountsDisagree`].
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
        schema: MANIFEST_SCHEMA.to_owned(),
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

/// Whether the staged chunks are the ones that the splitter sent.
///
/// # Errors
/// [`JoinError::DigestsDisagree`].
pub fn check_digest(split: &BatchSplit, staged: &SplitDigest) -> Result<(), JoinError> {
    match &split.digest {
        Some(sent) if *sent != staged.finish() => {
            Err(JoinError::DigestsDisagree { sent: sent.clone(), staged: staged.finish() })
        }
        _ => Ok(()),
    }
}

/// The bytes of a manifest: indented JSON and a final line feed, the same for the same manifest.
///
/// # Errors
/// [`JoinError::Unencodable`], which no manifest is known to cause.
pub fn manifest_bytes(manifest: &Manifest) -> Result<Vec<u8>, JoinError> {
    let mut bytes = serde_json::to_vec_pretty(manifest)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a manifest back from its bytes.
///
/// # Errors
/// [`JoinError::BrokenManifest`].
pub fn read_manifest(batch_id: &str, bytes: &[u8]) -> Result<Manifest, JoinError> {
    serde_json::from_slice(bytes)
        .map_err(|error| JoinError::BrokenManifest { path: layout::manifest(batch_id), why: error.to_string() })
}

/// Whether a manifest is of the batch that `split` tells of: the same bytes, counted the same way.
pub fn same_batch(manifest: &Manifest, split: &BatchSplit) -> bool {
    manifest.sha256 == split.sha256
        && manifest.received == split.received
        && manifest.accepted == split.accepted
        && manifest.rejected == split.rejected
        && manifest.rejected_by_reason == split.rejected_by_reason
}

/// What is announced of a dataset whose manifest has these bytes.
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
