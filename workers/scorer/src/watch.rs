//! Remembers what was asked and answered, and leaves it in the store.
//!
//! ```text
//! request ─▶ counts by version and day ─┐ some seconds later,   ┌▶ served/<model>/<id>/<date>/<scorer>.json
//!         └▶ rides that have an id ─────┴ behind the scenes ────┴▶ scored/<model>/<id>/<date>/<scorer>.csv
//! ```
//!
//! Answers never wait for it: a request takes one lock, and none while anything is written. What a process that is killed has not
//! written yet is lost.

use crate::{
    artefact::Servable,
    named::Named,
    sample::Sample,
    score::{Choice, Models, Seen, score_ride},
};
use common::{
    message::{Fallback, ScoreRequest},
    outcome::Failure,
    served::{BreedCache, FeatureTally, SERVED_SCHEMA, Served, Shadow, Tally, bin_of},
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{
    layout,
    store::{self, Store},
};
use runtime::host;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Versions that are counted at the same time at least.
const VERSIONS_MIN: usize = 64;
/// Snapshots that are written at the same time.
const WRITES_MAX: usize = 8;

/// Whose counts: one version on one day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) model: String,
    pub(crate) model_id: String,
    /// `YYYY-MM-DD`, UTC.
    pub(crate) date: String,
}

/// The counts of one version on one day.
struct Counted {
    tally: Tally,
    /// What its snapshot held when the counting began: its counts may have left the memory since this process wrote one.
    before: Option<Tally>,
    /// When it was counted last.
    turn: u64,
    /// When it was counted last of what is written.
    written: u64,
}

impl Counted {
    fn is_new(&self) -> bool {
        self.turn != self.written
    }
}

#[derive(Default)]
struct State {
    counted: BTreeMap<Arc<Key>, Counted>,
    turn: u64,
    /// A task will write soon.
    will_be_written: bool,
}

