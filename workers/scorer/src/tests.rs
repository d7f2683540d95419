//! The scorer on stores in memory, in a folder, and on slow stores.

mod breeds;
mod counting;
mod located;
mod reply_address;
mod served;

use super::*;
use crate::serve::artefact::tests::{alias, encoded, model};
use common::{
    message::{ScoreOutcome, ScoreRide, Units, recognise},
    model::{Alias, AliasName, Model, logistic},
};
use futures::StreamExt;
use object_store::{
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
use records::{StoreSettings, store};
use runtime::config::Settings as _;
use tokio::time::Instant;

/// A reply queue as the broker names it.
const REPLY_QUEUE: &str = "amq.gen-answers";

fn memory() -> Store {
    Arc::new(InMemory::new())
}

fn scorer(store: &Store) -> Scorer {
    Scorer::new(Settings::default(), Arc::clone(store))
}

/// The artefact `id`. Its log-odds with all features 0 are a tenth of the id if that is a number, else 0.
fn artefact(id: &str) -> Model {
    Model { intercept: id.parse::<f64>().unwrap_or_default() / 10.0, ..model(id) }
}

async fn put_model(store: &Store, id: &str) {
    store::write(store, &layout::model(layout::GLOBAL_MODEL, id), encoded(&artefact(id))).await.unwrap();
}

/// The champion's alias with this history; the last version is the champion.
fn champion(line: &[&str]) -> Alias {
    let line: Vec<Model> = line.iter().map(|id| artefact(id)).collect();
    alias(AliasName::Champion, &line.iter().collect::<Vec<_>>())
}

/// Stores the champion's alias with this history.
async fn put_champion(store: &Store, line: &[&str]) {
    let body = serde_json::to_vec(&champion(line)).unwrap();
    store::write(store, &layout::champion(layout::GLOBAL_MODEL), body).await.unwrap();
}

/// Delivers the event of a promotion of `id`.
async fn promote(scorer: &Scorer, id: &str) {
    let Alias { model, model_id, object, .. } = champion(&[id]);
    let promoted = ModelPromoted { model, model_id, object, previous_model_id: None, why: None };
    let envelope = Envelope { payload: ScorerIn::Promoted(promoted), properties: Properties::default() };
    assert_eq!(scorer.handle(envelope).await.unwrap().into_stream().count().await, 0);
}

fn properties() -> Properties {
    Properties {
        reply_to: Some(REPLY_QUEUE.to_owned()),
        correlation_id: Some("c".to_owned()),
        message_id: Some("q/score-request".to_owned()),
        ..Properties::default()
    }
}

fn request(rides: usize) -> ScoreRequest {
    let zero = Some(0.0);
    let ride = ScoreRide {
        distance: zero,
        healthpoints: zero,
        magicpoints: zero,
        tmin: zero,
        tmax: zero,
        prcp: zero,
        ..ScoreRide::default()
    };
    ScoreRequest {
        request_id: "q".to_owned(),
        units: Units::default(),
        explain: false,
        impute: true,
        rides: vec![ride; rides],
    }
}

async fn ask(scorer: &Scorer, rides: usize) -> Result<ScoreResponse, Failure> {
    ask_within(scorer, rides, None).await
}

async fn ask_within(scorer: &Scorer, rides: usize, expiration_ms: Option<u64>) -> Result<ScoreResponse, Failure> {
    ask_for(scorer, request(rides), expiration_ms).await
}

async fn ask_for(scorer: &Scorer, request: ScoreRequest, expiration_ms: Option<u64>) -> Result<ScoreResponse, Failure> {
    let properties = Properties { expiration_ms, ..properties() };
    let envelope = Envelope { payload: ScorerIn::Score(request), properties };
    let outgoing: Vec<_> = scorer.handle(envelope).await?.into_stream().collect().await;
    let [Ok(reply)] = outgoing.as_slice() else { panic!("{outgoing:?}") };
    assert_eq!((reply.exchange, reply.routing_key.as_str(), reply.mandatory), ("", REPLY_QUEUE, false));
    assert_eq!(reply.properties.correlation_id.as_deref(), Some("c"));
    let response: ScoreResponse = common::message::decode(&reply.body).unwrap();
    assert_eq!(response.request_id, "q");
    Ok(response)
}

fn code(response: &ScoreResponse) -> ScoreErrorCode {
    response.error.as_ref().unwrap().code
}

#[tokio::test]
async fn without_a_model_the_answer_is_a_typed_error() {
    let store = memory();
    let scorer = scorer(&store);
    scorer.connected().await.unwrap();
    assert_eq!(code(&ask(&scorer, 1).await.unwrap()), ScoreErrorCode::NoModel);
    put_model(&store, "10").await;
    put_champion(&store, &["10"]).await;
    // No event arrived: the request itself triggers a read.
    let response = ask(&scorer, 3).await.unwrap();
    assert_eq!((response.model_id.as_deref(), response.scores.len()), (Some("10"), 3));
    for score in response.scores {
        let ScoreOutcome::Scored { probability, service, .. } = score.outcome else { panic!("{score:?}") };
        assert!((probability - logistic(1.0)).abs() < 1e-15 && service);
    }
}

#[tokio::test]
async fn promotions_are_followed_and_delayed_ones_of_older_models_are_not() {
    let store = memory();
    let scorer = scorer(&store);
    for id in ["a", "b"] {
        put_model(&store, id).await;
    }
    put_champion(&store, &["a"]).await;
    scorer.connected().await.unwrap();
    assert_eq!(scorer.serves().as_deref(), Some("a"));
    put_champion(&store, &["a", "b"]).await;
    promote(&scorer, "b").await;
    assert_eq!(scorer.serves().as_deref(), Some("b"));
    promote(&scorer, "a").await;
    assert_eq!(scorer.serves().as_deref(), Some("b"));
    // A slow trainer wrote its own generation over the alias, and has not repaired it yet.
    put_champion(&store, &["a"]).await;
    promote(&scorer, "a").await;
    assert_eq!(scorer.serves().as_deref(), Some("b"));
    // A deliberate return to an older model is a new generation.
    put_champion(&store, &["a", "b", "a"]).await;
    promote(&scorer, "a").await;
    assert_eq!(scorer.serves().as_deref(), Some("a"));
    // An alias keeps only the end of a long history.
    let put = async |alias: Alias| {
        store::write(&store, &layout::champion(layout::GLOBAL_MODEL), serde_json::to_vec(&alias).unwrap())
            .await
            .unwrap();
        promote(&scorer, &alias.model_id).await;
    };
    put(Alias { generation: 70, ..champion(&["a", "b"]) }).await;
    assert_eq!(scorer.serves().as_deref(), Some("b"));
    put(Alias { generation: 69, ..champion(&["b", "a"]) }).await;
    assert_eq!(scorer.serves().as_deref(), Some("b"), "an earlier generation");
    // A store that was emptied has another history.
    put_model(&store, "10").await;
    put(champion(&["10"])).await;
    assert_eq!(scorer.serves().as_deref(), Some("10"));
}

/// Without an event, a promotion and a roll-back are followed within `follow_ms`. While requests arrive, one of them triggers a read
/// in the background; after a pause the first one waits for the read.
#[tokio::test(start_paused = true)]
async fn a_change_of_champion_is_followed_without_an_event() {
    let store = memory();
    let scorer = scorer(&store);
    for id in ["a", "b"] {
        put_model(&store, id).await;
    }
    put_champion(&store, &["a"]).await;
    scorer.connected().await.unwrap();
    let answered = async || ask(&scorer, 1).await.unwrap().model_id.unwrap();
    for (line, before, after) in [(&["a", "b"][..], "a", "b"), (&["a", "b", "a"], "b", "a")] {
        put_champion(&store, line).await;
        for _ in 0..10 {
            assert_eq!(answered().await, before, "not read again yet");
        }
        tokio::time::sleep(Duration::from_millis(501)).await;
        assert_eq!(answered().await, before);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(answered().await, after);
    }
    put_champion(&store, &["a", "b", "a", "b"]).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let all_at_once = futures::future::join_all((0..10).map(|_| answered())).await;
    assert_eq!(all_at_once, vec!["b"; 10], "an hour without a request");
}

/// A store that does not answer delays requests rarely, briefly, and never all of them: the known model scores within the request's
/// time.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_delays_no_request_for_long() {
    let inner = memory();
    put_model(&inner, "a").await;
    put_champion(&inner, &["a"]).await;
    let store = Arc::new(ThrottledStore::new(inner, ThrottleConfig::default()));
    let scorer = Scorer::new(Settings::default(), store.clone() as Store);
    scorer.connected().await.unwrap();
    store.config_mut(|config| config.wait_get_per_call = Duration::from_secs(3_600));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut waits = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(ask(&scorer, 1).await.unwrap().model_id.as_deref(), Some("a"));
        waits.push(began.elapsed());
    }
    assert_eq!(waits, [Duration::from_millis(250), Duration::ZERO, Duration::ZERO]);

    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    let many = (0..20).map(|_| async {
        assert_eq!(ask(&scorer, 1).await.unwrap().model_id.as_deref(), Some("a"));
        began.elapsed()
    });
    let waits = futures::future::join_all(many).await;
    assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), 20 - WAITING_MAX, "{waits:?}");

    // The champion and a breed model both wait for the store, within the time of one request.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut rides = request(1);
    rides.rides[0].breed = Some("qilin".to_owned());
    let response = ask_for(&scorer, rides, Some(300)).await.unwrap();
    assert_eq!((response.model_id.as_deref(), response.scores.len()), (Some("a"), 1), "{response:?}");
}

