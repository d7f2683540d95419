//! Reads the files of datasets from the object store and parses them on all cores.

use super::{
    cache::{Cache, EncodedPiece},
    plan::{Plan, transient_unless_announced},
    rows::{Columns, NO_BREED, ParsedBlock, Place, Rides, RowError, first_record, parse, whole_records},
    scored::{DelayedLabel, ScoredRides},
};
use bytes::Bytes;
use common::{
    dataset::{DatasetFile, Manifest},
    features::TEST_SHARE,
    model::TrainingCounts,
    outcome::Failure,
};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use object_store::{ObjectStoreExt, path::Path};
use records::store::{self, Store};
use runtime::host::offload;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Range,
    sync::Arc,
};

/// Size in bytes of a block to parse. Part of the cache's format: raise `cache::FORMAT` if it changes.
const BLOCK_BYTES: u64 = 4 * 1024 * 1024;
/// Number of blocks read ahead.
const READ_AHEAD: usize = 2;

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

/// A block that is being parsed, and encoded if there is a cache.
type Parsing = BoxFuture<'static, Result<Result<(ParsedBlock, Option<EncodedPiece>), RowError>, Failure>>;

/// Reads datasets from the cache or from their files.
struct Reading<'a> {
    store: &'a Store,
    threads: usize,
    cache: Option<Cache<'a>>,
}

/// The blocks of a dataset while it is read from its files.
struct Blocks {
    /// Index of the dataset in the plan.
    dataset: usize,
    /// Oldest first.
    parsing: VecDeque<Parsing>,
    /// Number of blocks that the cache returned before it failed; they are not added again.
    added: usize,
}

impl Reading<'_> {
    async fn dataset(&mut self, dataset: usize, manifest: &Manifest, loading: &mut Loading<'_>) -> Result<(), Failure> {
        let before = loading.totals();
        let replayed = match &mut self.cache {
            Some(cache) => cache.replay(dataset, |parsed| loading.add(parsed)).await,
            None => Err(0),
        };
        if let Err(added) = replayed {
            let mut blocks = Blocks { dataset, parsing: VecDeque::new(), added };
            for file in &manifest.files {
                self.file(file, &mut blocks, loading).await?;
            }
        }
        loading.check(manifest, before)?;
        if let (Some(cache), Err(_)) = (&mut self.cache, replayed) {
            cache.seal().await;
        }
        loading.dataset += 1;
        Ok(())
    }

    async fn file(
        &mut self,
        file: &DatasetFile,
        blocks: &mut Blocks,
        loading: &mut Loading<'_>,
    ) -> Result<(), Failure> {
        let path = Path::from(file.path.as_str());
        let changed = |why: String| Failure::permanent("dataset_changed", format!("{}: {why}", file.path));
        let broken = |error: RowError| Failure::permanent("broken_dataset", format!("{}: {error}", file.path));
        let size = match self.store.head(&path).await {
            Ok(meta) => meta.size,
            Err(object_store::Error::NotFound { .. }) => return Err(changed("the file is gone".to_owned())),
            Err(error) => return Err(store::outage(error)),
        };
        if size != file.bytes {
            return Err(changed(format!("{size} bytes; its manifest says {}", file.bytes)));
        }
        let store = self.store;
        let ranges = stream::iter(block_ranges(size)).map(|range| store.get_range(&path, range));
        let mut ranges = ranges.buffered(READ_AHEAD);
        let mut cutter = Cutter::default();
        let mut columns: Option<Arc<Columns>> = None;
        let is_cached = self.cache.is_some();
        while let Some(block) = ranges.next().await {
            let block = block.map_err(store::outage)?;
            let (returned, mut records) = offload(move || cutter.cut(&block)).await?;
            cutter = returned;
            if columns.is_none() {
                let Some(end) = first_record(&records) else { continue };
                columns = Some(Arc::new(Columns::from_header(records.get(..end).unwrap_or_default()).map_err(broken)?));
                records.drain(..end);
            }
            let Some(columns) = columns.clone() else { continue };
            while blocks.parsing.len() >= self.threads.max(1) {
                self.finish_oldest(blocks, loading).await?.map_err(broken)?;
            }
            blocks.parsing.push_back(offload(move || {
                let parsed = parse(&columns, &records)?;
                let encoded = is_cached.then(|| EncodedPiece::of(&parsed));
                Ok((parsed, encoded))
            }));
        }
        while !blocks.parsing.is_empty() {
            self.finish_oldest(blocks, loading).await?.map_err(broken)?;
        }
        let Cutter { carry, sha256 } = cutter;
        if hex::encode(sha256.finalize()) != file.sha256 {
            return Err(changed("its SHA-256 is not the one in its manifest".to_owned()));
        }
        if !carry.is_empty() || columns.is_none() {
            return Err(broken(RowError::Csv("the last record has no line end".to_owned())));
        }
        Ok(())
    }

    async fn finish_oldest(
        &mut self,
        blocks: &mut Blocks,
        loading: &mut Loading<'_>,
    ) -> Result<Result<(), RowError>, Failure> {
        let Some(oldest) = blocks.parsing.pop_front() else { return Ok(Ok(())) };
        let (parsed, encoded) = match oldest.await? {
            Ok(parsed) => parsed,
            Err(error) => return Ok(Err(error)),
        };
        if let (Some(cache), Some(encoded)) = (&mut self.cache, encoded) {
            cache.keep(blocks.dataset, encoded).await;
        }
        match blocks.added.checked_sub(1) {
            Some(left) => blocks.added = left,
            None => loading.add(parsed),
        }
        Ok(Ok(()))
    }
}

/// Cuts blocks where records end, and hashes them.
#[derive(Default)]
struct Cutter {
    /// The start of a record that ends in a later block.
    carry: Vec<u8>,
    sha256: Sha256,
}

impl Cutter {
    /// Returns the records that end in this block.
    fn cut(mut self, block: &Bytes) -> (Self, Vec<u8>) {
        self.sha256.update(block);
        let mut records = std::mem::take(&mut self.carry);
        records.extend_from_slice(block);
        let end = whole_records(&records);
        self.carry = records.get(end..).unwrap_or_default().to_vec();
        records.truncate(end);
        (self, records)
    }
}

fn block_ranges(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(BLOCK_BYTES)).map(move |index| index * BLOCK_BYTES..((index + 1) * BLOCK_BYTES).min(size))
}
