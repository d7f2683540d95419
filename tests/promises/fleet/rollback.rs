//! Tests of promotion and roll-back under as many score requests as possible.

use crate::conformance::on_both_brokers;
use common::{
    features::Feature,
    message::{ModelPromoted, ScoreOutcome, ScoreRequest, ScoreRide, Units},
    model::{AliasName, Coefficient, Model},
};
use object_store::memory::InMemory;
use pipeline_tests::{
    models::{model, name, write},
    print_uncaptured,
    wait::SOON,
};
use records::{Store, layout};
use runtime::{
    Broker, Shutdown, Worker,
    client::Client,
    worker::{RunOptions, run},
};
use scorer::Scorer;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};
use tokio::sync::Notify;

on_both_brokers! {
    a_roll_back_under_load_gives_no_error_and_no_mixed_answer;
}

/// Concurrent requests.
const ASKERS: usize = 8;
/// Rides of each request.
const RIDES: usize = 100;
/// Changes of the champion. Every third is not announced by an event.
const FLIPS: usize = 12;
/// Consecutive answers by the new champion that each client must get after a change.
const IN_A_ROW: usize = 10;

/// State that the clients share.
#[derive(Default)]
struct Seen {
    /// Changes so far.
    flips: AtomicUsize,
    /// For each client, the number of consecutive answers by the champion.
    rows: Mutex<Vec<usize>>,
    changed: Notify,
    scores: AtomicUsize,
}

fn request(asker: usize, nth: usize) -> ScoreRequest {
    let ride = |index: usize| ScoreRide {
        ride_id: Some(format!("{asker}-{nth}-{index}")),
        distance: Some(((asker * 31 + nth * 7 + index) % 100) as f64),
        healthpoints: Some(300.0),
        magicpoints: Some(300.0),
        tmin: Some(50.0),
        tmax: Some(60.0),
        prcp: Some(0.0),
        ..ScoreRide::default()
    };
    let rides = (0..RIDES).map(ride).collect();
    ScoreRequest { request_id: format!("{asker}-{nth}"), units: Units::default(), explain: false, impute: true, rides }
}

async fn ask(client: Arc<Client>, asker: usize, models: [Model; 2], seen: Arc<Seen>, shutdown: Shutdown) {
    let mut nth = 0;
    while !shutdown.is_cancelled() {
        nth += 1;
        let (request, flips) = (request(asker, nth), seen.flips.load(SeqCst));
        let response = client.score(&request, SOON).await.expect("no request goes unanswered");
        assert_eq!((&response.error, response.scores.len()), (&None, RIDES));
        let by = models.iter().find(|model| Some(&model.model_id) == response.model_id.as_ref());
        let by = by.unwrap_or_else(|| panic!("scored by nobody's model: {response:?}"));
        for (ride, score) in request.rides.iter().zip(&response.scores) {
            let ScoreOutcome::Scored { probability, by: None, fallback: None, .. } = score.outcome else {
                panic!("{score:?}")
            };
            let value = |c: &Coefficient| Feature::named(&c.feature).and_then(|feature| (feature.of)(ride));
            let features: Vec<f64> = by.coefficients.iter().map(|c| value(c).unwrap_or(c.mean)).collect();
            let expected = by.probability(&features);
            assert_eq!(probability.to_bits(), expected.to_bits(), "not that of {}", by.model_id);
        }
        seen.scores.fetch_add(RIDES, SeqCst);
        let mut rows = seen.rows.lock().unwrap();
        let is_champion = by.model_id == models[flips % 2].model_id && seen.flips.load(SeqCst) == flips;
        rows[asker] = if is_champion { rows[asker] + 1 } else { 0 };
        seen.changed.notify_one();
    }
}

/// The champion alternates between two versions while two scorers answer as fast as they can: no request fails, every
/// probability is bit by bit that of the named version, and every change is followed, also without an event.
async fn a_roll_back_under_load_gives_no_error_and_no_mixed_answer(broker: Arc<dyn Broker>) {
    let store: Store = Arc::new(InMemory::new());
    let models = [("first", -2.0, 0.04), ("second", 1.0, -0.03)]
        .map(|(id, intercept, per_mile)| model(layout::GLOBAL_MODEL, id, intercept, per_mile));
    let versions = [write(&store, &models[0]).await, write(&store, &models[1]).await];
    name(&store, AliasName::Champion, &versions[0]).await;
    let shutdown = Shutdown::new();
    let scorers: Vec<_> = (0..2)
        .map(|_| {
            let scorer = Scorer::new(scorer::Settings::default(), Arc::clone(&store));
            let (concurrency, prefetch) = (Scorer::CONCURRENCY.into(), Scorer::PREFETCH);
            let options = RunOptions { concurrency, prefetch, ..RunOptions::default() };
            tokio::spawn(run(Arc::new(scorer), Arc::clone(&broker), options, shutdown.clone()))
        })
        .collect();
    let client = Arc::new(Client::connect(broker.as_ref(), "test").await.unwrap());
    let seen = Arc::new(Seen { rows: Mutex::new(vec![0; ASKERS]), ..Seen::default() });
    let asked = Shutdown::new();
    let started = Instant::now();
    let askers: Vec<_> = (0..ASKERS)
        .map(|asker| tokio::spawn(ask(Arc::clone(&client), asker, models.clone(), Arc::clone(&seen), asked.clone())))
        .collect();
    for flip in 1..=FLIPS {
        let version = &versions[flip % 2];
        let alias = name(&store, AliasName::Champion, version).await;
        assert_eq!(alias.generation, flip as u64 + 1, "a roll-back is a new generation");
        if flip % 3 != 0 {
            let (model, model_id, object) = (alias.model, alias.model_id, alias.object);
            let promoted = ModelPromoted { model, model_id, object, previous_model_id: None, why: None };
            client.publish(&promoted).await.unwrap();
        }
        seen.flips.store(flip, SeqCst);
        seen.rows.lock().unwrap().fill(0);
        let followed = async {
            while seen.rows.lock().unwrap().iter().any(|row| *row < IN_A_ROW) {
                seen.changed.notified().await;
            }
        };
        if tokio::time::timeout(SOON, followed).await.is_err() {
            let rows = seen.rows.lock().unwrap();
            panic!("change {flip} to {} is not followed: {rows:?}", version.model_id);
        }
        assert!(askers.iter().all(|asker| !asker.is_finished()), "an asker saw something wrong");
    }
    asked.cancel();
    for asker in askers {
        asker.await.expect("every answer was right");
    }
    let scores = seen.scores.load(SeqCst);
    let per_second = scores as f64 / started.elapsed().as_secs_f64();
    print_uncaptured(format_args!(
        "{FLIPS} changes of champion under {per_second:.0} scores/s, {scores} in all, none wrong"
    ));
    assert!(scores >= FLIPS * ASKERS * IN_A_ROW * RIDES);
    shutdown.cancel();
    for scorer in scorers {
        scorer.await.unwrap().unwrap();
    }
    // The serving statistics count every ride once, over both versions.
    let mut counted = 0;
    for version in &versions {
        let tally = records::serving::read(&store, &version.model, &version.model_id, None).await.unwrap();
        counted += tally.rides as usize;
    }
    assert_eq!(counted, scores, "counted when the scorers ended");
}
