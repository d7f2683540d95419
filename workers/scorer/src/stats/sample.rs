//! A sample of the scored rides that have an id, written with their probability to be joined with delayed labels.
//!
//! If a day has more rides than are kept, those whose ids have the smallest xxh3 stay: a uniform sample of all rides and of those of
//! each version, independent of the order and number of requests.

use common::{outcome::Failure, served::write_scored};
use parking_lot::Mutex;
use records::{
    serving::{self, VersionDay},
    store::Store,
};
use runtime::host;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use xxhash_rust::xxh3::xxh3_64;

/// Maximum length of an id, bytes; rides with longer ids are not kept.
const RIDE_ID_BYTES_MAX: usize = 128;

struct Row {
    hash: u64,
    key: Arc<VersionDay>,
    ride_id: Box<str>,
    probability: f64,
}

#[derive(Default)]
struct Kept {
    /// Probabilities by hash, id and version; the last score counts.
    rows: BTreeMap<(u64, Box<str>, Arc<VersionDay>), f64>,
    /// Versions whose file must be written.
    unwritten: BTreeSet<Arc<VersionDay>>,
}

/// The sample of scored rides.
pub(crate) struct Sample {
    rides_max: usize,
    /// Rides since the last write.
    fresh: Mutex<Vec<Row>>,
    /// Rides with this hash or a larger one do not stay.
    limit: AtomicU64,
    kept: Arc<Mutex<Kept>>,
}

impl Sample {
    pub(crate) fn new(rides_max: usize) -> Self {
        Self { rides_max, fresh: Mutex::default(), limit: AtomicU64::new(u64::MAX), kept: Arc::default() }
    }

    /// Adds rides with the version that scored them and the probability, if they stay in the sample.
    pub(crate) fn note<'a>(&self, rides: impl Iterator<Item = (&'a Arc<VersionDay>, &'a str, f64)>) {
        if self.rides_max == 0 {
            return;
        }
        let limit = self.limit.load(Ordering::Relaxed);
        let mut rows: Vec<Row> = Vec::new();
        for (key, ride_id, probability) in rides {
            let hash = xxh3_64(ride_id.as_bytes());
            if hash >= limit || ride_id.len() > RIDE_ID_BYTES_MAX {
                continue;
            }
            rows.push(Row { hash, key: Arc::clone(key), ride_id: ride_id.into(), probability });
        }
        if rows.is_empty() {
            return;
        }
        let mut fresh = self.fresh.lock();
        fresh.append(&mut rows);
        if fresh.len() > 2 * self.rides_max {
            fresh.select_nth_unstable_by_key(self.rides_max, |row| row.hash);
            fresh.truncate(self.rides_max);
        }
    }

    /// Writes the complete file of each version whose sample has changed.
    pub(crate) async fn write(&self, store: &Store, scorer: &str, today: &str) -> Result<(), Failure> {
        let fresh = std::mem::take(&mut *self.fresh.lock());
        let (kept, rides_max) = (Arc::clone(&self.kept), self.rides_max);
        let encoding = host::offload(move || {
            let mut kept = kept.lock();
            kept.add(fresh, rides_max);
            (kept.files(), kept.limit(rides_max))
        });
        let (files, limit) = encoding.await?;
        self.limit.store(limit, Ordering::Relaxed);
        for (key, csv) in files {
            serving::write_scored(store, &key, scorer, csv).await?;
            self.kept.lock().unwritten.remove(&key);
        }
        // Samples of earlier days are written now, and are dropped from memory.
        let mut kept = self.kept.lock();
        kept.rows.retain(|(_, _, key), _| key.date.as_str() >= today);
        self.limit.store(kept.limit(rides_max), Ordering::Relaxed);
        Ok(())
    }
}

impl Kept {
    fn add(&mut self, fresh: Vec<Row>, rides_max: usize) {
        for Row { hash, key, ride_id, probability } in fresh {
            self.unwritten.insert(Arc::clone(&key));
            self.rows.insert((hash, ride_id, key), probability);
        }
        while self.rows.len() > rides_max {
            self.rows.pop_last();
        }
    }

    /// Returns the hash from which rides do not stay.
    fn limit(&self, rides_max: usize) -> u64 {
        match self.rows.last_key_value() {
            Some(((hash, ..), _)) if self.rows.len() >= rides_max => *hash,
            _ => u64::MAX,
        }
    }

    fn files(&self) -> Vec<(Arc<VersionDay>, Vec<u8>)> {
        let mut rides: BTreeMap<&Arc<VersionDay>, Vec<(&str, f64)>> =
            self.unwritten.iter().map(|key| (key, Vec::new())).collect();
        for ((_, ride_id, key), probability) in &self.rows {
            if let Some(rides) = rides.get_mut(key) {
                rides.push((ride_id, *probability));
            }
        }
        let files =
            rides.into_iter().filter_map(|(key, rides)| Some((Arc::clone(key), write_scored(rides.into_iter()).ok()?)));
        files.collect()
    }
}
