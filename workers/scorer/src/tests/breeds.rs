//! Breed models: chosen by breed, loaded once, bounded in number, kept up to date, never delaying other requests.

use super::{counting::Counting, *};
use common::message::{Fallback, ScoredBy};
use object_store::ObjectStoreExt;

/// A breed model. Its log-odds with all features 0 are `tenths` tenths.
fn of_breed(breed: &str, tenths: i32) -> Model {
    let model_id = format!("{breed}-{tenths}");
    let (model, breed) = (family(breed), Some(breed.to_owned()));
    Model { model, breed, intercept: f64::from(tenths) / 10.0, threshold: 0.25, ..artefact(&model_id) }
}

fn family(breed: &str) -> String {
    layout::breed_model(layout::GLOBAL_MODEL, breed).unwrap()
}

/// Stores the alias of a breed's champion with this history, and the champion's artefact.
async fn put_breed(store: &Store, line: &[&Model]) {
    let named = line.last().unwrap();
    store::write(store, &layout::model(&named.model, &named.model_id), encoded(named)).await.unwrap();
    let body = serde_json::to_vec(&alias(AliasName::Champion, line)).unwrap();
    store::write(store, &layout::champion(&named.model), body).await.unwrap();
}

async fn promote_breed(scorer: &Scorer, model: &Model) {
    let Alias { model, model_id, object, .. } = alias(AliasName::Champion, &[model]);
    let promoted = ModelPromoted { model, model_id, object, previous_model_id: None, why: None };
    let envelope = Envelope { payload: ScorerIn::Promoted(promoted), properties: Properties::default() };
    scorer.handle(envelope).await.unwrap();
}

fn rides_of(breeds: &[&str]) -> ScoreRequest {
    let mut request = request(breeds.len());
    for (ride, breed) in request.rides.iter_mut().zip(breeds) {
        ride.breed = (!breed.is_empty()).then(|| (*breed).to_owned());
    }
    request
}

/// Returns for each ride the version that scored it, the log-odds in tenths, and why the global model scored it.
async fn answers(scorer: &Scorer, breeds: &[&str]) -> Vec<(String, f64, Option<Fallback>)> {
    let response = ask_for(scorer, rides_of(breeds), None).await.unwrap();
    let all = response.model_id.unwrap();
    let answer = |score: common::message::Score| {
        let ScoreOutcome::Scored { probability, by, fallback, .. } = score.outcome else { panic!("{score:?}") };
        let log_odds = (probability / (1.0 - probability)).ln();
        (by.map_or(all.clone(), |by| by.model_id), (log_odds * 10.0).round(), fallback)
    };
    response.scores.into_iter().map(answer).collect()
}

/// Makes the global model `7` champion. Returns a scorer on the store.
async fn with_champion(settings: Settings, store: Store) -> Scorer {
    put_model(&store, "7").await;
    put_champion(&store, &["7"]).await;
    let scorer = Scorer::new(settings, store);
    scorer.connected().await.unwrap();
    scorer
}

/// Each ride is scored by the model of its breed, in any spelling of its name; without one, by the global model with a fallback.
/// Explanations and thresholds are those of the model that scored.
#[tokio::test]
async fn a_ride_is_scored_by_the_model_of_its_breed_or_the_global_model() {
    let store = memory();
    let scorer = with_champion(Settings::default(), Arc::clone(&store)).await;
    put_breed(&store, &[&of_breed("qilin", 12)]).await;
    put_breed(&store, &[&of_breed("nix 2", -3)]).await;
    let scored = answers(&scorer, &["Qilin", "", "nix 2", " qilin ", "pegasus", "  "]).await;
    let (all, none) = ("7".to_owned(), Some(Fallback::NoBreedModel));
    let expected = vec![
        ("qilin-12".to_owned(), 12.0, None),
        (all.clone(), 7.0, None),
        ("nix 2--3".to_owned(), -3.0, None),
        ("qilin-12".to_owned(), 12.0, None),
        (all.clone(), 7.0, none),
        (all, 7.0, None),
    ];
    assert_eq!(scored, expected);

    let request = ScoreRequest { explain: true, ..rides_of(&["nix 2", ""]) };
    let response = ask_for(&scorer, request, None).await.unwrap();
    let ScoreOutcome::Scored { by: Some(by), service, explanation, .. } = &response.scores[0].outcome else {
        panic!("{response:?}")
    };
    let ScoredBy { model, threshold, baseline_log_odds, .. } = by;
    assert_eq!((model.as_str(), *threshold, *baseline_log_odds), (family("nix 2").as_str(), 0.25, Some(-19.2)));
    assert!(*service && explanation.len() == 6, "0.43 reaches the threshold of its breed model");
    let ScoreOutcome::Scored { by: None, fallback: None, .. } = &response.scores[1].outcome else {
        panic!("{response:?}")
    };
}

