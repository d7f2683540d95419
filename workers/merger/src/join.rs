//! Turns rides into staged chunks and these into the manifest of a dataset. Pure.
//!
//! A staged chunk is one line of JSON ([`Heading`]) followed by the chunk's rows without a header. The dataset consists of the
//! rows of all chunks in the order of the batch, so its bytes depend on the rides and not on the chunks.

use common::{
    dataset::{DatasetFile, FIRST_REVISION, Manifest},
    message::{BatchSplit, EnrichedChunk, EnrichedRide, SplitDigest},
    ride::{Counts, Weather},
    schema::Described,
};
use records::datasets::{column_names, push_row};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, num::NonZeroU32};

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
                Weather::Missing(reason) => add(&mut total.without_weather, reason.into(), 1),
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

/// Checks that the staged chunks have as many rides as the splitter counted.
///
/// # Errors
/// Fails with [`JoinError::CountsDisagree`].
pub fn check_counts(split: &BatchSplit, total: &Statistics) -> Result<(), JoinError> {
    if total.rides == split.accepted {
        return Ok(());
    }
    let BatchSplit { accepted, chunks, .. } = *split;
    Err(JoinError::CountsDisagree { accepted, chunks, staged: total.rides })
}

/// Returns the manifest of a complete revision of a dataset, whose rides `total` counts.
pub fn manifest(split: &BatchSplit, revision: NonZeroU32, total: Statistics, files: Vec<DatasetFile>) -> Manifest {
    Manifest {
        schema: Manifest::SCHEMA.name.to_owned(),
        batch_id: split.batch_id.clone(),
        revision: Some(revision).filter(|revision| *revision > FIRST_REVISION),
        sha256: split.sha256.clone(),
        columns: column_names().map(str::to_owned).to_vec(),
        received: split.received,
        accepted: split.accepted,
        rejected: split.rejected,
        rejected_by_reason: split.rejected_by_reason.clone(),
        without_weather: total.without_weather,
        labelled: total.labelled,
        trainable: total.trainable,
        stations: total.stations,
        files,
    }
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

/// Returns whether a manifest describes the batch of `split`: the same bytes with the same counts.
pub fn same_batch(manifest: &Manifest, split: &BatchSplit) -> bool {
    manifest.sha256 == split.sha256
        && manifest.received == split.received
        && manifest.accepted == split.accepted
        && manifest.rejected == split.rejected
        && manifest.rejected_by_reason == split.rejected_by_reason
}

#[cfg(test)]
mod tests;
