//! Reads the datasets of a plan, from the cache or from their files, and parses them on all cores.

use super::{
    cache::{Cache, EncodedPiece},
    plan::{Plan, failure, transient_unless_announced},
    rows::{NO_BREED, ParsedBlock, Place, Rides, parse},
    scored::{DelayedLabel, ScoredRides},
};
use common::{dataset::Manifest, features::TEST_SHARE, model::TrainingCounts, outcome::Failure};
use records::{Store, datasets};
use runtime::host::offload;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Rides to train on and to test on.
#[derive(Debug, Default)]
pub struct TrainingData {
    /// Rides to train on.
    pub train: Rides,
    /// Held-out rides.
    pub test: Rides,
    /// How the rides were used.
    pub counts: TrainingCounts,
    /// Names of the breeds by their number in [`Rides::breed`].
    pub breeds: Vec<String>,
    /// Number of rides by station and month.
    pub coverage: BTreeMap<Place, u64>,
    /// Labels of rides that were scored before.
    pub delayed_labels: Vec<DelayedLabel>,
}

/// Maximum number of pairs of station and month to count separately; rides of further stations count under [`OTHER_PLACES`].
const PLACES_MAX: usize = 100_000;
/// Stands for the stations beyond `PLACES_MAX`.
pub const OTHER_PLACES: &str = "others";

/// Reads the datasets of the plan, sorted by batch id. If there is more than one and `cache` is set, cached datasets come from the cache.
/// A ride with a label and weather in several datasets counts in the first only. Notes the labels of rides in `scored`.
///
/// # Errors
/// Fails with [`Failure::Outage`] if the store cannot be reached. If a file differs from its manifest, fails permanently
/// (`dataset_changed`, `broken_dataset`) if its dataset was `announced` by the message at hand, otherwise transiently.
pub async fn load(
    store: &Store,
    plan: &Plan,
    announced: &str,
    scored: &ScoredRides,
    threads: usize,
    cache: bool,
) -> Result<TrainingData, Failure> {
    let Plan { manifests, datasets, .. } = plan;
    let mut loading = Loading::new(manifests, scored);
    // A single dataset gains nothing: no training reads it again before there is another one.
    let is_cached = cache && manifests.len() > 1;
    let cache = if is_cached { Some(Cache::open(store, manifests, datasets).await) } else { None };
    let mut reading = Reading { store, threads, cache };
    let mut read = Ok(());
    for (dataset, manifest) in manifests.iter().enumerate() {
        read = reading.dataset(dataset, manifest, &mut loading).await;
        if let Err(failure) = read {
            read = Err(transient_unless_announced(failure, &manifest.batch_id, announced));
            break;
        }
    }
    // Even if the training fails: the next attempt need not parse the same blocks again.
    if let Some(cache) = reading.cache {
        cache.finish().await;
    }
    read.map(|()| loading.finish())
}

struct Loading<'a> {
    scored: &'a ScoredRides,
    /// Number of the dataset that is being read.
    dataset: u32,
    data: TrainingData,
    /// Hashed ids of the rides so far; `None` if there is one dataset only, since ids are unique within a dataset.
    known: Option<HashSet<u128>>,
    breeds: HashMap<String, u32>,
}

impl<'a> Loading<'a> {
    fn new(manifests: &[Manifest], scored: &'a ScoredRides) -> Self {
        let trainable: u64 = manifests.iter().map(|manifest| manifest.trainable).sum();
        // Capacity from the start: a vector that grows takes its memory twice for a moment.
        let room = |share: f64| (trainable as f64 * share * 1.02) as usize + 1_000;
        Self {
            scored,
            dataset: 0,
            data: TrainingData {
                train: Rides::with_capacity(room(1.0 - TEST_SHARE)),
                test: Rides::with_capacity(room(TEST_SHARE)),
                ..TrainingData::default()
            },
            breeds: HashMap::new(),
            known: (manifests.len() > 1).then(|| HashSet::with_capacity(usize::try_from(trainable).unwrap_or(0))),
        }
    }

