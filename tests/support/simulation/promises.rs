//! Judges whether the promises hold, from the outputs of the fleet alone: the store, the dead letters, the answers. The number
//! before each complaint is that of the promise.

use super::{
    input::{Fate, Input},
    world::{Fault, World},
};
use bytes::Bytes;
use common::document::{Promotion, RefreshOutcome};
use common::{
    dataset::Claim,
    envelope,
    features::FEATURES,
    message::{
        PlaceWeather, ScoreErrorCode, ScoreOutcome, ScoreRequest, ScoreResponse, ScoreRide, Units, WeatherErrorCode,
        WeatherPlace, WeatherRequest, WeatherResponse,
    },
    model::{Alias, AliasName, Model},
    topology::{self, dead_queue, queue},
};
use futures::{FutureExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use records::{
    Store,
    batch_log::{BatchLog, Limits, Seen},
    layout, store,
};
use runtime::Broker;
use scorer::{artefact::servable, score};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Letter {
    queue: &'static str,
    reason: String,
    body: Bytes,
}

/// The outputs of a run.
pub struct Ended {
    objects: BTreeMap<String, Bytes>,
    letters: Vec<Letter>,
    /// Ids of the batches that the batch log lists, page by page.
    listed: Vec<String>,
    settled: bool,
    promotion: Promotion,
    pub broken: Vec<String>,
    pub trace: Vec<String>,
    pub trace_hash: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub took: Duration,
}

impl Ended {
    pub async fn look(world: &World, settled: bool) -> Self {
        let mut objects = BTreeMap::new();
        let listing: Vec<_> = world.objects.list(None).try_collect().await.expect("memory can be listed");
        for meta in listing {
            let bytes = world.objects.get(&meta.location).await.expect("listed").bytes().await.expect("in memory");
            objects.insert(meta.location.to_string(), bytes);
        }
        let mut letters = Vec::new();
        let connection = world.core.connect("promises").await.expect("the core takes connections");
        connection.declare().await.expect("the core takes declarations");
        for name in queue::ALL {
            let dead = dead_queue(name);
            let count = connection.depth(&dead).await.expect("the queue is there").messages;
            let mut consumer = connection.consume(&dead, 0).await.expect("the queue is there");
            for _ in 0..count {
                let delivery = consumer.next().await.expect("as many as counted");
                let text = |name| delivery.properties.text(name);
                let reason = text(envelope::REASON).or(text("x-first-death-reason")).unwrap_or("none").to_owned();
                letters.push(Letter { queue: name, reason, body: delivery.body });
            }
        }
        letters.sort();
        let listed = if settled { listed(world).await } else { Vec::new() };
        let took = world.elapsed();
        let (trace_hash, trace, broken, faults) = world.conclude();
        let promotion = world.plan.promotion();
        Self { objects, letters, listed, settled, promotion, broken, trace, trace_hash, faults, took }
    }

    /// The contested submission that became the dataset.
    pub fn winner(&self, input: &Input) -> usize {
        let contested = input.submissions.iter().filter(|submission| matches!(submission.fate, Fate::Contested(_)));
        let claim = self.json::<Claim>(&layout::claim("contested"));
        contested
            .map(|submission| &submission.sha256)
            .position(|sha256| claim.as_ref().is_some_and(|claim| claim.sha256 == *sha256))
            .unwrap_or(0)
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        serde_json::from_slice(self.objects.get(path)?).ok()
    }

    fn below<'a>(&'a self, prefix: &str) -> BTreeMap<&'a str, &'a Bytes> {
        let named = self.objects.iter().filter(|(path, _)| path.starts_with(prefix));
        named.map(|(path, bytes)| (path.as_str(), bytes)).collect()
    }
}

