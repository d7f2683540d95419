//! Which new model becomes champion, by the rule or by a person.

use super::*;
use common::features::is_test_ride;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;

/// Rides whose log-odds of a service request rise with the distance by `slope` per mile and are 0 at 30 miles.
fn sloped(prefix: &str, rides: u64, slope: f64, seed: u64) -> Vec<String> {
    let spread = |ride: u64, salt: u64| {
        let mixed = (ride + 1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add((seed * 16 + salt).wrapping_mul(0xD6E8_FEB8_6659_FD93));
        let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 11) as f64 / (1u64 << 53) as f64
    };
    let ride = |ride: u64| {
        let distance = 20.0 + 20.0 * spread(ride, 1);
        let service = spread(ride, 2) < 1.0 / (1.0 + f64::exp(-slope * (distance - 30.0)));
        let points = |salt| 290.0 + 80.0 * spread(ride, salt);
        let weather = |salt| (200.0 * spread(ride, salt)) as i32;
        format!(
            "{prefix}-{ride},,,2018-04-25 17:03:05.722,40.6,-74.1,{distance},{},{},{},USW00094728,1.0,{},{},{}\n",
            points(3),
            points(4),
            u8::from(service),
            weather(5),
            200 + weather(6),
            weather(7)
        )
    };
    (0..rides).map(ride).collect()
}

fn by_a_person(why: &str) -> Change<'_> {
    Change { by: "a person", at: host::now(), why }
}

async fn verdict(store: &Store, model_id: &str) -> Verdict {
    store::read_json(store, &layout::version_document::<Verdict>(layout::GLOBAL_MODEL, model_id))
        .await
        .unwrap()
        .unwrap()
}

/// A model of more rides of the same kind is promoted; the verdict says by how much it is better, and on which rides.
#[tokio::test]
async fn a_promotion_records_its_comparison() {
    let store = memory();
    let trainer = Trainer::new(Settings::default(), Arc::clone(&store));
    let first = promoted(&trainer, &put_dataset(&store, "a", &[sloped("a", 1_000, 0.3, 1)]).await).await;
    assert_eq!(verdict(&store, &first.model_id).await.reason, "first");
    let second = promoted(&trainer, &put_dataset(&store, "b", &[sloped("b", 5_000, 0.3, 2)]).await).await;
    let verdict = verdict(&store, &second.model_id).await;
    let comparison = verdict.comparison.unwrap();
    assert_eq!((verdict.reason.as_str(), comparison.champion_id.as_str()), ("no_worse", first.model_id.as_str()));
    let model = model(&store, &second).await;
    assert_eq!(comparison.rides, model.counts.test);
    assert_eq!(comparison.challenger, model.evidence.unwrap().held_out.unwrap().model.log_loss.value);
    assert!((comparison.gain.value - (comparison.champion - comparison.challenger)).abs() < 1e-12);
    assert!(comparison.gain.lower <= comparison.gain.value && comparison.gain.value <= comparison.gain.upper);
    let champion = alias(&store).await.unwrap();
    assert_eq!((champion.by.as_str(), champion.why.as_str()), (publication::TRAINER, verdict.why.as_str()));
    assert_eq!(
        champion.sha256,
        hex::encode(Sha256::digest(store::read(&store, &second.object).await.unwrap().unwrap()))
    );
}

/// A model of random labels becomes challenger and never replaces the champion.
#[tokio::test]
async fn a_model_of_random_labels_is_not_promoted() {
    let store = memory();
    let trainer = Trainer::new(Settings::default(), Arc::clone(&store));
    let first = promoted(&trainer, &put_dataset(&store, "a", &[sloped("a", 2_000, 0.3, 1)]).await).await;
    store.delete(&Path::from(layout::manifest("a", FIRST_REVISION))).await.unwrap();
    for seed in 0..20 {
        let batch_id = format!("shuffled-{seed}");
        let ready = put_dataset(&store, &batch_id, &[sloped(&batch_id, 5_600, 0.0, 100 + seed)]).await;
        let refusal = rejected(&trainer, &ready).await;
        assert_eq!(refusal.reason, "no_evidence", "{seed}: {}", refusal.why);
        assert!(refusal.why.contains("no evidence") || refusal.why.contains("no better"), "{}", refusal.why);
        let challenger = registry::current_alias(&store, &refusal.model, AliasName::Challenger).await.unwrap().unwrap();
        assert_eq!(
            (challenger.model_id, challenger.object),
            (refusal.model_id.clone(), refusal.object.clone().unwrap())
        );
        assert_eq!(alias(&store).await.unwrap().model_id, first.model_id);
        assert_eq!(rejected(&trainer, &ready).await, refusal, "a second delivery has the same answer");
        store.delete(&Path::from(layout::manifest(&batch_id, FIRST_REVISION))).await.unwrap();
    }
}