/// However many requests wait for a breed, its alias and artefact are read once; immediately afterwards not at all.
#[tokio::test(start_paused = true)]
async fn concurrent_requests_for_a_breed_load_it_once() {
    let counting = Counting::new();
    let scorer = with_champion(Settings::default(), counting.clone()).await;
    put_breed(&(counting.clone() as Store), &[&of_breed("qilin", 12)]).await;
    let asked =
        futures::future::join_all((0..WAITING_MAX).map(|_| answers(&scorer, &["qilin", "none", "qilin"]))).await;
    assert!(
        asked.iter().all(|scores| scores[0].0 == "qilin-12" && scores[1].2 == Some(Fallback::NoBreedModel)),
        "{asked:?}"
    );
    assert_eq!(counting.reads_of("service-request--qilin/"), 3, "alias, the generation after it, artefact");
    assert_eq!(counting.reads_of("service-request--none/"), 1, "that there is none is remembered, too");
    answers(&scorer, &["qilin", "none"]).await;
    assert_eq!(counting.reads_of("service-request--"), 4);
}

/// With five times as many breeds as may be in memory, the bound holds and every answer is correct.
#[tokio::test]
async fn the_number_of_breeds_in_memory_is_bounded() {
    let store = memory();
    let scorer = with_champion(
        Settings { breed_models_max: 20, served_write_ms: Some(0), ..Settings::default() },
        Arc::clone(&store),
    )
    .await;
    let breeds: Vec<String> = (0..100).map(|index| format!("b{index}")).collect();
    for (tenths, breed) in (0i32..).zip(&breeds) {
        put_breed(&store, &[&of_breed(breed, tenths)]).await;
    }
    for round in 0..3 {
        for (tenths, breed) in (0i32..).zip(&breeds) {
            let scored = answers(&scorer, &[breed]).await;
            assert_eq!(scored, [(format!("{breed}-{tenths}"), f64::from(tenths), None)], "round {round}");
            assert!(scorer.breeds.len() <= 20, "{} in memory", scorer.breeds.len());
        }
    }
    // All of them in one request.
    let all: Vec<&str> = breeds.iter().map(String::as_str).collect();
    let scored = answers(&scorer, &all).await;
    assert!(scored.iter().zip(&all).all(|(score, breed)| score.0.starts_with(&format!("{breed}-"))), "{scored:?}");
    assert!(scorer.breeds.len() <= 20);
    let counts = scorer.breeds.take_counts();
    assert!(counts.evictions >= counts.loads - 20 && counts.loads > 100, "{counts:?}");
}

/// With a store that takes a minute per object, a request for a breed waits as long as the settings say, and is answered by the
/// global model with the reason. Requests without a breed, or for one in memory, do not wait. After the load, the breed model scores.
#[tokio::test(start_paused = true)]
async fn the_wait_for_a_breed_model_is_bounded() {
    let inner = memory();
    put_breed(&inner, &[&of_breed("qilin", 12)]).await;
    let minute = Duration::from_secs(60);
    let slow = ThrottleConfig { wait_get_per_call: minute, ..ThrottleConfig::default() };
    put_model(&inner, "7").await;
    put_champion(&inner, &["7"]).await;
    let scorer =
        Arc::new(Scorer::new(Settings::default(), Arc::new(ThrottledStore::new(inner, slow))).without_statistics());
    scorer.connected().await.unwrap();
    let asked = Instant::now();
    // More than may wait: the others are answered at once.
    let many = (0..40).map(|_| {
        let scorer = Arc::clone(&scorer);
        tokio::spawn(async move {
            let scored = answers(&scorer, &["qilin"]).await;
            assert_eq!(scored, [("7".to_owned(), 7.0, Some(Fallback::Loading))]);
            asked.elapsed()
        })
    });
    let many: Vec<_> = many.collect();
    tokio::task::yield_now().await;
    assert_eq!(answers(&scorer, &[""]).await[0].0, "7");
    assert_eq!(asked.elapsed(), Duration::ZERO, "no breed, no waiting");
    let took: Vec<Duration> = futures::future::join_all(many).await.into_iter().map(|joined| joined.unwrap()).collect();
    let waited = took.iter().filter(|took| **took == Duration::from_millis(250)).count();
    assert_eq!(waited, WAITING_MAX, "{took:?}");
    assert_eq!(took.iter().filter(|took| took.is_zero()).count(), 40 - WAITING_MAX, "{took:?}");
    // A request with less time is answered in its time, too.
    let response = ask_for(&scorer, rides_of(&["qilin"]), Some(100)).await.unwrap();
    assert!(response.error.is_none(), "{response:?}");

    tokio::time::sleep(3 * minute).await;
    // After a pause the first request waits for a read of the champion.
    assert_eq!(answers(&scorer, &[""]).await[0].0, "7");
    let asked = Instant::now();
    assert_eq!(answers(&scorer, &["qilin"]).await, [("qilin-12".to_owned(), 12.0, None)]);
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(scorer.breeds.take_counts().loads, 1);
}