/// Judges everything that can be judged at the end.
pub fn check(input: &Input, ended: &Ended, expected: &Ended) -> Vec<String> {
    let mut broken = Vec::new();
    if !ended.settled {
        return broken;
    }
    every_ride_is_somewhere_once(input, ended, &mut broken);
    // 2 and 3: the same bytes as without faults, and no other object.
    for prefix in ["dataset/", "rejected/"] {
        let (actual, expected_bytes) = (ended.below(prefix), expected.below(prefix));
        for path in actual.keys().chain(expected_bytes.keys()).copied().collect::<BTreeSet<_>>() {
            match (actual.get(path), expected_bytes.get(path)) {
                (Some(actual), Some(expected_bytes)) if actual == expected_bytes => {}
                (Some(_), Some(_)) => broken.push(format!("2: {path} has other bytes than without faults")),
                (None, _) => broken.push(format!("2: {path} is missing")),
                (Some(_), None) => broken.push(format!("2: {path} should not be there")),
            }
        }
    }
    same_model(ended, expected, &mut broken);
    every_claim_is_listed_once(ended, &mut broken);
    every_refresh_has_an_outcome(ended, &mut broken);
    for path in ended.below("staging/").keys() {
        broken.push(format!("6: {path} is left in the staging area for ever"));
    }
    broken
}

/// Reads all pages of the batch log.
async fn listed(world: &World) -> Vec<String> {
    let store: Store = world.objects.clone();
    let log = BatchLog::new(Arc::clone(&store));
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let look = |id: String| {
            let store = Arc::clone(&store);
            async move {
                let claim = store::read_json::<Claim>(&store, &layout::claim(&id)).await?;
                Ok(claim.map(|claim| Seen { listed: claim.listed, batch: claim.batch_id }))
            }
        };
        let page = log.page(after, Limits { batches: 2, looks: 20 }, look).await.expect("memory can be read");
        listed.extend(page.batches);
        after = page.next;
        if after.is_none() {
            return listed;
        }
    }
}

/// Part of promise 1: every claimed batch is listed once. Nobody could find a batch that is not listed.
fn every_claim_is_listed_once(ended: &Ended, broken: &mut Vec<String>) {
    let mut missing: Vec<&str> = ended
        .below("batches/")
        .keys()
        .filter_map(|path| path.strip_prefix("batches/")?.strip_suffix(".json"))
        .collect();
    for id in &ended.listed {
        match missing.iter().position(|claimed| claimed == id) {
            Some(at) => drop(missing.swap_remove(at)),
            None => broken.push(format!("1: batch {id} is listed twice")),
        }
    }
    broken.extend(missing.iter().map(|id| format!("1: batch {id} is claimed but not listed")));
}

/// Part of promise 8: every attempt to join a batch again has an outcome, and the revision that it names.
fn every_refresh_has_an_outcome(ended: &Ended, broken: &mut Vec<String>) {
    for path in ended.below("refreshes/").keys().filter(|path| !path.ends_with(".outcome.json")) {
        let outcome = path.strip_suffix(".json").map(|attempt| format!("{attempt}.outcome.json"));
        let outcome = outcome.and_then(|path| ended.json::<RefreshOutcome>(&path));
        let is_complete = outcome
            .as_ref()
            .is_some_and(|outcome| ended.objects.contains_key(&layout::manifest(&outcome.batch_id, outcome.revision)));
        if !is_complete {
            broken.push(format!("8: {path} does not end: {outcome:?}"));
        }
    }
}

fn every_ride_is_somewhere_once(input: &Input, ended: &Ended, broken: &mut Vec<String>) {
    let winner = ended.winner(input);
    let mut contested = 0;
    let mut explained: BTreeSet<(&str, &str, &Bytes)> = BTreeSet::new();
    for submission in &input.submissions {
        let (dataset, letter) = match &submission.fate {
            Fate::Dataset(batch_id) => (Some(batch_id), None),
            Fate::DeadLetter(queue, reason) => (None, Some((*queue, *reason))),
            Fate::Contested(batch_id) => {
                contested += 1;
                if contested == winner + 1 {
                    (Some(batch_id), None)
                } else {
                    (None, Some((queue::SPLITTER, "batch_id_conflict")))
                }
            }
        };
        if let Some(batch_id) = dataset
            && let Err(why) = account(ended, batch_id, submission.rides)
        {
            broken.push(format!("1: {} ({batch_id}): {why}", submission.name));
        }
        if let Some((queue, reason)) = letter {
            let is_it = |letter: &&Letter| {
                letter.queue == queue && letter.reason == reason && letter.body == submission.message.body
            };
            if ended.letters.iter().any(|letter| is_it(&letter)) {
                explained.insert((queue, reason, &submission.message.body));
            } else {
                broken.push(format!("1: {} is no dead letter of {queue} for {reason}", submission.name));
            }
        }
    }
    for letter in &ended.letters {
        if !explained.contains(&(letter.queue, letter.reason.as_str(), &letter.body)) {
            broken.push(format!("1: a dead letter of {} for {} that should not be", letter.queue, letter.reason));
        }
    }
}