/// A hundred challengers without the distance, or with an extreme penalty, are compared with the champion on the same held-out rides by
/// two metrics, and never promoted.
#[tokio::test]
async fn a_worse_challenger_is_never_promoted() {
    let mut reasons = BTreeMap::<String, u32>::new();
    for seed in 0..100 {
        let store = memory();
        let good = Trainer::new(Settings { breed_rides_min: 0, ..Settings::default() }, Arc::clone(&store));
        let ready = put_dataset(&store, "a", &[sloped("a", 5_600, 0.25, seed)]).await;
        let champion = promoted(&good, &ready).await;
        let without_distance = Settings { features: common::features::FeatureSet::Weather, ..Settings::default() };
        let penalised = Settings { alpha: vec![1e6], ..Settings::default() };
        let (settings, metric) = match seed % 3 {
            0 => (without_distance, Metric::LogLoss),
            1 => (penalised.clone(), Metric::Brier),
            _ => (penalised, Metric::LogLoss),
        };
        let worse =
            Trainer::new(Settings { promotion_metric: metric, breed_rides_min: 0, ..settings }, Arc::clone(&store));
        let refusal = rejected(&worse, &ready).await;
        *reasons.entry(refusal.reason).or_default() += 1;
        assert_eq!(alias(&store).await.unwrap().model_id, champion.model_id, "{seed}: {}", refusal.why);
    }
    assert!(reasons.get("worse_than_champion").is_some_and(|often| *often >= 60), "{reasons:?}");
    assert!(
        reasons.keys().all(|reason| ["worse_than_champion", "no_evidence"].contains(&reason.as_str())),
        "{reasons:?}"
    );
}

/// A version that a person rolled back is not promoted again, whatever messages arrive; a version that a person promotes is champion.
#[tokio::test]
async fn a_person_overrules_the_trainer() {
    let store = memory();
    let by_hand = Trainer::new(Settings { promotion: Promotion::ByHand, ..Settings::default() }, Arc::clone(&store));
    let trainer = Trainer::new(Settings::default(), Arc::clone(&store));
    let a = put_dataset(&store, "a", &[sloped("a", 1_000, 0.3, 1)]).await;
    let refusal = rejected(&by_hand, &a).await;
    assert_eq!(refusal.reason, "by_hand_only");
    // However often the message arrives, there is one training.
    let before = everything(&store).await;
    store::write(&store, &layout::version_document::<MetricsFile>(&refusal.model, &refusal.model_id), "untouched")
        .await
        .unwrap();
    assert_eq!(rejected(&by_hand, &a).await, refusal);
    let metrics = store::read(&store, &layout::version_document::<MetricsFile>(&refusal.model, &refusal.model_id))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((metrics.as_ref(), everything(&store).await.len()), (&b"untouched"[..], before.len()));
    let (version, _) =
        registry::version(&store, layout::GLOBAL_MODEL, &rejected(&by_hand, &a).await.model_id).await.unwrap().unwrap();
    registry::set_alias(&store, AliasName::Champion, &version, by_a_person("looks good")).await.unwrap();
    assert_eq!(promoted(&by_hand, &a).await.model_id, version.model_id);
    // It stays champion under another rule than the one that rejected it.
    assert_eq!(promoted(&trainer, &a).await.model_id, version.model_id);
    // … also if the artefact is lost.
    store.delete(&Path::from(layout::model(layout::GLOBAL_MODEL, &version.model_id))).await.unwrap();
    assert_eq!(promoted(&trainer, &a).await.model_id, version.model_id);
    let challenger = registry::current_alias(&store, layout::GLOBAL_MODEL, AliasName::Challenger).await.unwrap();
    assert_eq!(challenger.unwrap().generation, 1, "there is no new challenger");

    let b = put_dataset(&store, "b", &[sloped("b", 5_000, 0.3, 2)]).await;
    let second = promoted(&trainer, &b).await;
    registry::set_alias(&store, AliasName::Champion, &version, by_a_person("b is doubtful")).await.unwrap();
    // The message arrives again, also after the verdict was lost.
    assert_eq!(promoted(&trainer, &b).await.model_id, version.model_id);
    store
        .delete(&Path::from(layout::version_document::<Verdict>(layout::GLOBAL_MODEL, &second.model_id)))
        .await
        .unwrap();
    let refusal = rejected(&trainer, &b).await;
    assert_eq!((refusal.reason.as_str(), refusal.model_id), ("replaced_before", second.model_id));
    assert!(refusal.why.contains("b is doubtful"), "{}", refusal.why);
    assert_eq!(alias(&store).await.unwrap().model_id, version.model_id);
}