/// Remembers what was asked and answered.
pub(crate) struct Watch {
    store: Store,
    /// The process, by a name it made up.
    scorer: String,
    versions_max: usize,
    write_after: Duration,
    state: Mutex<State>,
    sample: Sample,
    /// One writer at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Watch {
    pub(crate) fn new(store: &Store, versions_max: usize, write_after: Duration, rides_max: usize) -> Self {
        Self {
            store: Arc::clone(store),
            scorer: format!("{:016x}", host::random_range(0..=u64::MAX)),
            versions_max: versions_max.max(VERSIONS_MIN),
            write_after,
            state: Mutex::default(),
            sample: Sample::new(rides_max),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that was answered, and has it written some time later.
    pub(crate) fn note(
        watch: &Arc<Self>,
        request: &ScoreRequest,
        models: &Models,
        seen: &[Option<Seen>],
        challenger: Option<&Named>,
        breeds: BreedCache,
    ) {
        let date = host::now().strftime("%F").to_string();
        let key = |named: &Arc<Named>| {
            let Servable { model, model_id, .. } = &named.model;
            Arc::new(Key { model: model.clone(), model_id: model_id.clone(), date: date.clone() })
        };
        let mut by_breed = vec![Vec::new(); models.breeds.len()];
        let mut answered = Tally { breeds: (breeds != BreedCache::default()).then_some(breeds), ..Tally::default() };
        for (index, choice) in models.choices.iter().enumerate() {
            match choice {
                Choice::All => {}
                Choice::Breed(place) => by_breed[*place].push(index),
                Choice::Fallback(Fallback::NoBreedModel) => answered.fallbacks.no_breed_model += 1,
                Choice::Fallback(Fallback::Loading) => answered.fallbacks.loading += 1,
                Choice::Fallback(Fallback::Unavailable) => answered.fallbacks.unavailable += 1,
            }
        }
        if let Some(challenger) = challenger {
            answered.shadows.push(shadow(&challenger.model, models, request, seen));
        }
        let round = Round {
            all: key(&models.all),
            breeds: models.breeds.iter().map(key).zip(by_breed).collect(),
            models,
            seen,
            by_all: by_all(models, request, seen),
            answered,
        };
        watch.state().count(&round, watch.versions_max);
        let rides = request.rides.iter().zip(seen).enumerate().filter_map(|(index, (ride, seen))| {
            let key = match models.choice(index) {
                Choice::Breed(place) => &round.breeds[place].0,
                Choice::All | Choice::Fallback(_) => &round.all,
            };
            Some((key, ride.ride_id.as_deref()?, seen.as_ref()?.probability))
        });
        watch.sample.note(rides);
        Self::write_soon(watch);
    }

    /// Sees to it that what is not written yet will be.
    fn write_soon(watch: &Arc<Self>) {
        if std::mem::replace(&mut watch.state().will_be_written, true) {
            return;
        }
        let watch = Arc::clone(watch);
        tokio::spawn(async move {
            tokio::time::sleep(watch.write_after).await;
            watch.state().will_be_written = false;
            if !watch.write().await {
                Self::write_soon(&watch);
            }
        });
    }

    /// Writes what is not written yet; whether nothing is left.
    pub(crate) async fn write(&self) -> bool {
        let _turn = self.turn.lock().await;
        let new: Vec<Arc<Key>> = {
            let state = self.state();
            state.counted.iter().filter(|(_, counted)| counted.is_new()).map(|(key, _)| Arc::clone(key)).collect()
        };
        let writing = stream::iter(new).map(Ok).try_for_each_concurrent(WRITES_MAX, |key| async move {
            let written = self.write_counts(&key).await;
            written.inspect_err(|why| {
                tracing::warn!(model = %key.model, model_id = %key.model_id, %why, "what was served is not written yet");
            })
        });
        if writing.await.is_err() {
            return false;
        }
        let today = host::now().strftime("%F").to_string();
        self.state().counted.retain(|key, counted| counted.is_new() || key.date >= today);
        if let Err(why) = self.sample.write(&self.store, &self.scorer, &today).await {
            tracing::warn!(%why, "the rides that were scored are not written yet");
            return false;
        }
        true
    }

    async fn write_counts(&self, key: &Key) -> Result<(), Failure> {
        let path = layout::served(&key.model, &key.model_id, &key.date, &self.scorer);
        if self.state().counted.get(key).is_some_and(|counted| counted.before.is_none()) {
            let before = match store::read_json::<Served>(&self.store, &path).await {
                Ok(before) => before.map(|served| served.tally).unwrap_or_default(),
                Err(Failure::Permanent { .. }) => Tally::default(),
                Err(outage) => return Err(outage),
            };
            if let Some(counted) = self.state().counted.get_mut(key) {
                counted.before = Some(before);
            }
        }
        let (tally, turn) = match self.state().counted.get(key) {
            Some(Counted { tally, before: Some(before), turn, .. }) => {
                let mut sum = before.clone();
                sum.add(tally);
                (sum, *turn)
            }
            _ => return Ok(()),
        };
        let served = Served {
            schema: SERVED_SCHEMA.to_owned(),
            model: key.model.clone(),
            model_id: key.model_id.clone(),
            date: key.date.clone(),
            scorer: self.scorer.clone(),
            tally,
        };
        let body = serde_json::to_vec(&served).map_err(|error| Failure::permanent("unencodable", error))?;
        store::write(&self.store, &path, body).await?;
        if let Some(counted) = self.state().counted.get_mut(key) {
            counted.written = turn;
        }
        Ok(())
    }

    /// Versions whose counts are in memory.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state().counted.len()
    }
}

/// What one request adds to the counts.
struct Round<'a> {
    all: Arc<Key>,
    /// In the order of the models, each with the places of its rides.
    breeds: Vec<(Arc<Key>, Vec<usize>)>,
    models: &'a Models,
    /// What was answered.
    seen: &'a [Option<Seen>],
    /// What the model of all rides sees in them, whoever answered.
    by_all: Cow<'a, [Option<Seen>]>,
    /// What is counted of the whole request.
    answered: Tally,
}

