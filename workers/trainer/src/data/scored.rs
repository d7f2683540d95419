//! Rides that were scored before their label arrived.
//!
//! A training reads the files of scored rides first ([`serving::scored`]), then notes the label of each such ride while it loads the
//! datasets. A ride that a version scored more than once counts once.

use common::outcome::Failure;
use futures::TryStreamExt;
use records::{
    serving::{self, VersionDay},
    store::Store,
};
use std::{collections::HashMap, pin::pin};
use xxhash_rust::xxh3::xxh3_128;

/// Maximum number of scored rides kept in memory, those of the latest days first; each takes about 100 bytes.
pub const SCORED_RIDES_MAX: usize = 1_000_000;

/// Scored rides by their id.
#[derive(Debug, Default)]
pub struct ScoredRides {
    /// Model family and id of each version.
    versions: Vec<(String, String)>,
    /// By `xxh3_128` of the ride's id: the number of each version in `versions` that scored the ride, and its probability.
    rides: HashMap<u128, Vec<(u32, f64)>>,
}

/// The label of a ride that was scored before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DelayedLabel {
    /// Number of the version in [`ScoredRides`].
    version: u32,
    /// Probability of a service request by that version.
    pub(crate) probability: f64,
    /// Whether the ride ended in a service request.
    pub(crate) service: bool,
    /// Number of the dataset that has the label.
    pub(crate) dataset: u32,
}

impl ScoredRides {
    /// Reads the files of the scorers. A file that cannot be decoded is left out, with a warning.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub async fn read(store: &Store) -> Result<Self, Failure> {
        let mut scored = Self::default();
        let mut left = SCORED_RIDES_MAX;
        let mut files = pin!(serving::scored(store).await?);
        while left > 0
            && let Some((day, rides)) = files.try_next().await?
        {
            left -= scored.add(day, rides.into_iter().take(left));
        }
        Ok(scored)
    }

    /// Adds the rides of a file; returns their number.
    fn add(&mut self, day: VersionDay, rides: impl Iterator<Item = (String, f64)>) -> usize {
        let version = (day.model, day.model_id);
        let number = self.versions.iter().position(|known| *known == version).unwrap_or_else(|| {
            self.versions.push(version);
            self.versions.len() - 1
        });
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut count = 0;
        for (ride_id, probability) in rides {
            count += 1;
            let of_ride = self.rides.entry(xxh3_128(ride_id.as_bytes())).or_default();
            if of_ride.iter().all(|(known, _)| *known != number) {
                of_ride.push((number, probability));
            }
        }
        count
    }

    /// Returns the delayed labels of a ride, one per version that scored it. `ride` is the `xxh3_128` of its id.
    pub fn labels(&self, ride: u128, service: bool, dataset: u32) -> impl Iterator<Item = DelayedLabel> + '_ {
        let of_ride = self.rides.get(&ride).into_iter().flatten();
        of_ride.map(move |&(version, probability)| DelayedLabel { version, probability, service, dataset })
    }

    /// Groups labels by model family and version.
    pub(crate) fn by_version<'a>(
        &'a self,
        labels: &'a mut [DelayedLabel],
    ) -> impl Iterator<Item = (&'a (String, String), &'a [DelayedLabel])> {
        labels.sort_by_key(|label| label.version);
        labels.chunk_by(|a, b| a.version == b.version).filter_map(|labels| {
            let version = usize::try_from(labels.first()?.version).ok()?;
            Some((self.versions.get(version)?, labels))
        })
    }
}