/// Each ride of a batch is in every revision of the dataset or among the rejected, once.
fn account(ended: &Ended, batch_id: &str, rides: usize) -> Result<(), String> {
    let manifests = ended.below(&format!("dataset/{batch_id}/"));
    let folders: Vec<&str> = manifests.keys().filter_map(|path| path.strip_suffix("manifest.json")).collect();
    if folders.is_empty() {
        return Err("it has no dataset".to_owned());
    }
    folders.into_iter().try_for_each(|folder| {
        account_revision(ended, batch_id, folder, rides).map_err(|why| format!("{folder}: {why}"))
    })
}

fn account_revision(ended: &Ended, batch_id: &str, folder: &str, rides: usize) -> Result<(), String> {
    let mut seen = vec![0; rides];
    let mut count = |index: Option<usize>, from: &str| match index.and_then(|index| seen.get_mut(index)) {
        Some(seen) => {
            *seen += 1;
            Ok(())
        }
        None => Err(format!("a ride of {from} was never submitted")),
    };
    let is_part =
        |path: &str| path.ends_with(".csv") && path.rsplit_once('/').is_some_and(|(of, _)| folder == format!("{of}/"));
    for (path, bytes) in ended.below(folder).into_iter().filter(|(path, _)| is_part(path)) {
        for row in csv::Reader::from_reader(bytes.as_ref()).records() {
            let row = row.map_err(|error| format!("{path}: {error}"))?;
            let id = row.get(0).and_then(|id| id.strip_prefix(&format!("{batch_id}-")));
            count(id.and_then(|index| index.parse().ok()), path)?;
        }
    }
    if let Some(rejected) = ended.objects.get(&layout::rejected(batch_id)) {
        for line in rejected.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: serde_json::Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            count(line["index"].as_u64().and_then(|index| usize::try_from(index).ok()), "the rejected")?;
        }
    }
    match (seen.iter().filter(|seen| **seen == 0).count(), seen.iter().filter(|seen| **seen > 1).count()) {
        (0, 0) => Ok(()),
        (lost, doubled) => Err(format!("of {rides} rides {lost} are lost and {doubled} are doubled")),
    }
}

/// The models trained on the most datasets and their newest revisions, by path: global and breed models.
fn last_models(ended: &Ended) -> BTreeMap<&String, &Bytes> {
    let models = ended.objects.iter().filter(|(path, _)| path.starts_with("models/") && path.ends_with("/model.json"));
    let models: Vec<_> = models
        .filter_map(|(path, bytes)| {
            let datasets = serde_json::from_slice::<Model>(bytes).ok()?.datasets;
            let revisions: u32 = datasets.iter().map(|dataset| dataset.revision.map_or(1, NonZeroU32::get)).sum();
            Some(((datasets.len(), revisions), path, bytes))
        })
        .collect();
    let most = models.iter().map(|(datasets, ..)| *datasets).max();
    models.into_iter().filter(|(datasets, ..)| Some(*datasets) == most).map(|(_, path, bytes)| (path, bytes)).collect()
}

/// The champion as readers resolve it: the highest generation. The alias may be out of date after a late write.
fn champion(ended: &Ended) -> Option<Alias> {
    let generations = (1..).map(|n| layout::alias_generation(layout::GLOBAL_MODEL, AliasName::Champion, n));
    generations.map_while(|path| ended.json::<Alias>(&path)).last()
}