/// An artefact that was overwritten after its promotion is not served.
#[tokio::test]
async fn an_artefact_with_other_bytes_than_the_alias_names_is_not_served() {
    let store = memory();
    let scorer = scorer(&store);
    put_model(&store, "a").await;
    put_champion(&store, &["a"]).await;
    scorer.connected().await.unwrap();
    let other = encoded(&Model { intercept: 5.0, ..artefact("b") });
    store::write(&store, &layout::model(layout::GLOBAL_MODEL, "b"), other).await.unwrap();
    put_champion(&store, &["a", "b"]).await;
    promote(&scorer, "b").await;
    assert_eq!(scorer.serves().as_deref(), Some("a"));
    put_model(&store, "b").await;
    promote(&scorer, "b").await;
    assert_eq!(scorer.serves().as_deref(), Some("b"));
}

#[tokio::test]
async fn an_incomplete_or_invalid_artefact_is_not_served_and_the_last_good_one_stays() {
    let store = memory();
    let scorer = scorer(&store);
    put_model(&store, "a").await;
    put_champion(&store, &["a"]).await;
    scorer.connected().await.unwrap();
    put_champion(&store, &["a", "b"]).await;
    let whole = encoded(&artefact("b"));
    let other = encoded(&artefact("x"));
    for body in [None, Some(&whole[..whole.len() / 2]), Some(&[][..]), Some(&other)] {
        if let Some(body) = body {
            store::write(&store, &layout::model(layout::GLOBAL_MODEL, "b"), body.to_vec()).await.unwrap();
        }
        promote(&scorer, "b").await;
        assert_eq!(ask(&scorer, 1).await.unwrap().model_id.as_deref(), Some("a"));
    }
    store::write(&store, &layout::champion(layout::GLOBAL_MODEL), b"{".to_vec()).await.unwrap();
    promote(&scorer, "b").await;
    assert_eq!(scorer.serves().as_deref(), Some("a"));
    put_champion(&store, &["a", "b"]).await;
    put_model(&store, "b").await;
    promote(&scorer, "b").await;
    assert_eq!(scorer.serves().as_deref(), Some("b"));
}

