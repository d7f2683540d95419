//! Models of breeds: found, loaded once, bounded, kept up to date, never in the way of others.

use super::{counting::Counting, *};
use common::message::{Fallback, ScoredBy};
use object_store::ObjectStoreExt;

/// The model of a breed: its log-odds at all features 0 are `tenths` of tenths.
fn of_breed(breed: &str, tenths: i32) -> Model {
    let model_id = format!("{breed}-{tenths}");
    let (model, breed) = (family(breed), Some(breed.to_owned()));
    Model { model, breed, intercept: f64::from(tenths) / 10.0, threshold: 0.25, ..artefact(&model_id) }
}

fn family(breed: &str) -> String {
    layout::breed_model(layout::GLOBAL_MODEL, breed).unwrap()
}

/// The last of the line is the champion of its breed now.
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

/// Of each ride who answered, the probability's log-odds in tenths, and why its breed was of no account.
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

/// A store with the champion `7` of all rides, and a scorer on it.
async fn with_champion(settings: Settings, store: Store) -> Scorer {
    put_model(&store, "7").await;
    put_champion(&store, &["7"]).await;
    let scorer = Scorer::new(settings, store);
    scorer.connected().await.unwrap();
    scorer
}

/// Each ride is scored by the model of its breed, whatever way its name is written; what has none, by that of all rides, which says
/// so. Explanations and thresholds are those of the model that answered.
#[tokio::test]
async fn a_ride_is_scored_by_the_model_of_its_breed_or_else_of_all() {
    let store = memory();
    let scorer = with_champion(Settings::default(), Arc::clone(&store)).await;
    put_breed(&store, &[&of_breed("qilin", 12)]).await;
    put_breed(&store, &[&of_breed("nix 2", -3)]).await;
    let told = answers(&scorer, &["Qilin", "", "nix 2", " qilin ", "pegasus", "  "]).await;
    let (all, none) = ("7".to_owned(), Some(Fallback::NoBreedModel));
    let expected = vec![
        ("qilin-12".to_owned(), 12.0, None),
        (all.clone(), 7.0, None),
        ("nix 2--3".to_owned(), -3.0, None),
        ("qilin-12".to_owned(), 12.0, None),
        (all.clone(), 7.0, none),
        (all, 7.0, None),
    ];
    assert_eq!(told, expected);

    let request = ScoreRequest { explain: true, ..rides_of(&["nix 2", ""]) };
    let response = ask_for(&scorer, request, None).await.unwrap();
    let ScoreOutcome::Scored { by: Some(by), service, explanation, .. } = &response.scores[0].outcome else {
        panic!("{response:?}")
    };
    let ScoredBy { model, threshold, baseline_log_odds, .. } = by;
    assert_eq!((model.as_str(), *threshold, *baseline_log_odds), (family("nix 2").as_str(), 0.25, Some(-19.2)));
    assert!(*service && explanation.len() == 6, "0.43 reaches the threshold of its own model");
    let ScoreOutcome::Scored { by: None, fallback: None, .. } = &response.scores[1].outcome else {
        panic!("{response:?}")
    };
}

/// However many wait for a breed at once, its alias and artefact are read once; right afterwards not at all.
#[tokio::test(start_paused = true)]
async fn many_who_ask_for_a_breed_read_it_once() {
    let counting = Counting::new();
    let scorer = with_champion(Settings::default(), counting.clone()).await;
    put_breed(&(counting.clone() as Store), &[&of_breed("qilin", 12)]).await;
    let asked =
        futures::future::join_all((0..WAITING_MAX).map(|_| answers(&scorer, &["qilin", "none", "qilin"]))).await;
    assert!(asked.iter().all(|told| told[0].0 == "qilin-12" && told[1].2 == Some(Fallback::NoBreedModel)), "{asked:?}");
    assert_eq!(counting.reads_of("service-request--qilin/"), 3, "alias, the generation after it, artefact");
    assert_eq!(counting.reads_of("service-request--none/"), 1, "that there is none is known, too");
    answers(&scorer, &["qilin", "none"]).await;
    assert_eq!(counting.reads_of("service-request--"), 4);
}