impl State {
    /// Counts the rides of a request: those that a breed's model scored with that one, and all of them with the model of all rides.
    fn count(&mut self, round: &Round<'_>, versions_max: usize) {
        let Round { models, seen, .. } = *round;
        self.turn += 1;
        let mut uncounted = 0;
        for ((key, rides), named) in round.breeds.iter().zip(&models.breeds) {
            let seen = rides.iter().filter_map(|&index| seen[index].as_ref());
            match self.of(key, &named.model, versions_max) {
                Some(counted) => seen.for_each(|seen| {
                    note_answer(&mut counted.tally, &named.model, seen);
                    note_ride(&mut counted.tally, &named.model, seen);
                }),
                None => uncounted += seen.count() as u64,
            }
        }
        let Some(counted) = self.of(&round.all, &models.all.model, usize::MAX) else { return };
        for (index, seen) in seen.iter().enumerate() {
            let Some(seen) = seen else { continue };
            note_answer(&mut counted.tally, models.model(models.choice(index)), seen);
            if let Some(seen) = &round.by_all[index] {
                note_ride(&mut counted.tally, &models.all.model, seen);
            }
        }
        counted.tally.add(&round.answered);
        counted.tally.uncounted += uncounted;
    }

    /// The counts of a version; none where too many are in memory and not written yet.
    fn of(&mut self, key: &Arc<Key>, model: &Servable, versions_max: usize) -> Option<&mut Counted> {
        let turn = self.turn;
        if !self.counted.contains_key(key) {
            if self.counted.len() >= versions_max {
                let written = self.counted.iter().filter(|(_, counted)| !counted.is_new());
                let oldest = written.min_by_key(|(_, counted)| counted.turn).map(|(key, _)| Arc::clone(key))?;
                self.counted.remove(&oldest);
            }
            let features = model.weights.iter().filter_map(|weight| {
                let bins = weight.edges.as_ref()?.len() + 1;
                Some(FeatureTally { feature: weight.feature().name.to_owned(), rides: vec![0; bins] })
            });
            let features = features.collect();
            let tally = Tally { features, probabilities: vec![0; model.parts], ..Tally::default() };
            self.counted.insert(Arc::clone(key), Counted { tally, before: None, turn, written: 0 });
        }
        let counted = self.counted.get_mut(key)?;
        counted.turn = turn;
        Some(counted)
    }
}

/// What the model of all rides sees in the rides that were answered; nothing in those that lack a feature it uses.
fn by_all<'a>(models: &Models, request: &ScoreRequest, seen: &'a [Option<Seen>]) -> Cow<'a, [Option<Seen>]> {
    if models.breeds.is_empty() {
        return Cow::Borrowed(seen);
    }
    let rides = request.rides.iter().zip(seen).enumerate();
    let by_all = rides.map(|(index, (ride, seen))| match models.choice(index) {
        Choice::Breed(_) if seen.is_some() => score_ride(&models.all.model, ride, request.units).ok(),
        _ => *seen,
    });
    Cow::Owned(by_all.collect())
}

/// Counts an answer that `model` gave.
fn note_answer(tally: &mut Tally, model: &Servable, seen: &Seen) {
    tally.rides += 1;
    tally.service += u64::from(seen.probability >= model.threshold);
}

/// Counts where a ride lies among those that `model`, whose tally it is, was trained on.
fn note_ride(tally: &mut Tally, model: &Servable, seen: &Seen) {
    tally.probabilities[bin_of(seen.probability, 0.0, 1.0, model.parts)] += 1;
    let values = model.weights.iter().zip(seen.features);
    let counted = values.filter_map(|(weight, value)| Some((weight.edges.as_ref()?, value)));
    for ((edges, value), feature) in counted.zip(&mut tally.features) {
        feature.rides[edges.partition_point(|edge| *edge <= value)] += 1;
    }
}

/// What the challenger says of the rides, held against what was answered.
fn shadow(challenger: &Servable, models: &Models, request: &ScoreRequest, seen: &[Option<Seen>]) -> Shadow {
    let mut shadow = Shadow::new(&challenger.model_id);
    for (index, (ride, seen)) in request.rides.iter().zip(seen).enumerate() {
        let Some(seen) = seen else { continue };
        match score_ride(challenger, ride, request.units) {
            Ok(Seen { probability, .. }) => {
                let service = seen.probability >= models.model(models.choice(index)).threshold;
                shadow.count(probability - seen.probability, (probability >= challenger.threshold) != service);
            }
            Err(_) => shadow.unscored += 1,
        }
    }
    shadow
}
