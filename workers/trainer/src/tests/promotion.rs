//! Which new model becomes champion, and what a person's word is worth.

use super::*;
use common::features::is_test_ride;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;

/// Rides whose chance of service rises with the distance by `slope` per mile around 30 of them; with slope 0 it is one half for all.
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

async fn verdict(store: &Store, model_id: &str) -> Verdict {
    store::read_json(store, &layout::verdict(layout::GLOBAL_MODEL, model_id)).await.unwrap().unwrap()
}

/// A model of more rides of the same kind takes over, and says by how much it is better on which rides.
#[tokio::test]
async fn more_of_the_same_is_promoted_with_the_numbers() {
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
    assert_eq!((champion.by.as_str(), champion.why.as_str()), (release::TRAINER, verdict.why.as_str()));
    assert_eq!(
        champion.sha256,
        hex::encode(Sha256::digest(store::read(&store, &second.object).await.unwrap().unwrap()))
    );
}

/// Labels without any relation to the rides: the model is kept as challenger, and the champion is not replaced.
#[tokio::test]
async fn labels_drawn_by_lot_replace_no_champion() {
    let store = memory();
    let trainer = Trainer::new(Settings::default(), Arc::clone(&store));
    let first = promoted(&trainer, &put_dataset(&store, "a", &[sloped("a", 2_000, 0.3, 1)]).await).await;
    store.delete(&Path::from(layout::manifest("a"))).await.unwrap();
    for seed in 0..20 {
        let batch_id = format!("shuffled-{seed}");
        let ready = put_dataset(&store, &batch_id, &[sloped(&batch_id, 5_600, 0.0, 100 + seed)]).await;
        let refusal = rejected(&trainer, &ready).await;
        assert_eq!(refusal.reason, "no_evidence", "{seed}: {}", refusal.why);
        assert!(refusal.why.contains("no evidence") || refusal.why.contains("no better"), "{}", refusal.why);
        let challenger = registry::current(&store, &refusal.model, AliasName::Challenger).await.unwrap().unwrap();
        assert_eq!(
            (challenger.model_id, challenger.object),
            (refusal.model_id.clone(), refusal.object.clone().unwrap())
        );
        assert_eq!(alias(&store).await.unwrap().model_id, first.model_id);
        assert_eq!(rejected(&trainer, &ready).await, refusal, "a resend is answered alike");
        store.delete(&Path::from(layout::manifest(&batch_id))).await.unwrap();
    }
}

