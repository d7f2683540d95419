//! The models of breeds: read when they are asked for, as many in memory as the settings say.
//!
//! ```text
//!               ┌ in memory ─────────────────────▶ it scores; older than a second: read again behind the scenes
//! breed ─▶ look ┤ has none, as one knows ────────▶ the model of all rides: no_breed_model
//!               └ not in memory ─▶ one reading ┬─▶ in time: it scores
//!                  for all who ask (single-    ├─▶ late: the model of all rides: loading; the reading goes on
//!                  flight)                     └─▶ failed: the model of all rides: unavailable
//! ```
//!
//! A release is the model of all rides and those of breeds that were trained beside it. Within a request a breed's model scores only
//! beside the one it belongs to (`centre`), so that a roll-back or promotion of that one holds for all rides at once: until the
//! breed's own name has followed, the model of all rides scores (no_breed_model), and the breed is read again behind the scenes.

use crate::serve::{
    models::{Choice, Models},
    version::{self, Found, Named},
};
use common::{
    message::{Fallback, ScoreRequest},
    model::AliasName,
    outcome::Failure,
    served::BreedCache,
};
use quick_cache::{Lifecycle, OptionsBuilder, UnitWeighter, sync::Cache};
use records::{layout, store::Store};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    hash::{BuildHasherDefault, DefaultHasher},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// Models that are read at the same time.
const LOADS_MAX: usize = 16;
/// Readings that are under way or wait for their turn at most: of breeds beyond them nobody knows for now.
const PENDING_MAX: usize = 1_024;
/// After which one that is asked for is looked at again, for promotions whose event did not arrive; and as long at least lies between
/// two readings of one that belongs to another release.
const FRESH: Duration = Duration::from_secs(1);
/// Not yet, among milliseconds since the start.
const NEVER: u64 = u64::MAX;

/// What is known of a breed.
struct Slot {
    known: RwLock<Known>,
    /// When it was last read, milliseconds since the start.
    read_ms: AtomicU64,
    /// When it was last read again because it belongs to another release, milliseconds since the start.
    sought_ms: AtomicU64,
    /// It is being read again.
    reading: AtomicBool,
    /// Promotions that were heard of.
    promotions: AtomicU64,
}

#[derive(Clone)]
enum Known {
    Model(Arc<Named>),
    Fallback(Fallback),
}

impl Known {
    /// A model that belongs to another release than that of the model of all rides with this id.
    fn is_foreign(&self, all: &str) -> bool {
        matches!(self, Self::Model(named) if named.model.centre.as_deref().is_some_and(|centre| centre != all))
    }

    /// What counts beside the model of all rides with this id.
    fn beside(self, all: &str) -> Self {
        if self.is_foreign(all) { Self::Fallback(Fallback::NoBreedModel) } else { self }
    }
}