fn same_model(ended: &Ended, expected: &Ended, broken: &mut Vec<String>) {
    if last_models(ended) != last_models(expected) {
        broken.push("4: the models of all datasets are others than without faults".to_owned());
    }
    if ended.promotion == Promotion::ByRule {
        return;
    }
    match (champion(ended), champion(expected)) {
        (None, None) => {}
        (Some(actual), Some(undisturbed)) => {
            let artefact = |ended: &Ended, champion: &Alias| ended.objects.get(&champion.object).cloned();
            if actual.model_id != undisturbed.model_id || artefact(ended, &actual) != artefact(expected, &undisturbed) {
                let (actual, undisturbed) = (actual.model_id, undisturbed.model_id);
                broken.push(format!("4: the champion is {actual}; without faults it is {undisturbed}"));
            }
        }
        (actual, undisturbed) => broken.push(format!(
            "4: champion {:?}; without faults it is {:?}",
            actual.map(|c| c.model_id),
            undisturbed.map(|c| c.model_id)
        )),
    }
}

/// 6, after every publish: the messages that wait for a worker, in its queue and its retry queues, are bounded.
pub fn look_at_depths(world: &World, published: usize) {
    /// Work queue and retry queues, each with its limit.
    const QUEUES: usize = 1 + topology::RETRY_DELAYS_MS.len();
    /// Maximum number of lives of one kind of process that hold messages: the running ones and those that died half-open.
    const HOLDERS: usize = 16;
    let largest = world.largest.fetch_max(published, SeqCst).max(published);
    let held_back = HOLDERS * (usize::from(world.plan.concurrency) + 1) * largest;
    let most = QUEUES * world.plan.queue_bytes_max + held_back;
    let mut by_worker: BTreeMap<String, usize> = BTreeMap::new();
    for (queue, unfinished) in world.core.unfinished() {
        let worker = queue.split('.').next().unwrap_or_default();
        if !queue.ends_with(".dead") && !topology::holds_requests(worker) {
            *by_worker.entry(worker.to_owned()).or_default() += unfinished.bytes;
        }
    }
    for (worker, bytes) in by_worker {
        if bytes > most {
            world.break_promise(format!("6: {bytes} bytes wait for {worker}, at most {most} should"));
        }
    }
}

/// Reads from the store's memory, which never waits.
fn read<T: DeserializeOwned>(world: &World, path: &str) -> Option<T> {
    let object = world.objects.get(&Path::from(path)).now_or_never()?.ok()?;
    serde_json::from_slice(&object.bytes().now_or_never()?.ok()?).ok()
}

/// 4, after every write: a reader of the alias finds a complete model.
pub fn look_at_champion(world: &World) {
    let alias = layout::champion(layout::GLOBAL_MODEL);
    let Some(champion) = read::<Alias>(world, &alias) else { return };
    if read::<Model>(world, &champion.object).is_none_or(|model| model.model_id != champion.model_id) {
        world.break_promise(format!("4: {alias} leads to {}, which is not a whole model", champion.object));
    }
}

/// Tenths of °C, °C and mm, or the reason for missing weather.
type Told = Result<[i32; 3], WeatherErrorCode>;

/// Places with known weather, and the expected answer for each.
const PLACES: [(f64, f64, &str, Told); 3] = [
    (40.70, -74.00, "2018-04-03 23:59:59", Ok([115, 221, 39])),
    (0.0, 0.0, "2018-04-03 12:00:00", Err(WeatherErrorCode::NoStationInReach)),
    (40.70, -74.00, "2018-04-20 12:00:00", Err(WeatherErrorCode::NoObservationOnDate)),
];

/// A weather request with a known answer.
pub fn weather_request(number: u64) -> WeatherRequest {
    let place = |(latitude, longitude, at, _): (f64, f64, &str, _)| WeatherPlace {
        latitude,
        longitude,
        statustime: at.parse().expect("a time"),
    };
    let places = PLACES.map(place).to_vec();
    WeatherRequest { request_id: format!("weather-{number}"), places, observed_only: true }
}

