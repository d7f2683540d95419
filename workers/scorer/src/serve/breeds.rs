//! Breed models: loaded on demand, a bounded number in memory.
//!
//! ```text
//!                 ┌ in memory ────────────────────▶ it scores; older than a second: reloaded in the background
//! breed ─▶ lookup ┤ known to have no model ───────▶ global model: no_breed_model
//!                 └ not in memory ─▶ one load for ┬▶ in time: it scores
//!                   all requests (single-flight)  ├▶ late: global model: loading; the load continues
//!                                                 └▶ failed: global model: unavailable
//! ```
//!
//! A release is a global model and the breed models trained together with it. Within a request a breed model scores only beside the
//! global model of its release, so that a promotion or roll-back of the global model takes effect for all rides at once. Until the
//! breed's alias follows, the global model scores (no_breed_model), and the breed is reloaded in the background.

use crate::serve::{
    models::{Choice, Models},
    version::{self, AliasRead, NamedVersion},
};
use common::{
    message::{Fallback, ScoreRequest},
    model::AliasName,
    outcome::Failure,
    served::BreedCache,
};
use parking_lot::{Mutex, RwLock};
use quick_cache::{Lifecycle, OptionsBuilder, UnitWeighter, sync::Cache};
use records::{layout, store::Store};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    hash::{BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// Maximum number of models that are read at the same time.
const LOADS_MAX: usize = 16;
/// Maximum number of loads in progress or waiting; further breeds get the fallback `loading`.
const PENDING_MAX: usize = 1_024;
/// Minimum interval between two reloads of a model.
const FRESH: Duration = Duration::from_secs(1);
/// Stands for "never" among milliseconds since the start.
const NEVER: u64 = u64::MAX;

/// The state of a breed in memory.
struct Slot {
    known: RwLock<Known>,
    /// When the breed was last read, milliseconds since the start.
    read_ms: AtomicU64,
    /// When the breed was last reloaded because its model is of another release, milliseconds since the start.
    release_checked_ms: AtomicU64,
    /// Whether a reload is in progress.
    reading: AtomicBool,
    /// Number of promotion events.
    promotions: AtomicU64,
}

#[derive(Clone)]
enum Known {
    Model(Arc<NamedVersion>),
    Fallback(Fallback),
}

impl Known {
    /// Returns whether the model belongs to the release of another global model than the one with this id.
    fn is_foreign(&self, global: &str) -> bool {
        matches!(self, Self::Model(named) if named.model.global_model_id.as_deref().is_some_and(|id| id != global))
    }

    /// Returns what scores beside the global model with this id.
    fn beside(self, global: &str) -> Self {
        if self.is_foreign(global) { Self::Fallback(Fallback::NoBreedModel) } else { self }
    }
}

impl Slot {
    fn known(&self) -> Known {
        self.known.read().clone()
    }
}

/// Counts evictions.
#[derive(Clone, Default)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<String, Arc<Slot>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: String, _: Arc<Slot>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Slots = Cache<String, Arc<Slot>, UnitWeighter, BuildHasherDefault<DefaultHasher>, Evictions>;

/// The breed models in memory.
pub(crate) struct Breeds {
    family: String,
    store: Store,
    wait: Duration,
    /// Age after which a model is reloaded on its next use, in case the event of a promotion was lost.
    fresh: Duration,
    slots: Slots,
    evictions: Evictions,
    /// Permits to read a model.
    loading: Semaphore,
    /// Permits to load a model.
    pending: Arc<Semaphore>,
    /// Permits to wait for a load. A request without a permit is answered at once, so that some handlers stay free.
    waiting: Semaphore,
    counts: Mutex<BreedCache>,
    started: Instant,
}

impl Breeds {
    /// Creates an empty cache. At most `waiting_max` requests wait at the same time. A model is reloaded without an event once it is
    /// `follow` old, but at most once a second.
    pub(crate) fn new(
        family: &str,
        store: &Store,
        models_max: usize,
        wait: Duration,
        follow: Duration,
        waiting_max: usize,
    ) -> Self {
        let evictions = Evictions::default();
        // With one shard, the bound is exact and evictions are the same in every run.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(models_max)
            .weight_capacity(models_max as u64)
            .build()
            .expect("both capacities are given");
        Self {
            family: family.to_owned(),
            store: Arc::clone(store),
            wait,
            fresh: FRESH.max(follow),
            slots: Cache::with_options(options, UnitWeighter, BuildHasherDefault::default(), evictions.clone()),
            evictions,
            loading: Semaphore::new(LOADS_MAX),
            pending: Arc::new(Semaphore::new(PENDING_MAX)),
            waiting: Semaphore::new(waiting_max),
            counts: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Returns the number of breeds in memory, including those without a model.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the counts since the last call.
    pub(crate) fn take_counts(&self) -> BreedCache {
        let counts = std::mem::take(&mut *self.counts.lock());
        BreedCache { evictions: self.evictions.0.swap(0, Ordering::Relaxed), ..counts }
    }

    /// Chooses the models for the rides of a request. `within` is the time left for its answer.
    pub(crate) async fn choose(
        breeds: &Arc<Self>,
        global: Arc<NamedVersion>,
        request: &ScoreRequest,
        within: Option<Duration>,
    ) -> Models {
        let mut models = Models { global, breeds: Vec::new(), choices: Vec::new() };
        if request.rides.iter().all(|ride| ride.breed.is_none()) {
            return models;
        }
        let mut by_name: BTreeMap<&str, Choice> = BTreeMap::new();
        let mut by_family: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for name in request.rides.iter().filter_map(|ride| ride.breed.as_deref()) {
            if by_name.insert(name, Choice::Global).is_none()
                && let Some(family) = layout::breed_model(&breeds.family, name)
            {
                by_family.entry(family).or_default().push(name);
            }
        }
        let global = Arc::clone(&models.global);
        let global = global.model.model_id.as_str();
        for (family, known) in Self::look(breeds, by_family.keys(), global, within).await {
            let choice = match known.beside(global) {
                Known::Model(named) => {
                    models.breeds.push(named);
                    Choice::Breed(models.breeds.len() - 1)
                }
                Known::Fallback(why) => Choice::Fallback(why),
            };
            for name in by_family.get(family).into_iter().flatten() {
                by_name.insert(name, choice);
            }
        }
        let chosen = |breed: &str| by_name.get(breed).copied().unwrap_or(Choice::Global);
        models.choices =
            request.rides.iter().map(|ride| ride.breed.as_deref().map_or(Choice::Global, chosen)).collect();
        models
    }

    async fn look<'a>(
        breeds: &Arc<Self>,
        families: impl Iterator<Item = &'a String>,
        global: &str,
        within: Option<Duration>,
    ) -> Vec<(&'a String, Known)> {
        let mut states = Vec::new();
        let mut missed: Vec<(&String, JoinHandle<Arc<Slot>>)> = Vec::new();
        let (mut hits, mut misses) = (0, 0);
        for family in families {
            match breeds.slots.get(family) {
                Some(slot) => {
                    hits += 1;
                    let known = slot.known();
                    Self::revalidate(breeds, family, slot, known.is_foreign(global));
                    states.push((family, known));
                }
                None => {
                    misses += 1;
                    match Arc::clone(&breeds.pending).try_acquire_owned() {
                        Ok(permit) => missed.push((family, Self::load(breeds, family, permit))),
                        Err(_) => states.push((family, Known::Fallback(Fallback::Loading))),
                    }
                }
            }
        }
        {
            let mut counts = breeds.counts.lock();
            counts.hits += hits;
            counts.misses += misses;
        }
        if missed.is_empty() {
            return states;
        }
        let permit = breeds.waiting.try_acquire();
        // The answer must be sent within the request's time, too.
        let wait = within.map_or(breeds.wait, |within| breeds.wait.min(within / 2));
        let until = Instant::now() + if permit.is_ok() { wait } else { Duration::ZERO };
        for (family, loading) in missed {
            let known = match timeout_at(until, loading).await {
                Ok(Ok(slot)) => slot.known(),
                Ok(Err(_)) => Known::Fallback(Fallback::Unavailable),
                Err(_) => Known::Fallback(Fallback::Loading),
            };
            states.push((family, known));
        }
        states
    }

    /// Loads a breed model into memory, or joins a load in progress. The load continues if no request waits any more.
    fn load(breeds: &Arc<Self>, family: &str, pending: OwnedSemaphorePermit) -> JoinHandle<Arc<Slot>> {
        let (breeds, family) = (Arc::clone(breeds), family.to_owned());
        tokio::spawn(async move {
            let reading = async {
                let _permit = breeds.loading.acquire().await;
                let began = Instant::now();
                let known = breeds.read(&family, None).await.unwrap_or(Known::Fallback(Fallback::Unavailable));
                let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
                breeds.counts.lock().loaded(took_ms);
                Ok::<_, Infallible>(Arc::new(Slot {
                    known: RwLock::new(known),
                    read_ms: AtomicU64::new(breeds.now_ms()),
                    release_checked_ms: AtomicU64::new(NEVER),
                    reading: AtomicBool::new(false),
                    promotions: AtomicU64::new(0),
                }))
            };
            let Ok(slot) = breeds.slots.get_or_insert_async(&family, reading).await;
            drop(pending);
            slot
        })
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Reads a breed model from the store. Returns `None` if it is the known one, or if the read fails and one is known.
    async fn read(&self, family: &str, known: Option<&Arc<NamedVersion>>) -> Option<Known> {
        match version::read(&self.store, family, AliasName::Champion, known.map(Arc::as_ref)).await {
            Ok(AliasRead::New(named)) => Some(Known::Model(Arc::new(named))),
            Ok(AliasRead::Unchanged) => None,
            Ok(AliasRead::NoVersion) => Some(Known::Fallback(Fallback::NoBreedModel)),
            Err(why) => {
                match &why {
                    Failure::Permanent { .. } => {
                        tracing::error!(model = family, %why, "cannot serve a breed model")
                    }
                    _ => tracing::warn!(model = family, %why, "cannot read a breed model"),
                }
                // The last good model stays.
                known.is_none().then_some(Known::Fallback(Fallback::Unavailable))
            }
        }
    }

    /// Reloads a model in the background if it is old, or if it is of another release: its successor may have been promoted.
    fn revalidate(breeds: &Arc<Self>, family: &str, slot: Arc<Slot>, is_foreign: bool) {
        let now = breeds.now_ms();
        let is_past = |then: u64, age: Duration| then == NEVER || now.saturating_sub(then) >= age.as_millis() as u64;
        let is_old = is_past(slot.read_ms.load(Ordering::Relaxed), breeds.fresh);
        let checked = slot.release_checked_ms.load(Ordering::Relaxed);
        let is_other_release = is_foreign
            && is_past(checked, FRESH)
            && slot.release_checked_ms.compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_old || is_other_release {
            Self::reload(breeds, family, slot);
        }
    }

    /// Handles the promotion of a model: reloads it in the background if it is in memory.
    pub(crate) fn promoted(breeds: &Arc<Self>, family: &str) {
        if let Some(slot) = breeds.slots.peek(family) {
            slot.promotions.fetch_add(1, Ordering::AcqRel);
            Self::reload(breeds, family, slot);
        }
    }

    fn reload(breeds: &Arc<Self>, family: &str, slot: Arc<Slot>) {
        if slot.reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let (breeds, family) = (Arc::clone(breeds), family.to_owned());
        tokio::spawn(async move {
            loop {
                let promotions = slot.promotions.load(Ordering::Acquire);
                let _permit = breeds.loading.acquire().await;
                let model = match slot.known() {
                    Known::Model(named) => Some(named),
                    Known::Fallback(_) => None,
                };
                if let Some(known) = breeds.read(&family, model.as_ref()).await {
                    *slot.known.write() = known;
                }
                slot.read_ms.store(breeds.now_ms(), Ordering::Relaxed);
                slot.reading.store(false, Ordering::Release);
                // A promotion during the reload may be newer than what was read.
                if slot.promotions.load(Ordering::Acquire) == promotions || slot.reading.swap(true, Ordering::AcqRel) {
                    break;
                }
            }
        });
    }
}