/// Five times as many breeds as may be in memory: never more than that are, and every answer is right.
#[tokio::test]
async fn no_more_breeds_are_in_memory_than_the_settings_say() {
    let store = memory();
    let scorer =
        with_champion(Settings { breed_models_max: 20, served_write_ms: 0, ..Settings::default() }, Arc::clone(&store))
            .await;
    let breeds: Vec<String> = (0..100).map(|index| format!("b{index}")).collect();
    for (tenths, breed) in (0i32..).zip(&breeds) {
        put_breed(&store, &[&of_breed(breed, tenths)]).await;
    }
    for round in 0..3 {
        for (tenths, breed) in (0i32..).zip(&breeds) {
            let told = answers(&scorer, &[breed]).await;
            assert_eq!(told, [(format!("{breed}-{tenths}"), f64::from(tenths), None)], "round {round}");
            assert!(scorer.breeds.len() <= 20, "{} in memory", scorer.breeds.len());
        }
    }
    // All of them in one request.
    let all: Vec<&str> = breeds.iter().map(String::as_str).collect();
    let told = answers(&scorer, &all).await;
    assert!(told.iter().zip(&all).all(|(told, breed)| told.0.starts_with(&format!("{breed}-"))), "{told:?}");
    assert!(scorer.breeds.len() <= 20);
    let counts = scorer.breeds.take_counts();
    assert!(counts.evictions >= counts.loads - 20 && counts.loads > 100, "{counts:?}");
}