/// The same for weather: the answer is what the service has, or an error that says why there is none.
pub fn look_at_weather(world: &World, response: &WeatherResponse) {
    if let Some(error) = &response.error {
        if !error.code.may_pass() {
            world.break_promise(format!("5: no error of a lookup: {response:?}"));
        }
        return;
    }
    // While the service is away, a place whose weather is in memory still has it.
    let is_right = |(found, (.., expected)): (&PlaceWeather, &(f64, f64, &str, Told))| match found {
        PlaceWeather::Observed(observed) => Ok([observed.tmin, observed.tmax, observed.prcp]) == *expected,
        PlaceWeather::Failed { error } => error.code.may_pass() || Err(error.code) == *expected,
        PlaceWeather::Forecast(_) | PlaceWeather::Climatology(_) => false,
    };
    if response.weather.len() != PLACES.len() || !response.weather.iter().zip(&PLACES).all(is_right) {
        world.break_promise(format!("5: not the weather of these places: {response:?}"));
    }
}

/// A ride without weather at the first of the places.
pub fn ride_at_a_place() -> ScoreRide {
    let [(latitude, longitude, at, _), ..] = PLACES;
    ScoreRide {
        distance: Some(24.0),
        healthpoints: Some(300.0),
        magicpoints: Some(240.0),
        latitude: Some(latitude.into()),
        longitude: Some(longitude.into()),
        statustime: Some(at.into()),
        ..ScoreRide::default()
    }
}

/// Returns the ride with the weather that its score names; `None` if the score has an error that a retry may mend.
///
/// # Errors
/// Fails if it names no weather, or an observation that the service does not have.
fn with_weather_of(ride: &ScoreRide, score: &ScoreOutcome) -> Result<Option<ScoreRide>, ()> {
    if !ride.place().is_ok_and(|place| place.is_some()) {
        return Ok(Some(ride.clone()));
    }
    match score {
        ScoreOutcome::Scored { weather: Some(weather), .. } => {
            let [(.., expected), ..] = PLACES;
            let elements = weather.elements().ok_or(())?;
            if matches!(**weather, PlaceWeather::Observed(_)) && expected != Ok(elements) {
                return Err(());
            }
            let mut ride = ride.clone();
            ride.add_weather((**weather).clone(), Units::default());
            Ok(Some(ride))
        }
        ScoreOutcome::Failed { error }
            if matches!(error.code, ScoreErrorCode::Internal | ScoreErrorCode::DeadlineExceeded) =>
        {
            Ok(None)
        }
        _ => Err(()),
    }
}

/// 5, at every answer: it names one model, and the scores are that model's.
pub fn look_at_scores(world: &World, request: &ScoreRequest, response: &ScoreResponse) {
    let Some(model_id) = &response.model_id else {
        let known = |code| matches!(code, ScoreErrorCode::NoModel | ScoreErrorCode::Internal);
        if !response.error.as_ref().is_some_and(|error| known(error.code)) {
            world.break_promise(format!("5: neither a model nor an error that says why: {response:?}"));
        }
        return;
    };
    let Some(model) = read::<Model>(world, &layout::model(layout::GLOBAL_MODEL, model_id)) else {
        world.break_promise(format!("5: scored by {model_id}, which is not there"));
        return;
    };
    let used = model.used().unwrap_or_default();
    let recomputed = servable(&model).map(|servable| score::score(&servable, request).scores).unwrap_or_default();
    for (index, (ride, score)) in request.rides.iter().zip(&response.scores).enumerate() {
        let ride = match with_weather_of(ride, &score.outcome) {
            Ok(Some(ride)) => ride,
            Ok(None) => continue,
            Err(()) => {
                world.break_promise(format!("5: not scored with the weather of its place: {response:?}"));
                return;
            }
        };
        let features: Option<Vec<f64>> = used.iter().map(|&place| (FEATURES[place].of)(&ride)).collect();
        let as_it_should = match (&score.outcome, features) {
            (ScoreOutcome::Scored { probability, assumed, .. }, Some(features)) => {
                assumed.is_empty() && probability.to_bits() == model.probability(&features).to_bits()
            }
            (ScoreOutcome::Scored { assumed, .. }, None) => {
                request.impute != assumed.is_empty() && recomputed.get(index) == Some(score)
            }
            (ScoreOutcome::Failed { error }, None) => !request.impute && error.code == ScoreErrorCode::MissingFeature,
            _ => false,
        };
        if !as_it_should || request.rides.len() != response.scores.len() {
            world.break_promise(format!("5: the scores are not those of {model_id}: {response:?}"));
        }
    }
}