/// A slow trainer with fewer datasets does not replace a champion of all datasets. A champion of removed datasets can be replaced.
#[tokio::test]
async fn a_model_of_fewer_datasets_does_not_replace_one_of_more() {
    let store = memory();
    let ready_a = put_dataset(&store, "a", &[lines("a", 500, 6)]).await;
    let ready_b = put_dataset(&store, "b", &[lines("b", 500, 6)]).await;
    let newer = promoted(&trainer(&store), &ready_b).await;
    // It read the list of datasets before b arrived, and judges now.
    let settings = always();
    let mut plan = Plan::read(&store, settings.training(), "a").await.unwrap();
    plan.manifests.truncate(1);
    plan.datasets.truncate(1);
    plan.model_id = "0123456789abcdef".to_owned();
    let slow = Shared::new(settings, Arc::clone(&store), 2);
    slow.train(&plan, "a").await.unwrap();
    assert_eq!(verdict(&store, &plan.model_id).await.reason, "outdated");
    assert_eq!(alias(&store).await.unwrap().model_id, newer.model_id);
    // Dataset b is removed: the champion was trained on a dataset that does not exist any more.
    store.delete(&Path::from(layout::manifest("b", FIRST_REVISION))).await.unwrap();
    assert_ne!(promoted(&trainer(&store), &ready_a).await.model_id, newer.model_id);
}

#[tokio::test]
async fn too_few_held_out_rides_keep_the_champion() {
    let store = memory();
    let trainer = Trainer::new(Settings::default(), Arc::clone(&store));
    let first = promoted(&trainer, &put_dataset(&store, "a", &[sloped("a", 300, 0.3, 1)]).await).await;
    let ready = put_dataset(&store, "b", &[sloped("b", 300, 0.3, 2)]).await;
    let refusal = rejected(&trainer, &ready).await;
    assert_eq!(refusal.reason, "too_few_held_out", "{}", refusal.why);
    assert_eq!(alias(&store).await.unwrap().model_id, first.model_id);
    // Under another rule it is judged again.
    let lower = Trainer::new(Settings { promotion_rides_min: 50, ..Settings::default() }, Arc::clone(&store));
    handle(&lower, &ready).await.unwrap();
    assert_ne!(verdict(&store, &refusal.model_id).await.reason, "too_few_held_out");
}

/// A panic in a training is one failed attempt of its message, and of no other.
#[tokio::test]
async fn a_panic_fails_one_attempt() {
    let store = memory();
    let trainer = trainer(&store);
    let ready = put_dataset(&store, "a", &[lines("a", 500, 6)]).await;
    let task = tokio::spawn(async { panic!("in a training, on purpose") });
    *trainer.running.lock().await = Some(Running { ready: ready.clone(), spans: Vec::new(), task });
    let attempt = AssertUnwindSafe(handle(&trainer, &ready)).catch_unwind().await;
    assert!(attempt.is_err(), "the attempt fails");
    promoted(&trainer, &ready).await;
}

/// Family of the breed models of the rides from [`misleading`].
const QILIN: &str = "service-request--qilin";

/// Rides of one breed. The share of service requests rises with the distance among the rides to train on, and falls among held-out
/// rides: a model trained on them predicts the held-out rides badly.
fn misleading(prefix: &str, rides: u64) -> Vec<String> {
    let (rising, falling) = (sloped(prefix, rides, 0.6, 7), sloped(prefix, rides, -0.6, 7));
    let one = |(rising, falling): (String, String)| {
        let is_held_out = is_test_ride(rising.split(',').next().unwrap());
        if is_held_out { falling } else { rising }.replacen(",,,", ",,Qilin,", 1)
    };
    rising.into_iter().zip(falling).map(one).collect()
}

