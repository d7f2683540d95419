//! Counts what was scored, and writes the counts to the store.
//!
//! ```text
//! request ─▶ counts by version and day ──┐ some seconds later ┌▶ serving statistics
//!         └▶ sample of rides with an id ─┴ in the background ─┴▶ scored rides
//! ```
//!
//! Answers never wait for a write: a request takes one lock, which no write holds. A process that is killed loses what it has not
//! written yet.

use crate::{
    score::{Evaluation, Reading, score_ride},
    serve::{
        artefact::Servable,
        models::{Choice, Models},
        version::NamedVersion,
    },
    stats::sample::Sample,
};
use common::{
    message::{Fallback, ScoreRequest},
    outcome::Failure,
    served::{BreedCache, FeatureTally, Shadow, Tally, bin_of},
};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use records::{
    serving::{self, VersionDay},
    store::Store,
};
use runtime::host;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

/// Minimum number of versions that can be counted at the same time.
const VERSIONS_MIN: usize = 64;
/// Maximum number of snapshots that are written at the same time.
const WRITES_MAX: usize = 8;

/// The counts of one version on one day.
struct Counted {
    tally: Tally,
    /// The stored snapshot when counting began: this process may have written one before the counts were evicted from memory.
    before: Option<Tally>,
    /// Turn of the last count.
    turn: u64,
    /// Turn of the last count that is written.
    written: u64,
}

impl Counted {
    fn is_new(&self) -> bool {
        self.turn != self.written
    }
}

#[derive(Default)]
struct State {
    counted: BTreeMap<Arc<VersionDay>, Counted>,
    turn: u64,
    /// Whether a task will write soon.
    will_be_written: bool,
}

/// Serving statistics of this process.
pub(crate) struct ServingStats {
    store: Store,
    /// Random name of the process.
    scorer: String,
    versions_max: usize,
    write_after: Duration,
    state: Mutex<State>,
    sample: Sample,
    /// One writer at a time.
    turn: tokio::sync::Mutex<()>,
}

impl ServingStats {
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

    /// Counts an answered request, and schedules a write.
    pub(crate) fn note(
        stats: &Arc<Self>,
        request: &ScoreRequest,
        models: &Models,
        evaluations: &[Option<Evaluation>],
        challenger: Option<&NamedVersion>,
        breeds: BreedCache,
    ) {
        let date = host::now().strftime("%F").to_string();
        let key = |named: &Arc<NamedVersion>| {
            let Servable { model, model_id, .. } = &named.model;
            Arc::new(VersionDay { model: model.clone(), model_id: model_id.clone(), date: date.clone() })
        };
        let mut by_breed = vec![Vec::new(); models.breeds.len()];
        let mut answered = Tally { breeds: (breeds != BreedCache::default()).then_some(breeds), ..Tally::default() };
        for (index, choice) in models.choices.iter().enumerate() {
            match choice {
                Choice::Global => {}
                Choice::Breed(place) => by_breed[*place].push(index),
                Choice::Fallback(Fallback::NoBreedModel) => answered.fallbacks.no_breed_model += 1,
                Choice::Fallback(Fallback::Loading) => answered.fallbacks.loading += 1,
                Choice::Fallback(Fallback::Unavailable) => answered.fallbacks.unavailable += 1,
            }
        }
        if let Some(challenger) = challenger {
            answered.shadows.push(shadow(&challenger.model, models, request, evaluations));
        }
        let round = Round {
            global: key(&models.global),
            breeds: models.breeds.iter().map(key).zip(by_breed).collect(),
            models,
            evaluations,
            by_global: by_global(models, request, evaluations),
            answered,
        };
        stats.state.lock().count(&round, stats.versions_max);
        let rides = request.rides.iter().zip(evaluations).enumerate().filter_map(|(index, (ride, evaluation))| {
            let key = match models.choice(index) {
                Choice::Breed(place) => &round.breeds[place].0,
                Choice::Global | Choice::Fallback(_) => &round.global,
            };
            Some((key, ride.ride_id.as_deref()?, evaluation.as_ref()?.probability))
        });
        stats.sample.note(rides);
        Self::write_soon(stats);
    }

    /// Schedules a write of all counts that are not written yet.
    fn write_soon(stats: &Arc<Self>) {
        if std::mem::replace(&mut stats.state.lock().will_be_written, true) {
            return;
        }
        let stats = Arc::clone(stats);
        tokio::spawn(async move {
            tokio::time::sleep(stats.write_after).await;
            stats.state.lock().will_be_written = false;
            if !stats.write().await {
                Self::write_soon(&stats);
            }
        });
    }

    /// Writes all counts that are not written yet. Returns whether that succeeded.
    pub(crate) async fn write(&self) -> bool {
        let _turn = self.turn.lock().await;
        let new: Vec<Arc<VersionDay>> = {
            let state = self.state.lock();
            state.counted.iter().filter(|(_, counted)| counted.is_new()).map(|(key, _)| Arc::clone(key)).collect()
        };
        let writing = stream::iter(new).map(Ok).try_for_each_concurrent(WRITES_MAX, |key| async move {
            let written = self.write_counts(&key).await;
            written.inspect_err(|why| {
                tracing::warn!(model = %key.model, model_id = %key.model_id, %why, "cannot write serving statistics yet");
            })
        });
        if writing.await.is_err() {
            return false;
        }
        let today = host::now().strftime("%F").to_string();
        self.state.lock().counted.retain(|key, counted| counted.is_new() || key.date >= today);
        if let Err(why) = self.sample.write(&self.store, &self.scorer, &today).await {
            tracing::warn!(%why, "cannot write the sample of scored rides yet");
            return false;
        }
        true
    }