    fn add(&mut self, parsed: ParsedBlock) {
        let TrainingData { train, test, counts, breeds, coverage, delayed_labels } = &mut self.data;
        for ((station, month), rides) in parsed.coverage {
            let known = coverage.len() < PLACES_MAX || coverage.contains_key(&(station.clone(), month.clone()));
            let station = if known { station } else { OTHER_PLACES.to_owned() };
            *coverage.entry((station, month)).or_default() += rides;
        }
        let numbers: Vec<u32> = parsed
            .breeds
            .into_iter()
            .map(|name| {
                *self.breeds.entry(name).or_insert_with_key(|name| {
                    breeds.push(name.clone());
                    u32::try_from(breeds.len() - 1).unwrap_or(NO_BREED)
                })
            })
            .collect();
        counts.rides += parsed.rides;
        counts.unlabelled += parsed.unlabelled;
        counts.without_weather += parsed.without_weather;
        counts.out_of_range += parsed.out_of_range;
        for row in parsed.rows {
            if self.known.as_mut().is_some_and(|known| !known.insert(row.ride)) {
                counts.duplicates += 1;
            } else {
                delayed_labels.extend(self.scored.labels(row.ride, row.service, self.dataset));
                let side = if row.test { &mut *test } else { &mut *train };
                let breed = usize::try_from(row.breed).ok().and_then(|local| numbers.get(local)).copied();
                side.push(row.features, row.service, row.spread, breed.unwrap_or(NO_BREED));
            }
        }
    }

    /// Returns the number of rides so far, and of those with a label and weather.
    fn totals(&self) -> (u64, u64) {
        let TrainingData { train, test, counts, .. } = &self.data;
        (counts.rides, (train.len() + test.len()) as u64 + counts.duplicates + counts.out_of_range)
    }

    fn check(&self, manifest: &Manifest, before: (u64, u64)) -> Result<(), Failure> {
        let after = self.totals();
        let actual = (after.0 - before.0, after.1 - before.1);
        let expected = (manifest.accepted, manifest.trainable);
        if actual == expected {
            return Ok(());
        }
        let why = format!(
            "dataset {}: {} rides, {} of them trainable; its manifest says {} and {}",
            manifest.batch_id, actual.0, actual.1, expected.0, expected.1
        );
        Err(Failure::permanent("broken_dataset", why))
    }

    fn finish(mut self) -> TrainingData {
        let TrainingData { train, test, counts, .. } = &mut self.data;
        counts.train = train.len() as u64;
        counts.train_service = train.services() as u64;
        counts.test = test.len() as u64;
        counts.test_service = test.services() as u64;
        self.data
    }
}

/// Reads datasets from the cache or from their files.
struct Reading<'a> {
    store: &'a Store,
    threads: usize,
    cache: Option<Cache<'a>>,
}

impl Reading<'_> {
    async fn dataset(&mut self, dataset: usize, manifest: &Manifest, loading: &mut Loading<'_>) -> Result<(), Failure> {
        let before = loading.totals();
        let replayed = match &mut self.cache {
            Some(cache) => cache.replay(dataset, |parsed| loading.add(parsed)).await,
            None => Err(0),
        };
        if let Err(mut added) = replayed {
            let is_cached = self.cache.is_some();
            let mut blocks = datasets::Reader::new(self.store, manifest, self.threads, offload, move |records| {
                let parsed = parse(records)?;
                let encoded = is_cached.then(|| EncodedPiece::of(&parsed));
                Ok((parsed, encoded))
            });
            while let Some((parsed, encoded)) = blocks.next().await.map_err(failure)? {
                if let (Some(cache), Some(encoded)) = (&mut self.cache, encoded) {
                    cache.keep(dataset, encoded).await;
                }
                // The first blocks were added before the cache failed.
                match added.checked_sub(1) {
                    Some(left) => added = left,
                    None => loading.add(parsed),
                }
            }
        }
        loading.check(manifest, before)?;
        if let (Some(cache), Err(_)) = (&mut self.cache, replayed) {
            cache.seal().await;
        }
        loading.dataset += 1;
        Ok(())
    }
}