async fn breed_champion(store: &Store) -> Alias {
    registry::current_alias(store, QILIN, AliasName::Champion).await.unwrap().unwrap()
}

/// A release is promoted as a whole or not at all: breed models worse than those in service prevent it, except under the setting
/// `always`.
#[tokio::test]
async fn a_release_with_worse_breed_models_is_not_promoted() {
    let store = memory();
    let settings = || Settings { breed_rides_min: 100, promotion_rides_min: 50, ..Settings::default() };
    let ready = put_dataset(&store, "a", &[sloped("a", 4_000, 0.3, 1), misleading("q", 1_500)]).await;
    Trainer::new(settings(), Arc::clone(&store)).shared.handle(&ready).await.unwrap();
    let first = alias(&store).await.unwrap();
    // The breed model in service is better.
    let artefact: Model = store::read_json(&store, &breed_champion(&store).await.object).await.unwrap().unwrap();
    assert_eq!(artefact.prior_mean.as_ref(), Some(&first.model_id));
    let mut better = Model { model_id: "0123456789abcdef".to_owned(), intercept: 18.0, ..artefact };
    for coefficient in &mut better.coefficients {
        coefficient.per_unit = if coefficient.feature == "distance" { -0.6 } else { 0.0 };
    }
    store::write(&store, &layout::model(QILIN, &better.model_id), pretty(&better).unwrap()).await.unwrap();
    let (version, _) = registry::version(&store, QILIN, &better.model_id).await.unwrap().unwrap();
    registry::set_alias(&store, AliasName::Champion, &version, by_a_person("it is better")).await.unwrap();

    let ready = put_dataset(&store, "b", &[sloped("b", 4_000, 0.3, 2)]).await;
    let refusal = rejected(&Trainer::new(settings(), Arc::clone(&store)), &ready).await;
    assert_eq!(refusal.reason, "worse_than_champion", "{}", refusal.why);
    assert!(refusal.why.contains("breed models together"), "{}", refusal.why);
    assert_eq!(alias(&store).await.unwrap(), first);
    assert_eq!(breed_champion(&store).await.model_id, better.model_id);

    let always = Settings { promotion: Promotion::Always, ..settings() };
    Trainer::new(always, Arc::clone(&store)).shared.handle(&ready).await.unwrap();
    assert_eq!(alias(&store).await.unwrap().model_id, refusal.model_id);
    let artefact: Model = store::read_json(&store, &breed_champion(&store).await.object).await.unwrap().unwrap();
    assert_eq!(artefact.prior_mean, Some(refusal.model_id));
}

/// A trainer that dies after it promoted a global model leaves its breed models unpromoted; the next training promotes them, whatever
/// its own result. Promoting the breed models of a former champion promotes those of the present one.
#[tokio::test]
async fn breed_models_follow_the_champion() {
    let store = memory();
    let settings = || Settings { breed_rides_min: 100, ..Settings::default() };
    let ready = put_dataset(&store, "a", &[sloped("a", 1_000, 0.3, 1), misleading("q", 400)]).await;
    Trainer::new(settings(), Arc::clone(&store)).shared.handle(&ready).await.unwrap();
    let (first, of_breed) = (alias(&store).await.unwrap(), breed_champion(&store).await);
    for path in [
        layout::champion(QILIN),
        layout::alias_generation(QILIN, AliasName::Champion, 1),
        layout::version_document::<Verdict>(layout::GLOBAL_MODEL, &first.model_id),
    ] {
        store.delete(&Path::from(path)).await.unwrap();
    }
    let ready = put_dataset(&store, "b", &[sloped("b", 1_000, 0.3, 2)]).await;
    let by_hand = Settings { promotion: Promotion::ByHand, ..settings() };
    let refusal = rejected(&Trainer::new(by_hand, Arc::clone(&store)), &ready).await;
    assert_eq!(breed_champion(&store).await.model_id, of_breed.model_id);
    assert!(store::exists(&store, &layout::report(layout::GLOBAL_MODEL, &first.model_id)).await.unwrap());

    let (second, _) = registry::version(&store, layout::GLOBAL_MODEL, &refusal.model_id).await.unwrap().unwrap();
    registry::set_alias(&store, AliasName::Champion, &second, by_a_person("")).await.unwrap();
    registry::promote_breed_models(&store, first, host::now()).await.unwrap();
    let artefact: Model = store::read_json(&store, &breed_champion(&store).await.object).await.unwrap().unwrap();
    assert_eq!(artefact.prior_mean, Some(second.model_id));
}