    async fn write_counts(&self, key: &VersionDay) -> Result<(), Failure> {
        if self.state.lock().counted.get(key).is_some_and(|counted| counted.before.is_none()) {
            let before = serving::written(&self.store, key, &self.scorer).await?;
            if let Some(counted) = self.state.lock().counted.get_mut(key) {
                counted.before = Some(before);
            }
        }
        let (tally, turn) = match self.state.lock().counted.get(key) {
            Some(Counted { tally, before: Some(before), turn, .. }) => {
                let mut sum = before.clone();
                sum.add(tally);
                (sum, *turn)
            }
            _ => return Ok(()),
        };
        serving::write(&self.store, key, &self.scorer, tally).await?;
        if let Some(counted) = self.state.lock().counted.get_mut(key) {
            counted.written = turn;
        }
        Ok(())
    }

    /// Returns the number of versions whose counts are in memory.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state.lock().counted.len()
    }
}

/// What one request adds to the counts.
struct Round<'a> {
    global: Arc<VersionDay>,
    /// In the order of the models, each with the indices of its rides.
    breeds: Vec<(Arc<VersionDay>, Vec<usize>)>,
    models: &'a Models,
    /// The returned scores.
    evaluations: &'a [Option<Evaluation>],
    /// The scores by the global model, whichever model's were returned.
    by_global: Cow<'a, [Option<Evaluation>]>,
    /// Counts of the whole request.
    answered: Tally,
}

impl State {
    /// Counts the rides of a request: those that a breed model scored for that model, and all of them for the global model.
    fn count(&mut self, round: &Round<'_>, versions_max: usize) {
        let Round { models, evaluations, .. } = *round;
        self.turn += 1;
        let mut uncounted = 0;
        for ((key, rides), named) in round.breeds.iter().zip(&models.breeds) {
            let evaluations = rides.iter().filter_map(|&index| evaluations[index].as_ref());
            match self.of(key, &named.model, versions_max) {
                Some(counted) => evaluations.for_each(|evaluation| {
                    note_answer(&mut counted.tally, &named.model, evaluation);
                    note_ride(&mut counted.tally, &named.model, evaluation);
                }),
                None => uncounted += evaluations.count() as u64,
            }
        }
        let Some(counted) = self.of(&round.global, &models.global.model, usize::MAX) else { return };
        for (index, evaluation) in evaluations.iter().enumerate() {
            let Some(evaluation) = evaluation else { continue };
            note_answer(&mut counted.tally, models.model(models.choice(index)), evaluation);
            if let Some(evaluation) = &round.by_global[index] {
                note_ride(&mut counted.tally, &models.global.model, evaluation);
            }
        }
        counted.tally.add(&round.answered);
        counted.tally.uncounted += uncounted;
    }

    /// Returns the counts of a version; `None` if too many versions are in memory and not written yet.
    fn of(&mut self, key: &Arc<VersionDay>, model: &Servable, versions_max: usize) -> Option<&mut Counted> {
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

/// Scores the rides by the global model; `None` for rides that lack a feature it uses.
fn by_global<'a>(
    models: &Models,
    request: &ScoreRequest,
    evaluations: &'a [Option<Evaluation>],
) -> Cow<'a, [Option<Evaluation>]> {
    if models.breeds.is_empty() {
        return Cow::Borrowed(evaluations);
    }
    let rides = request.rides.iter().zip(evaluations).enumerate();
    let by_global = rides.map(|(index, (ride, evaluation))| match models.choice(index) {
        Choice::Breed(_) if evaluation.is_some() => score_ride(&models.global.model, ride, Reading::of(request)).ok(),
        _ => *evaluation,
    });
    Cow::Owned(by_global.collect())
}

/// Counts a score of `model`.
fn note_answer(tally: &mut Tally, model: &Servable, evaluation: &Evaluation) {
    tally.rides += 1;
    tally.service += u64::from(evaluation.probability >= model.threshold);
    tally.imputed += u64::from(evaluation.imputed.is_some());
}

/// Counts a ride's known features and its probability in the bins of `model`.
fn note_ride(tally: &mut Tally, model: &Servable, evaluation: &Evaluation) {
    tally.probabilities[bin_of(evaluation.probability, 0.0, 1.0, model.parts)] += 1;
    let values = model.weights.iter().zip(evaluation.features).enumerate();
    let counted = values.filter_map(|(place, (weight, value))| Some((place, weight.edges.as_ref()?, value)));
    for ((place, edges, value), feature) in counted.zip(&mut tally.features) {
        if !evaluation.is_assumed(place) {
            feature.rides[edges.partition_point(|edge| *edge <= value)] += 1;
        }
    }
}

/// Scores the rides in shadow by the challenger, and compares with the returned scores.
fn shadow(
    challenger: &Servable,
    models: &Models,
    request: &ScoreRequest,
    evaluations: &[Option<Evaluation>],
) -> Shadow {
    let mut shadow = Shadow::new(&challenger.model_id);
    for (index, (ride, evaluation)) in request.rides.iter().zip(evaluations).enumerate() {
        let Some(evaluation) = evaluation else { continue };
        match score_ride(challenger, ride, Reading::of(request)) {
            Ok(Evaluation { probability, .. }) => {
                let service = evaluation.probability >= models.model(models.choice(index)).threshold;
                shadow.count(probability - evaluation.probability, (probability >= challenger.threshold) != service);
            }
            Err(_) => shadow.unscored += 1,
        }
    }
    shadow
}