/// The alias may be outdated after a delayed write; the generations are authoritative.
#[tokio::test]
async fn a_starting_scorer_follows_the_generations_beyond_the_alias() {
    let store = memory();
    for id in ["a", "b"] {
        put_model(&store, id).await;
    }
    let (first, second) = (champion(&["a"]), champion(&["a", "b"]));
    for named in [&first, &second] {
        let path = layout::alias_generation(&named.model, AliasName::Champion, named.generation);
        store::write(&store, &path, serde_json::to_vec(named).unwrap()).await.unwrap();
    }
    put_champion(&store, &["a"]).await;
    let scorer = scorer(&store);
    scorer.connected().await.unwrap();
    assert_eq!(scorer.serves().as_deref(), Some("b"));
}

#[tokio::test]
async fn a_champion_is_read_from_the_folder_of_models_only() {
    let store = memory();
    let scorer = scorer(&store);
    put_model(&store, "a").await;
    put_champion(&store, &["a"]).await;
    scorer.connected().await.unwrap();
    put_model(&store, "b").await;
    let body = store::read(&store, &layout::model(layout::GLOBAL_MODEL, "b")).await.unwrap().unwrap();
    store::write(&store, "raw/model.json", body).await.unwrap();
    for elsewhere in ["raw/model.json", "models/../raw/model.json", "/models/x", "models/%2e%2e/raw/model.json"] {
        let astray = Alias { object: elsewhere.to_owned(), ..champion(&["a", "b"]) };
        let body = serde_json::to_vec(&astray).unwrap();
        store::write(&store, &layout::champion(layout::GLOBAL_MODEL), body).await.unwrap();
        promote(&scorer, "b").await;
        assert_eq!(scorer.serves().as_deref(), Some("a"), "{elsewhere}");
    }
    put_champion(&store, &["a", "b"]).await;
    promote(&scorer, "b").await;
    assert_eq!(scorer.serves().as_deref(), Some("b"));
}