/// A training that takes longer than a message may be held continues without it; when the message is delivered again, it gets the result.
/// There is no second training meanwhile.
#[tokio::test(start_paused = true)]
async fn a_long_training_outlives_its_message() {
    let wait_get_per_call = Duration::from_secs(60);
    let slow: Store = Arc::new(ThrottledStore::new(
        InMemory::new(),
        ThrottleConfig { wait_get_per_call, ..ThrottleConfig::default() },
    ));
    let ready = put_dataset(&slow, "a", &[sloped("a", 500, 0.3, 1)]).await;
    let trainer = Trainer::new(Settings { hold_ms_max: 90_000, ..Settings::default() }, Arc::clone(&slow));
    let mut given_back = 0;
    let answer = loop {
        let began = tokio::time::Instant::now();
        match handle(&trainer, &ready).await {
            Err(Failure::Outage { dependency: "training", .. }) => {
                assert_eq!(began.elapsed(), Duration::from_secs(90), "held no longer");
                given_back += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => break other.unwrap(),
        }
    };
    assert!(given_back >= 2, "given back {given_back} times");
    assert_eq!((answer.0.as_str(), alias(&slow).await.unwrap().generation), ("model-promoted.v1", 1));
}

/// A shutdown ends the training and gives the message back without spending an attempt; another trainer starts again.
#[tokio::test]
async fn a_shutdown_ends_a_training() {
    let store = memory();
    let ready = put_dataset(&store, "a", &[sloped("a", 500, 0.3, 1)]).await;
    let ending = Trainer::new(Settings::default(), Arc::clone(&store));
    Worker::stopping(&ending);
    let failure = handle(&ending, &ready).await.unwrap_err();
    assert!(matches!(failure, Failure::Outage { dependency: "training", .. }), "{failure:?}");
    assert_eq!(everything(&store).await, BTreeMap::new());
    promoted(&trainer(&store), &ready).await;
}

/// An artefact is never written again, not even by a trainer that would write other bytes: an alias records its SHA-256.
#[tokio::test]
async fn an_existing_artefact_never_changes() {
    let store = memory();
    let ready = put_dataset(&store, "a", &[sloped("a", 500, 0.3, 1)]).await;
    let first = promoted(&trainer(&store), &ready).await;
    let mut older: serde_json::Value = store::read_json(&store, &first.object).await.unwrap().unwrap();
    older["trainer"] = "0.0.9".into();
    let older = serde_json::to_vec_pretty(&older).unwrap();
    store::write(&store, &first.object, older.clone()).await.unwrap();
    store.delete(&Path::from(layout::version_document::<Verdict>(&first.model, &first.model_id))).await.unwrap();
    promoted(&trainer(&store), &ready).await;
    assert_eq!(store::read(&store, &first.object).await.unwrap().unwrap(), older);
}

/// A version that a person rolled back is not promoted again, even if the artefact of the champion is unreadable and the setting is
/// `always`.
#[tokio::test]
async fn a_rolled_back_version_stays_rolled_back() {
    let store = memory();
    let a = put_dataset(&store, "a", &[sloped("a", 500, 0.3, 1)]).await;
    let first = promoted(&trainer(&store), &a).await;
    let b = put_dataset(&store, "b", &[sloped("b", 500, 0.3, 2)]).await;
    let second = promoted(&trainer(&store), &b).await;
    let (version, _) = registry::version(&store, &first.model, &first.model_id).await.unwrap().unwrap();
    registry::set_alias(&store, AliasName::Champion, &version, by_a_person("b is doubtful")).await.unwrap();
    store.delete(&Path::from(layout::version_document::<Verdict>(&second.model, &second.model_id))).await.unwrap();
    store::write(&store, &first.object, "{").await.unwrap();
    assert_eq!(rejected(&trainer(&store), &b).await.reason, "replaced_before");
    assert_eq!(alias(&store).await.unwrap().model_id, first.model_id);
}