/// A challenger that knows less, a hundred times: blind to the distance, or all but silenced by its penalty, it is compared with the
/// champion on the same held-out rides, by two metrics, and never promoted.
#[tokio::test]
async fn a_worse_challenger_is_never_promoted() {
    let mut reasons = BTreeMap::<String, u32>::new();
    for seed in 0..100 {
        let store = memory();
        let good = Trainer::new(Settings { breed_rides_min: 0, ..Settings::default() }, Arc::clone(&store));
        let ready = put_dataset(&store, "a", &[sloped("a", 5_600, 0.25, seed)]).await;
        let champion = promoted(&good, &ready).await;
        let blind = Settings { features: common::features::FeatureSet::Weather, ..Settings::default() };
        let silenced = Settings { alpha: vec![1e6], ..Settings::default() };
        let (settings, metric) = match seed % 3 {
            0 => (blind, Metric::LogLoss),
            1 => (silenced.clone(), Metric::Brier),
            _ => (silenced, Metric::LogLoss),
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

/// What a person took back stays back, whatever events come again; what a person promotes is champion.
#[tokio::test]
async fn a_person_has_the_last_word() {
    let store = memory();
    let by_hand = Trainer::new(Settings { promotion: Promotion::ByHand, ..Settings::default() }, Arc::clone(&store));
    let trainer = Trainer::new(Settings::default(), Arc::clone(&store));
    let a = put_dataset(&store, "a", &[sloped("a", 1_000, 0.3, 1)]).await;
    let refusal = rejected(&by_hand, &a).await;
    assert_eq!(refusal.reason, "by_hand_only");
    // Trained once, however often the event comes.
    let before = everything(&store).await;
    store::write(&store, &layout::metrics(&refusal.model, &refusal.model_id), "untouched").await.unwrap();
    assert_eq!(rejected(&by_hand, &a).await, refusal);
    let metrics = store::read(&store, &layout::metrics(&refusal.model, &refusal.model_id)).await.unwrap().unwrap();
    assert_eq!((metrics.as_ref(), everything(&store).await.len()), (&b"untouched"[..], before.len()));
    let (version, _) =
        registry::version(&store, layout::GLOBAL_MODEL, &rejected(&by_hand, &a).await.model_id).await.unwrap().unwrap();
    registry::name(&store, AliasName::Champion, &version, "a person", "looks good").await.unwrap();
    assert_eq!(promoted(&by_hand, &a).await.model_id, version.model_id);
    // Under another rule it was not refused by, it still is the champion.
    assert_eq!(promoted(&trainer, &a).await.model_id, version.model_id);
    // Also when what was decided is lost.
    store.delete(&Path::from(layout::model(layout::GLOBAL_MODEL, &version.model_id))).await.unwrap();
    assert_eq!(promoted(&trainer, &a).await.model_id, version.model_id);
    let challenger = registry::current(&store, layout::GLOBAL_MODEL, AliasName::Challenger).await.unwrap();
    assert_eq!(challenger.unwrap().generation, 1, "nobody was made challenger since");

    let b = put_dataset(&store, "b", &[sloped("b", 5_000, 0.3, 2)]).await;
    let second = promoted(&trainer, &b).await;
    registry::name(&store, AliasName::Champion, &version, "a person", "b is doubtful").await.unwrap();
    // The event comes again, also after the verdict was lost.
    assert_eq!(promoted(&trainer, &b).await.model_id, version.model_id);
    store.delete(&Path::from(layout::verdict(layout::GLOBAL_MODEL, &second.model_id))).await.unwrap();
    let refusal = rejected(&trainer, &b).await;
    assert_eq!((refusal.reason.as_str(), refusal.model_id), ("replaced_before", second.model_id));
    assert!(refusal.why.contains("b is doubtful"), "{}", refusal.why);
    assert_eq!(alias(&store).await.unwrap().model_id, version.model_id);
}

/// A slow trainer that saw fewer datasets does not replace the champion that knows them all; a champion of datasets that are gone can
/// be replaced.
#[tokio::test]
async fn a_model_of_fewer_datasets_does_not_replace_one_of_more() {
    let store = memory();
    let ready_a = put_dataset(&store, "a", &[lines("a", 500, 6)]).await;
    let ready_b = put_dataset(&store, "b", &[lines("b", 500, 6)]).await;
    let newer = promoted(&trainer(&store), &ready_b).await;
    // It has read the list of datasets before b came, and judges now.
    let settings = always();
    let mut plan = Plan::read(&store, settings.training(), "a").await.unwrap();
    plan.manifests.truncate(1);
    plan.datasets.truncate(1);
    plan.model_id = "0123456789abcdef".to_owned();
    let slow = Shared { settings, store: Arc::clone(&store), threads: 2, cancel: Cancel::default() };
    slow.train(&plan, "a").await.unwrap();
    assert_eq!(verdict(&store, &plan.model_id).await.reason, "outdated");
    assert_eq!(alias(&store).await.unwrap().model_id, newer.model_id);
    // Dataset b is taken away: the champion knows a dataset that is no more.
    store.delete(&Path::from(layout::manifest("b"))).await.unwrap();
    assert_ne!(promoted(&trainer(&store), &ready_a).await.model_id, newer.model_id);
}

/// Few held-out rides compare nothing.
#[tokio::test]
async fn too_few_held_out_rides_leave_the_champion() {
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
async fn a_panic_in_a_training_ends_with_its_message() {
    let store = memory();
    let trainer = trainer(&store);
    let ready = put_dataset(&store, "a", &[lines("a", 500, 6)]).await;
    let task = tokio::spawn(async { panic!("in a training, on purpose") });
    *trainer.under_way.lock().await = Some(UnderWay { ready: ready.clone(), task });
    let attempt = AssertUnwindSafe(handle(&trainer, &ready)).catch_unwind().await;
    assert!(attempt.is_err(), "the attempt fails");
    promoted(&trainer, &ready).await;
}

/// The family of the models of the breed that [`misleading`] makes rides of.
const QILIN: &str = "service-request--qilin";

/// Rides of one breed. Whether service is asked for rises with the distance for those that are trained on, and falls for those held
/// out: a model of them is worse than one that knows better.
fn misleading(prefix: &str, rides: u64) -> Vec<String> {
    let (rising, falling) = (sloped(prefix, rides, 0.6, 7), sloped(prefix, rides, -0.6, 7));
    let one = |(rising, falling): (String, String)| {
        let is_held_out = is_test_ride(rising.split(',').next().unwrap());
        if is_held_out { falling } else { rising }.replacen(",,,", ",,Qilin,", 1)
    };
    rising.into_iter().zip(falling).map(one).collect()
}

async fn breed_champion(store: &Store) -> Alias {
    registry::current(store, QILIN, AliasName::Champion).await.unwrap().unwrap()
}

/// All or none of a release is promoted: models by breed that are worse than those in service keep the model of all rides back. Whoever
/// promotes always promotes that, too.
#[tokio::test]
async fn a_release_with_worse_models_of_breeds_is_not_promoted() {
    let store = memory();
    let settings = || Settings { breed_rides_min: 100, promotion_rides_min: 50, ..Settings::default() };
    let ready = put_dataset(&store, "a", &[sloped("a", 4_000, 0.3, 1), misleading("q", 1_500)]).await;
    Trainer::new(settings(), Arc::clone(&store)).shared.handle(&ready).await.unwrap();
    let first = alias(&store).await.unwrap();
    // The one in service for the breed knows better.
    let artefact: Model = store::read_json(&store, &breed_champion(&store).await.object).await.unwrap().unwrap();
    assert_eq!(artefact.centre.as_ref(), Some(&first.model_id));
    let mut knowing = Model { model_id: "0123456789abcdef".to_owned(), intercept: 18.0, ..artefact };
    for coefficient in &mut knowing.coefficients {
        coefficient.per_unit = if coefficient.feature == "distance" { -0.6 } else { 0.0 };
    }
    store::write(&store, &layout::model(QILIN, &knowing.model_id), pretty(&knowing).unwrap()).await.unwrap();
    let (version, _) = registry::version(&store, QILIN, &knowing.model_id).await.unwrap().unwrap();
    registry::name(&store, AliasName::Champion, &version, "a person", "it knows better").await.unwrap();

    let ready = put_dataset(&store, "b", &[sloped("b", 4_000, 0.3, 2)]).await;
    let refusal = rejected(&Trainer::new(settings(), Arc::clone(&store)), &ready).await;
    assert_eq!(refusal.reason, "worse_than_champion", "{}", refusal.why);
    assert!(refusal.why.contains("models by breed"), "{}", refusal.why);
    assert_eq!(alias(&store).await.unwrap(), first);
    assert_eq!(breed_champion(&store).await.model_id, knowing.model_id);

    let always = Settings { promotion: Promotion::Always, ..settings() };
    Trainer::new(always, Arc::clone(&store)).shared.handle(&ready).await.unwrap();
    assert_eq!(alias(&store).await.unwrap().model_id, refusal.model_id);
    let artefact: Model = store::read_json(&store, &breed_champion(&store).await.object).await.unwrap().unwrap();
    assert_eq!(artefact.centre, Some(refusal.model_id));
}

/// A trainer that died after it named a champion leaves its breeds unnamed: the next training names them, whatever comes of it. And
/// whoever names the breeds of one that is champion no more names those of the one that is.
#[tokio::test]
async fn the_models_of_breeds_follow_the_champion_in_the_end() {
    let store = memory();
    let settings = || Settings { breed_rides_min: 100, ..Settings::default() };
    let ready = put_dataset(&store, "a", &[sloped("a", 1_000, 0.3, 1), misleading("q", 400)]).await;
    Trainer::new(settings(), Arc::clone(&store)).shared.handle(&ready).await.unwrap();
    let (first, of_breed) = (alias(&store).await.unwrap(), breed_champion(&store).await);
    for path in [
        layout::champion(QILIN),
        layout::alias_generation(QILIN, AliasName::Champion, 1),
        layout::verdict(layout::GLOBAL_MODEL, &first.model_id),
    ] {
        store.delete(&Path::from(path)).await.unwrap();
    }
    let ready = put_dataset(&store, "b", &[sloped("b", 1_000, 0.3, 2)]).await;
    let by_hand = Settings { promotion: Promotion::ByHand, ..settings() };
    let refusal = rejected(&Trainer::new(by_hand, Arc::clone(&store)), &ready).await;
    assert_eq!(breed_champion(&store).await.model_id, of_breed.model_id);
    assert!(store::exists(&store, &layout::report(layout::GLOBAL_MODEL, &first.model_id)).await.unwrap());

    let (second, _) = registry::version(&store, layout::GLOBAL_MODEL, &refusal.model_id).await.unwrap().unwrap();
    registry::name(&store, AliasName::Champion, &second, "a person", "").await.unwrap();
    release::name_breeds(&store, first).await.unwrap();
    let artefact: Model = store::read_json(&store, &breed_champion(&store).await.object).await.unwrap().unwrap();
    assert_eq!(artefact.centre, Some(second.model_id));
}

/// A training longer than a message may be held puts the message aside and goes on; when it comes again, the answer is there. Messages
/// that come meanwhile begin no second one.
#[tokio::test(start_paused = true)]
async fn a_long_training_outlives_its_message() {
    let wait_get_per_call = Duration::from_secs(60);
    let slow: Store = Arc::new(ThrottledStore::new(
        InMemory::new(),
        ThrottleConfig { wait_get_per_call, ..ThrottleConfig::default() },
    ));
    let ready = put_dataset(&slow, "a", &[sloped("a", 500, 0.3, 1)]).await;
    let trainer = Trainer::new(Settings { hold_ms_max: 90_000, ..Settings::default() }, Arc::clone(&slow));
    let mut put_aside = 0;
    let answer = loop {
        let began = tokio::time::Instant::now();
        match handle(&trainer, &ready).await {
            Err(Failure::Outage { dependency: "training", .. }) => {
                assert_eq!(began.elapsed(), Duration::from_secs(90), "held no longer");
                put_aside += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => break other.unwrap(),
        }
    };
    assert!(put_aside >= 2, "put aside {put_aside} times");
    assert_eq!((answer.0.as_str(), alias(&slow).await.unwrap().generation), ("model-promoted.v1", 1));
}

/// Told to end, a trainer ends its training and gives the message back unspent; another one takes it up.
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

/// An artefact that was named is not written again, not even by a trainer that would write other bytes: the name vouches for its SHA-256.
#[tokio::test]
async fn an_artefact_that_is_there_stays_as_it_is() {
    let store = memory();
    let ready = put_dataset(&store, "a", &[sloped("a", 500, 0.3, 1)]).await;
    let first = promoted(&trainer(&store), &ready).await;
    let mut older: serde_json::Value = store::read_json(&store, &first.object).await.unwrap().unwrap();
    older["trainer"] = "0.0.9".into();
    let older = serde_json::to_vec_pretty(&older).unwrap();
    store::write(&store, &first.object, older.clone()).await.unwrap();
    store.delete(&Path::from(layout::verdict(&first.model, &first.model_id))).await.unwrap();
    promoted(&trainer(&store), &ready).await;
    assert_eq!(store::read(&store, &first.object).await.unwrap().unwrap(), older);
}

/// A version that a person took back is not promoted again where the champion's artefact cannot be read, nor where everything is
/// promoted.
#[tokio::test]
async fn what_was_taken_back_stays_back_whatever_else_is_broken() {
    let store = memory();
    let a = put_dataset(&store, "a", &[sloped("a", 500, 0.3, 1)]).await;
    let first = promoted(&trainer(&store), &a).await;
    let b = put_dataset(&store, "b", &[sloped("b", 500, 0.3, 2)]).await;
    let second = promoted(&trainer(&store), &b).await;
    let (version, _) = registry::version(&store, &first.model, &first.model_id).await.unwrap().unwrap();
    registry::name(&store, AliasName::Champion, &version, "a person", "b is doubtful").await.unwrap();
    store.delete(&Path::from(layout::verdict(&second.model, &second.model_id))).await.unwrap();
    store::write(&store, &first.object, "{").await.unwrap();
    assert_eq!(rejected(&trainer(&store), &b).await.reason, "replaced_before");
    assert_eq!(alias(&store).await.unwrap().model_id, first.model_id);
}