/// With requests for thousands of breeds and a store that takes a minute per object, the number of waiting loads is bounded, and all
/// requests are answered.
#[tokio::test(start_paused = true)]
async fn waiting_loads_are_bounded() {
    let inner = memory();
    put_model(&inner, "7").await;
    put_champion(&inner, &["7"]).await;
    let minute = Duration::from_secs(60);
    let slow = ThrottleConfig { wait_get_per_call: minute, ..ThrottleConfig::default() };
    let settings = Settings { breed_wait_ms: 0, breed_models_max: 10_000, ..Settings::default() };
    let scorer = Scorer::new(settings, Arc::new(ThrottledStore::new(inner, slow))).without_statistics();
    scorer.connected().await.unwrap();
    for request in 0..5 {
        let breeds: Vec<String> = (0..1_000).map(|index| format!("b{request}x{index}")).collect();
        let scored = answers(&scorer, &breeds.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(scored.iter().all(|(.., why)| *why == Some(Fallback::Loading)));
    }
    tokio::time::sleep(100 * minute).await;
    let counts = scorer.breeds.take_counts();
    assert_eq!((counts.misses, counts.loads), (5_000, 1_024));
}

/// A new champion of a breed scores after a second without an event, and at once with one. A delayed write of an older one changes
/// nothing; a roll-back does.
#[tokio::test(start_paused = true)]
async fn a_breed_model_is_kept_up_to_date() {
    let store = memory();
    let scorer = with_champion(Settings::default(), Arc::clone(&store)).await;
    let (first, second) = (of_breed("qilin", 1), of_breed("qilin", 2));
    let now = async |scorer: &Scorer| {
        // Reads in the background complete within this time.
        tokio::time::sleep(Duration::from_millis(1)).await;
        answers(scorer, &["qilin"]).await.remove(0).1
    };
    assert_eq!(answers(&scorer, &["qilin"]).await[0].2, Some(Fallback::NoBreedModel));
    put_breed(&store, &[&first]).await;
    assert_eq!(now(&scorer).await, 7.0, "the absence is still remembered");
    promote_breed(&scorer, &first).await;
    assert_eq!(now(&scorer).await, 1.0, "after the event");

    put_breed(&store, &[&first, &second]).await;
    assert_eq!(now(&scorer).await, 1.0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(now(&scorer).await, 1.0, "the first request gets the old one");
    assert_eq!(now(&scorer).await, 2.0, "without an event");

    put_breed(&store, &[&first]).await;
    promote_breed(&scorer, &first).await;
    assert_eq!(now(&scorer).await, 2.0, "a delayed write of the first one");
    put_breed(&store, &[&first, &second, &first]).await;
    promote_breed(&scorer, &first).await;
    assert_eq!(now(&scorer).await, 1.0, "a roll-back");

    store.delete(&layout::champion(&family("qilin")).into()).await.unwrap();
    promote_breed(&scorer, &first).await;
    assert_eq!(now(&scorer).await, 7.0, "taken out of service");
}

/// A promotion and a roll-back of the global model take effect for rides of a breed in the next request: a breed model of another
/// release does not score them, the global model does, with a fallback. When the breed's alias follows, its model scores again.
#[tokio::test(start_paused = true)]
async fn a_breed_model_scores_beside_the_global_model_of_its_release_only() {
    let counting = Counting::new();
    let store: Store = counting.clone();
    let scorer = with_champion(Settings::default(), Arc::clone(&store)).await;
    put_model(&store, "8").await;
    let beside =
        |prior_mean: &str, tenths| Model { prior_mean: Some(prior_mean.to_owned()), ..of_breed("qilin", tenths) };
    let (first, second) = (beside("7", 1), beside("8", 2));
    let by_all = |id: &str| [(id.to_owned(), id.parse().unwrap(), Some(Fallback::NoBreedModel))];
    let by_breed = |tenths: i32| [(format!("qilin-{tenths}"), f64::from(tenths), None)];
    let read_behind = || tokio::time::sleep(Duration::from_millis(1));
    let ask = || answers(&scorer, &["qilin"]);
    put_breed(&store, &[&first]).await;
    assert_eq!(ask().await, by_breed(1));

    // A promotion; the breed's alias followed before the first ride, without an event.
    put_champion(&store, &["7", "8"]).await;
    put_breed(&store, &[&first, &second]).await;
    promote(&scorer, "8").await;
    assert_eq!(ask().await, by_all("8"));
    read_behind().await;
    assert_eq!(ask().await, by_breed(2), "it was reloaded at once");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ask().await;
    read_behind().await;

    // A roll-back of the global model alone; its breeds follow later.
    let reads = || counting.reads_of("service-request--qilin/champion.json");
    let before = reads();
    put_champion(&store, &["7", "8", "7"]).await;
    promote(&scorer, "7").await;
    for _ in 0..20 {
        assert_eq!(ask().await, by_all("7"), "not that of the withdrawn release");
        read_behind().await;
    }
    assert_eq!(reads(), before + 1, "not with every request");
    put_breed(&store, &[&first, &second, &first]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ask().await, by_all("7"));
    read_behind().await;
    assert_eq!(ask().await, by_breed(1));
}

/// A broken breed model is not served: the global model scores with a fallback until it is repaired. A good model stays if its
/// successor is broken.
#[tokio::test(start_paused = true)]
async fn the_global_model_scores_instead_of_a_broken_breed_model() {
    let store = memory();
    let scorer = with_champion(Settings::default(), Arc::clone(&store)).await;
    let (first, second) = (of_breed("qilin", 1), of_breed("qilin", 2));
    let artefact = |model: &Model| layout::model(&model.model, &model.model_id);
    put_breed(&store, &[&first]).await;
    store::write(&store, &artefact(&first), b"{".to_vec()).await.unwrap();
    let unavailable = [("7".to_owned(), 7.0, Some(Fallback::Unavailable))];
    assert_eq!(answers(&scorer, &["qilin"]).await, unavailable);
    put_breed(&store, &[&first]).await;
    assert_eq!(answers(&scorer, &["qilin"]).await, unavailable);
    tokio::time::sleep(Duration::from_secs(1)).await;
    answers(&scorer, &["qilin"]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(answers(&scorer, &["qilin"]).await[0].0, "qilin-1");

    put_breed(&store, &[&first, &second]).await;
    store::write(&store, &artefact(&second), b"{".to_vec()).await.unwrap();
    promote_breed(&scorer, &second).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(answers(&scorer, &["qilin"]).await[0].0, "qilin-1");
}

/// During promotions of global and breed models, every score is exactly that of the version it names.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_score_is_by_the_version_it_names_during_promotions() {
    let store = memory();
    let settings = Settings { breed_models_max: 3, ..Settings::default() };
    let scorer = Arc::new(with_champion(settings, Arc::clone(&store)).await);
    let ids = ["7", "8", "9"];
    for id in ids {
        put_model(&store, id).await;
    }
    let breeds = ["a", "b", "c", "d", "e"];
    let versions = |breed: &str| [10, 20, 30].map(|tenths| of_breed(breed, tenths));
    for breed in breeds {
        put_breed(&store, &[&versions(breed)[0]]).await;
    }
    let asking: Vec<_> = (0..4)
        .map(|worker| {
            let scorer = Arc::clone(&scorer);
            tokio::spawn(async move {
                let mut by_breed = 0;
                for round in 0..200 {
                    let asked = [breeds[(round + worker) % 5], "", breeds[(round * 3 + worker) % 5], "none"];
                    for (id, log_odds, _) in answers(&scorer, &asked).await {
                        by_breed += usize::from(id.contains('-'));
                        let tenths = id.rsplit('-').next().unwrap();
                        assert_eq!(log_odds, tenths.parse::<f64>().unwrap(), "{id}");
                    }
                }
                by_breed
            })
        })
        .collect();
    let mut line = vec!["7"];
    for round in 0..60 {
        line.push(ids[round % 3]);
        put_champion(&store, &line).await;
        promote(&scorer, ids[round % 3]).await;
        let models = versions(breeds[round % 5]);
        let models: Vec<&Model> = models.iter().cycle().take(round / 5 + 2).collect();
        put_breed(&store, &models).await;
        promote_breed(&scorer, models.last().unwrap()).await;
    }
    for task in asking {
        assert!(task.await.unwrap() > 100, "most were scored by breed models");
    }
}