/// A store takes a minute for an object. Who asks for a breed waits as long as the settings say, and has an answer that says why it
/// is another model's; who asks for none, or for one in memory, does not wait at all; and when the model has come, it answers.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_model_of_a_breed_longer_than_the_settings_say() {
    let inner = memory();
    put_breed(&inner, &[&of_breed("qilin", 12)]).await;
    let minute = Duration::from_secs(60);
    let slow = ThrottleConfig { wait_get_per_call: minute, ..ThrottleConfig::default() };
    put_model(&inner, "7").await;
    put_champion(&inner, &["7"]).await;
    let scorer = Arc::new(Scorer::new(Settings::default(), Arc::new(ThrottledStore::new(inner, slow))).unwatched());
    scorer.connected().await.unwrap();
    let asked = Instant::now();
    // As many as wait at most, and more: those have their answer at once.
    let many = (0..40).map(|_| {
        let scorer = Arc::clone(&scorer);
        tokio::spawn(async move {
            let told = answers(&scorer, &["qilin"]).await;
            assert_eq!(told, [("7".to_owned(), 7.0, Some(Fallback::Loading))]);
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
    // A request that cannot wait as long is answered in its time, too.
    let response = ask_for(&scorer, rides_of(&["qilin"]), Some(100)).await.unwrap();
    assert!(response.error.is_none(), "{response:?}");

    tokio::time::sleep(3 * minute).await;
    // After a silence the first one waits for a look at the champion.
    assert_eq!(answers(&scorer, &[""]).await[0].0, "7");
    let asked = Instant::now();
    assert_eq!(answers(&scorer, &["qilin"]).await, [("qilin-12".to_owned(), 12.0, None)]);
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(scorer.breeds.take_counts().loads, 1);
}

/// Requests for thousands of breeds on a store that takes a minute for each: no more than so many readings wait for their turn,
/// whatever comes; all are answered.
#[tokio::test(start_paused = true)]
async fn readings_do_not_pile_up() {
    let inner = memory();
    put_model(&inner, "7").await;
    put_champion(&inner, &["7"]).await;
    let minute = Duration::from_secs(60);
    let slow = ThrottleConfig { wait_get_per_call: minute, ..ThrottleConfig::default() };
    let settings = Settings { breed_wait_ms: 0, breed_models_max: 10_000, ..Settings::default() };
    let scorer = Scorer::new(settings, Arc::new(ThrottledStore::new(inner, slow))).unwatched();
    scorer.connected().await.unwrap();
    for request in 0..5 {
        let breeds: Vec<String> = (0..1_000).map(|index| format!("b{request}x{index}")).collect();
        let told = answers(&scorer, &breeds.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(told.iter().all(|(.., why)| *why == Some(Fallback::Loading)));
    }
    tokio::time::sleep(100 * minute).await;
    let counts = scorer.breeds.take_counts();
    assert_eq!((counts.misses, counts.loads), (5_000, 1_024));
}

/// A second after a breed's champion changed the new one answers, and the old one until then; with an event at once. A late reading of
/// an older one changes nothing; a roll-back does.
#[tokio::test(start_paused = true)]
async fn the_model_of_a_breed_is_kept_up_to_date() {
    let store = memory();
    let scorer = with_champion(Settings::default(), Arc::clone(&store)).await;
    let (first, second) = (of_breed("qilin", 1), of_breed("qilin", 2));
    let now = async |scorer: &Scorer| {
        // What is read in the background has been read by then.
        tokio::time::sleep(Duration::from_millis(1)).await;
        answers(scorer, &["qilin"]).await.remove(0).1
    };
    assert_eq!(answers(&scorer, &["qilin"]).await[0].2, Some(Fallback::NoBreedModel));
    put_breed(&store, &[&first]).await;
    assert_eq!(now(&scorer).await, 7.0, "that there was none is still believed");
    promote_breed(&scorer, &first).await;
    assert_eq!(now(&scorer).await, 1.0, "the event was heard");

    put_breed(&store, &[&first, &second]).await;
    assert_eq!(now(&scorer).await, 1.0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(now(&scorer).await, 1.0, "the one who asks first has the old one");
    assert_eq!(now(&scorer).await, 2.0, "without an event");

    put_breed(&store, &[&first]).await;
    promote_breed(&scorer, &first).await;
    assert_eq!(now(&scorer).await, 2.0, "a late writer put the first one back");
    put_breed(&store, &[&first, &second, &first]).await;
    promote_breed(&scorer, &first).await;
    assert_eq!(now(&scorer).await, 1.0, "a roll-back");

    store.delete(&layout::champion(&family("qilin")).into()).await.unwrap();
    promote_breed(&scorer, &first).await;
    assert_eq!(now(&scorer).await, 7.0, "taken out of service");
}

/// A promotion and a roll-back of the model of all rides hold for rides of a breed in the very next request: the breed's model of
/// another release does not score them, that of all rides does, and says so. When the breed's own name follows, its model answers again.
#[tokio::test(start_paused = true)]
async fn the_model_of_a_breed_answers_beside_its_own_release_alone() {
    let counting = Counting::new();
    let store: Store = counting.clone();
    let scorer = with_champion(Settings::default(), Arc::clone(&store)).await;
    put_model(&store, "8").await;
    let beside = |centre: &str, tenths| Model { centre: Some(centre.to_owned()), ..of_breed("qilin", tenths) };
    let (first, second) = (beside("7", 1), beside("8", 2));
    let by_all = |id: &str| [(id.to_owned(), id.parse().unwrap(), Some(Fallback::NoBreedModel))];
    let by_breed = |tenths: i32| [(format!("qilin-{tenths}"), f64::from(tenths), None)];
    let read_behind = || tokio::time::sleep(Duration::from_millis(1));
    let ask = || answers(&scorer, &["qilin"]);
    put_breed(&store, &[&first]).await;
    assert_eq!(ask().await, by_breed(1));

    // A promotion; the breed's name had followed when the first ride came, and no event told of it.
    put_champion(&store, &["7", "8"]).await;
    put_breed(&store, &[&first, &second]).await;
    promote(&scorer, "8").await;
    assert_eq!(ask().await, by_all("8"));
    read_behind().await;
    assert_eq!(ask().await, by_breed(2), "it was read again at once");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ask().await;
    read_behind().await;

    // A roll-back of the model of all rides alone; its breeds follow later.
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

/// A model of a breed that is broken is not served: that of all rides answers, and says so, until it is whole. A good one stays when
/// its successor is broken.
#[tokio::test(start_paused = true)]
async fn a_broken_model_of_a_breed_leaves_the_rides_to_that_of_all() {
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

/// While champions and models of breeds are swapped, every score is exactly that of the version it names.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_score_is_of_the_version_it_names_while_all_are_swapped() {
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
        assert!(task.await.unwrap() > 100, "most were scored by the model of their breed");
    }
}