impl Slot {
    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts who gives their place to others.
#[derive(Clone, Default)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<String, Arc<Slot>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: String, _: Arc<Slot>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Slots = Cache<String, Arc<Slot>, UnitWeighter, BuildHasherDefault<DefaultHasher>, Evictions>;

/// The models of breeds.
pub(crate) struct Breeds {
    family: String,
    store: Store,
    wait: Duration,
    slots: Slots,
    evictions: Evictions,
    /// Permits to read.
    loading: Semaphore,
    /// Permits to be under way to memory.
    pending: Arc<Semaphore>,
    /// Permits to wait: whoever gets none answers at once, so that requests for what is in memory find a free handler.
    waiting: Semaphore,
    counts: Mutex<BreedCache>,
    started: Instant,
}

impl Breeds {
    /// None in memory yet. `waiting_max` requests at most wait at the same time.
    pub(crate) fn new(family: &str, store: &Store, models_max: usize, wait: Duration, waiting_max: usize) -> Self {
        let evictions = Evictions::default();
        // One shard: the bound is exact, and what gives its place is the same on every run.
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
            slots: Cache::with_options(options, UnitWeighter, BuildHasherDefault::default(), evictions.clone()),
            evictions,
            loading: Semaphore::new(LOADS_MAX),
            pending: Arc::new(Semaphore::new(PENDING_MAX)),
            waiting: Semaphore::new(waiting_max),
            counts: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Breeds that are in memory, those without a model included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What was counted since this was last asked.
    pub(crate) fn take_counts(&self) -> BreedCache {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        BreedCache { evictions: self.evictions.0.swap(0, Ordering::Relaxed), ..counts }
    }

    /// Who scores the rides of a request. `within` is how long the request can wait at all.
    pub(crate) async fn choose(
        breeds: &Arc<Self>,
        all: Arc<Named>,
        request: &ScoreRequest,
        within: Option<Duration>,
    ) -> Models {
        let mut models = Models { all, breeds: Vec::new(), choices: Vec::new() };
        if request.rides.iter().all(|ride| ride.breed.is_none()) {
            return models;
        }
        let mut by_name: BTreeMap<&str, Choice> = BTreeMap::new();
        let mut by_family: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for name in request.rides.iter().filter_map(|ride| ride.breed.as_deref()) {
            if by_name.insert(name, Choice::All).is_none()
                && let Some(family) = layout::breed_model(&breeds.family, name)
            {
                by_family.entry(family).or_default().push(name);
            }
        }
        let all = Arc::clone(&models.all);
        let all = all.model.model_id.as_str();
        for (family, known) in Self::look(breeds, by_family.keys(), all, within).await {
            let choice = match known.beside(all) {
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
        let chosen = |breed: &str| by_name.get(breed).copied().unwrap_or(Choice::All);
        models.choices = request.rides.iter().map(|ride| ride.breed.as_deref().map_or(Choice::All, chosen)).collect();
        models
    }

    async fn look<'a>(
        breeds: &Arc<Self>,
        families: impl Iterator<Item = &'a String>,
        all: &str,
        within: Option<Duration>,
    ) -> Vec<(&'a String, Known)> {
        let mut found = Vec::new();
        let mut missed: Vec<(&String, JoinHandle<Arc<Slot>>)> = Vec::new();
        let (mut hits, mut misses) = (0, 0);
        for family in families {
            match breeds.slots.get(family) {
                Some(slot) => {
                    hits += 1;
                    let known = slot.known();
                    Self::revalidate(breeds, family, slot, known.is_foreign(all));
                    found.push((family, known));
                }
                None => {
                    misses += 1;
                    match Arc::clone(&breeds.pending).try_acquire_owned() {
                        Ok(permit) => missed.push((family, Self::load(breeds, family, permit))),
                        Err(_) => found.push((family, Known::Fallback(Fallback::Loading))),
                    }
                }
            }
        }
        {
            let mut counts = breeds.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.hits += hits;
            counts.misses += misses;
        }
        if missed.is_empty() {
            return found;
        }
        let permit = breeds.waiting.try_acquire();
        // A request that can wait for so long only is to be answered in that time, too.
        let wait = within.map_or(breeds.wait, |within| breeds.wait.min(within / 2));
        let until = Instant::now() + if permit.is_ok() { wait } else { Duration::ZERO };
        for (family, loading) in missed {
            let known = match timeout_at(until, loading).await {
                Ok(Ok(slot)) => slot.known(),
                Ok(Err(_)) => Known::Fallback(Fallback::Unavailable),
                Err(_) => Known::Fallback(Fallback::Loading),
            };
            found.push((family, known));
        }
        found
    }

    /// Reads a breed's model into memory, or waits for whoever does. It goes on when nobody waits any more.
    fn load(breeds: &Arc<Self>, family: &str, pending: OwnedSemaphorePermit) -> JoinHandle<Arc<Slot>> {
        let (breeds, family) = (Arc::clone(breeds), family.to_owned());
        tokio::spawn(async move {
            let reading = async {
                let _permit = breeds.loading.acquire().await;
                let began = Instant::now();
                let known = breeds.read(&family, None).await.unwrap_or(Known::Fallback(Fallback::Unavailable));
                let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
                breeds.counts.lock().unwrap_or_else(PoisonError::into_inner).loaded(took_ms);
                Ok::<_, Infallible>(Arc::new(Slot {
                    known: RwLock::new(known),
                    read_ms: AtomicU64::new(breeds.now_ms()),
                    sought_ms: AtomicU64::new(NEVER),
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

    /// What the store says of a breed; `None` when that is what is known, or nothing better.
    async fn read(&self, family: &str, known: Option<&Arc<Named>>) -> Option<Known> {
        match version::read(&self.store, family, AliasName::Champion, known.map(Arc::as_ref)).await {
            Ok(Found::New(named)) => Some(Known::Model(Arc::new(named))),
            Ok(Found::Known) => None,
            Ok(Found::Nothing) => Some(Known::Fallback(Fallback::NoBreedModel)),
            Err(why) => {
                match &why {
                    Failure::Permanent { .. } => {
                        tracing::error!(model = family, %why, "the model of a breed cannot be served")
                    }
                    _ => tracing::warn!(model = family, %why, "the model of a breed cannot be read now"),
                }
                // The last good one stays.
                known.is_none().then_some(Known::Fallback(Fallback::Unavailable))
            }
        }
    }

    /// Reads again in the background what was read some time ago, and at once what belongs to another release: its successor may
    /// have been promoted meanwhile.
    fn revalidate(breeds: &Arc<Self>, family: &str, slot: Arc<Slot>, is_foreign: bool) {
        let now = breeds.now_ms();
        let is_past = |then: u64| then == NEVER || now.saturating_sub(then) >= FRESH.as_millis() as u64;
        let is_old = is_past(slot.read_ms.load(Ordering::Relaxed));
        let sought = slot.sought_ms.load(Ordering::Relaxed);
        let is_sought = is_foreign
            && is_past(sought)
            && slot.sought_ms.compare_exchange(sought, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_old || is_sought {
            Self::read_again(breeds, family, slot);
        }
    }

    /// A model was promoted: where it is in memory, it is read again in the background.
    pub(crate) fn promoted(breeds: &Arc<Self>, family: &str) {
        if let Some(slot) = breeds.slots.peek(family) {
            slot.promotions.fetch_add(1, Ordering::AcqRel);
            Self::read_again(breeds, family, slot);
        }
    }

    fn read_again(breeds: &Arc<Self>, family: &str, slot: Arc<Slot>) {
        if slot.reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let (breeds, family) = (Arc::clone(breeds), family.to_owned());
        tokio::spawn(async move {
            loop {
                let heard = slot.promotions.load(Ordering::Acquire);
                let _permit = breeds.loading.acquire().await;
                let model = match slot.known() {
                    Known::Model(named) => Some(named),
                    Known::Fallback(_) => None,
                };
                if let Some(known) = breeds.read(&family, model.as_ref()).await {
                    *slot.known.write().unwrap_or_else(PoisonError::into_inner) = known;
                }
                slot.read_ms.store(breeds.now_ms(), Ordering::Relaxed);
                slot.reading.store(false, Ordering::Release);
                // A promotion that was heard of meanwhile may have come after the reading.
                if slot.promotions.load(Ordering::Acquire) == heard || slot.reading.swap(true, Ordering::AcqRel) {
                    break;
                }
            }
        });
    }
}