#[tokio::test]
async fn an_incomplete_first_model_does_not_count() {
    let store = memory();
    let scorer = scorer(&store);
    put_champion(&store, &["a"]).await;
    scorer.connected().await.unwrap();
    assert_eq!(code(&ask(&scorer, 1).await.unwrap()), ScoreErrorCode::NoModel);
    put_model(&store, "a").await;
    assert_eq!(ask(&scorer, 1).await.unwrap().model_id.as_deref(), Some("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_answer_is_by_one_model_during_promotions() {
    let store = memory();
    let scorer = Arc::new(scorer(&store));
    let ids: Vec<String> = (0..40).map(|index| index.to_string()).collect();
    for id in &ids {
        put_model(&store, id).await;
    }
    put_champion(&store, &["0"]).await;
    scorer.connected().await.unwrap();
    let asking = (0..4).map(|_| {
        let scorer = Arc::clone(&scorer);
        tokio::spawn(async move {
            for _ in 0..200 {
                let response = ask(&scorer, 20).await.unwrap();
                let expected = logistic(response.model_id.unwrap().parse::<f64>().unwrap() / 10.0);
                for score in response.scores {
                    let ScoreOutcome::Scored { probability, .. } = score.outcome else { panic!("{score:?}") };
                    assert!((probability - expected).abs() < 1e-15);
                }
            }
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut line = Vec::new();
    for id in &ids {
        line.push(id.as_str());
        put_champion(&store, &line).await;
        promote(&scorer, id).await;
        assert_eq!(scorer.serves().as_ref(), Some(id));
    }
    for task in asking {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn during_an_outage_of_the_store_the_last_good_model_scores() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        store::open(&StoreSettings { url: folder.path().to_str().unwrap().to_owned(), ..StoreSettings::default() })
            .unwrap();
    let (family, aside) = (folder.path().join("models/service-request"), folder.path().join("aside"));
    std::fs::create_dir(folder.path().join("models")).unwrap();
    // A file in place of a folder: every read fails.
    std::fs::write(&family, "").unwrap();
    let scorer = scorer(&store);
    scorer.connected().await.unwrap();
    let failure = ask(&scorer, 1).await.unwrap_err();
    assert!(matches!(failure, Failure::Outage { .. }), "{failure}");
    let reply = scorer.answer_failure(&properties(), &failure).unwrap();
    assert_eq!(code(&serde_json::from_slice(&reply.body).unwrap()), ScoreErrorCode::Internal);
    for answer in futures::future::join_all((0..20).map(|_| ask(&scorer, 1))).await {
        assert!(matches!(answer, Err(Failure::Outage { .. })), "no answer says that there is no model: {answer:?}");
    }

    std::fs::remove_file(&family).unwrap();
    for id in ["a", "b"] {
        put_model(&store, id).await;
    }
    put_champion(&store, &["a"]).await;
    assert_eq!(ask(&scorer, 1).await.unwrap().model_id.as_deref(), Some("a"));
    std::fs::rename(&family, &aside).unwrap();
    std::fs::write(&family, "").unwrap();
    // Written into the folder that is out of reach: no read that has started before can find it.
    std::fs::write(aside.join("champion.json"), serde_json::to_vec(&champion(&["a", "b"])).unwrap()).unwrap();
    promote(&scorer, "b").await;
    assert_eq!(ask(&scorer, 1).await.unwrap().model_id.as_deref(), Some("a"));

    // The store is back. No further event arrives: requests trigger the read of the champion.
    std::fs::remove_file(&family).unwrap();
    std::fs::rename(&aside, &family).unwrap();
    while ask(&scorer, 1).await.unwrap().model_id.as_deref() != Some("b") {
        tokio::task::yield_now().await;
    }
}

/// With a store that takes a minute per object, a shorter request is answered when its `expiration` ends, not later.
#[tokio::test(start_paused = true)]
async fn an_answer_is_sent_within_the_expiration_of_its_request() {
    let inner = memory();
    put_model(&inner, "a").await;
    put_champion(&inner, &["a"]).await;
    let minute = Duration::from_secs(60);
    let slow = ThrottleConfig { wait_get_per_call: minute, ..ThrottleConfig::default() };
    let scorer = scorer(&(Arc::new(ThrottledStore::new(inner, slow)) as Store));
    for expiration_ms in [0, 1, 5_000] {
        let asked = Instant::now();
        let response = ask_within(&scorer, 1, Some(expiration_ms)).await.unwrap();
        assert_eq!(asked.elapsed(), Duration::from_millis(expiration_ms), "answered when its time is over");
        assert_eq!((code(&response), response.scores.len()), (ScoreErrorCode::DeadlineExceeded, 0));
        let message = response.error.unwrap().message;
        assert!(message.contains(&format!("{expiration_ms} ms")) && message.contains("being read"), "{message}");
    }
    // Alias, the next generation and model take a minute each; after that no request waits for the store.
    assert_eq!(ask_within(&scorer, 1, Some(181_000)).await.unwrap().model_id.as_deref(), Some("a"));
    assert_eq!(ask_within(&scorer, 1, Some(0)).await.unwrap().scores.len(), 1);
}

#[tokio::test]
async fn a_request_that_is_too_large_or_has_no_reply_address_is_refused() {
    let store = memory();
    put_model(&store, "a").await;
    put_champion(&store, &["a"]).await;
    let scorer = Scorer::new(Settings { rides_max: 10, ..Settings::default() }, store);
    scorer.connected().await.unwrap();
    assert_eq!(ask(&scorer, 10).await.unwrap().scores.len(), 10);
    let response = ask(&scorer, 11).await.unwrap();
    assert_eq!(code(&response), ScoreErrorCode::MalformedRequest);
    assert_eq!(response.error.unwrap().field.as_deref(), Some("rides"));

    let envelope = Envelope { payload: ScorerIn::Score(request(1)), properties: Properties::default() };
    let failure = scorer.handle(envelope).await.unwrap_err();
    assert!(matches!(failure, Failure::Permanent { reason: "no_reply_to", .. }), "{failure}");
    assert_eq!(scorer.answer_failure(&Properties::default(), &failure), None);
}

#[test]
fn an_undecodable_request_is_answered_with_the_path_of_the_field() {
    let scorer = scorer(&memory());
    let reply = |properties: &Properties, why: &Undecodable| -> ScoreResponse {
        serde_json::from_slice(&scorer.answer_undecodable(properties, why).unwrap().body).unwrap()
    };
    let body = Bytes::from_static(br#"{"request_id":"q","rides":[{"tmin":"cold"}]}"#);
    let malformed = ScorerIn::decode(ScoreRequest::KIND, &body).unwrap_err();
    let response = reply(&properties(), &malformed);
    assert_eq!((response.request_id.as_str(), code(&response)), ("c", ScoreErrorCode::MalformedRequest));
    assert_eq!(response.error.unwrap().field.as_deref(), Some("rides[0].tmin"));

    let by_message_id = Properties { correlation_id: None, ..properties() };
    let unknown = recognise(Some("score-request.v9"), ScorerIn::KINDS).unwrap_err();
    let response = reply(&by_message_id, &unknown);
    assert_eq!((response.request_id.as_str(), code(&response)), ("q", ScoreErrorCode::UnknownVersion));

    let foreign = recognise(None, ScorerIn::KINDS).unwrap_err();
    assert_eq!(code(&reply(&properties(), &foreign)), ScoreErrorCode::MalformedRequest);
    assert_eq!(scorer.answer_undecodable(&Properties::default(), &foreign), None);
}

#[test]
fn settings_are_checked_by_name() {
    assert_eq!(Settings::default().check(), Ok(()));
    let key = |settings: Settings| settings.check().unwrap_err().key;
    assert_eq!(key(Settings { model: "../x".to_owned(), ..Settings::default() }), "model");
    assert_eq!(key(Settings { rides_max: 0, ..Settings::default() }), "rides_max");
    assert_eq!(key(Settings { breed_models_max: 0, ..Settings::default() }), "breed_models_max");
    assert_eq!(key(Settings { breed_wait_ms: 60_001, ..Settings::default() }), "breed_wait_ms");
    assert_eq!(key(Settings { follow_ms: Some(0), ..Settings::default() }), "follow_ms");
}

/// A service bills every request; a setting wins over both defaults.
#[test]
fn default_intervals_depend_on_the_kind_of_store() {
    let of = |follow_ms, served_write_ms| Intervals { follow_ms, served_write_ms };
    assert_eq!(Settings::default().intervals(false), of(1_000, 5_000));
    assert_eq!(Settings::default().intervals(true), of(5_000, 30_000));
    let set = Settings { follow_ms: Some(50), served_write_ms: Some(0), ..Settings::default() };
    assert_eq!(set.intervals(true), of(50, 0));
}
