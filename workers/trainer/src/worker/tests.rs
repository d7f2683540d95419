mod cached;
mod promotion;
mod revisions;

use super::*;
use crate::{data::rows, release::publication, settings::Threshold};
use common::{
    dataset::{DatasetFile, FIRST_REVISION, Manifest},
    document::{Metric, MetricsFile, Promotion, Verdict},
    envelope::Properties,
    features::{FEATURES, is_test_ride},
    message::ModelPromoted,
    model::{Alias, AliasName, Model, TrainingCounts, TrainingSettings},
    schema::Described,
};
use futures::StreamExt;
use object_store::{
    ObjectStoreExt,
    memory::InMemory,
    path::Path,
    throttle::{ThrottleConfig, ThrottledStore},
};
use records::datasets::{Header, Records, column_names};
use records::{
    registry::{Change, Version},
    store::{self, pretty},
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write, num::NonZeroU32, sync::Arc, time::Duration};

/// A ride as a line of a dataset, without a label if `service` is `None`.
fn line(ride_id: &str, seed: u64, service: Option<bool>, weather: bool) -> String {
    let spread = |salt: u64, range: u64| (seed.wrapping_add(salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % range;
    let label = service.map_or("", |service| if service { "1" } else { "0" });
    let weather = if weather {
        format!("USW00094728,1.000000,{},{},{}", spread(1, 99), spread(2, 99), spread(3, 99))
    } else {
        ",,,,".to_owned()
    };
    let (distance, health, magic) = (29 + spread(4, 3), 290 + spread(5, 90), 290 + spread(6, 90));
    format!("{ride_id},\"a,\nb\",,2018-04-25 17:03:05.722,40.6,-74.1,{distance}.5,{health},{magic},{label},{weather}\n")
}

/// `rides` lines, of which a share of `sixteenths` / 16 ended in a service request.
fn lines(prefix: &str, rides: u64, sixteenths: u64) -> Vec<String> {
    let service = |seed: u64| seed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 60 < sixteenths;
    (0..rides).map(|seed| line(&format!("{prefix}-{seed}"), seed, Some(service(seed)), true)).collect()
}

async fn put_dataset(store: &Store, batch_id: &str, parts: &[Vec<String>]) -> DatasetReady {
    put_revision(store, batch_id, FIRST_REVISION, parts).await
}

async fn put_revision(store: &Store, batch_id: &str, number: NonZeroU32, parts: &[Vec<String>]) -> DatasetReady {
    let revision = Some(number).filter(|number| *number > FIRST_REVISION);
    let mut manifest = Manifest {
        schema: Manifest::SCHEMA.name.to_owned(),
        batch_id: batch_id.to_owned(),
        revision,
        sha256: "0".repeat(64),
        columns: column_names().map(str::to_owned).to_vec(),
        received: 0,
        accepted: 0,
        rejected: 0,
        rejected_by_reason: BTreeMap::new().into_iter().collect(),
        without_weather: BTreeMap::new().into_iter().collect(),
        labelled: 0,
        trainable: 0,
        stations: BTreeMap::new(),
        files: Vec::new(),
    };
    for (index, lines) in (0..).zip(parts) {
        let mut body = column_names().join(",") + "\n";
        for line in lines {
            body.push_str(line);
            let unlabelled = line.contains(",,USW") || line.ends_with(",,,,,\n");
            manifest.labelled += u64::from(!unlabelled);
            manifest.trainable += u64::from(!unlabelled && !line.ends_with(",,,,\n"));
        }
        manifest.accepted += lines.len() as u64;
        manifest.files.push(DatasetFile {
            path: layout::dataset_part(batch_id, number, index),
            bytes: body.len() as u64,
            rows: lines.len() as u64,
            sha256: hex::encode(Sha256::digest(&body)),
        });
        store::write(store, &layout::dataset_part(batch_id, number, index), body).await.unwrap();
    }
    manifest.received = manifest.accepted;
    let bytes = serde_json::to_vec_pretty(&manifest).unwrap();
    let manifest_sha256 = hex::encode(Sha256::digest(&bytes));
    store::write(store, &layout::manifest(batch_id, number), bytes).await.unwrap();
    DatasetReady {
        batch_id: batch_id.to_owned(),
        manifest: layout::manifest(batch_id, number),
        manifest_sha256,
        rides: manifest.accepted,
        revision,
    }
}

fn memory() -> Store {
    Arc::new(InMemory::new())
}

/// Settings that promote every model: most rides here have random labels.
fn always() -> Settings {
    Settings { promotion: Promotion::Always, ..Settings::default() }
}

fn trainer(store: &Store) -> Trainer {
    Trainer::new(always(), Arc::clone(store))
}

async fn handle(trainer: &Trainer, ready: &DatasetReady) -> Result<(String, serde_json::Value), Failure> {
    let envelope = Envelope { payload: ready.clone(), properties: Properties::default() };
    let outgoing: Vec<_> = trainer.handle(envelope).await?.into_stream().collect().await;
    let [Ok(only)] = outgoing.as_slice() else { panic!("{outgoing:?}") };
    Ok((only.routing_key.clone(), serde_json::from_slice(&only.body).unwrap()))
}

async fn promoted(trainer: &Trainer, ready: &DatasetReady) -> ModelPromoted {
    let (kind, body) = handle(trainer, ready).await.unwrap();
    assert_eq!(kind, "model-promoted.v1", "{body}");
    serde_json::from_value(body).unwrap()
}

async fn rejected(trainer: &Trainer, ready: &DatasetReady) -> ModelRejected {
    let (kind, body) = handle(trainer, ready).await.unwrap();
    assert_eq!(kind, "model-rejected.v1", "{body}");
    serde_json::from_value(body).unwrap()
}

async fn model(store: &Store, promoted: &ModelPromoted) -> Model {
    store::read_json(store, &promoted.object).await.unwrap().unwrap()
}

async fn alias(store: &Store) -> Option<Alias> {
    store::read_json(store, &layout::champion(layout::GLOBAL_MODEL)).await.unwrap()
}

async fn everything(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let mut objects = BTreeMap::new();
    let mut listing = store.list(Some(&Path::from(layout::MODELS)));
    while let Some(meta) = listing.next().await {
        let path = meta.unwrap().location.to_string();
        let mut bytes = store::read(store, &path).await.unwrap().unwrap().to_vec();
        // The time of a promotion is not a function of the inputs.
        if path.contains("/champion") {
            let mut alias: Alias = serde_json::from_slice(&bytes).unwrap();
            alias.at.clear();
            bytes = serde_json::to_vec(&alias).unwrap();
        }
        objects.insert(path, bytes);
    }
    objects
}

#[tokio::test]
async fn the_model_accounts_for_every_ride_of_every_dataset() {
    let store = memory();
    let (mut a, mut b) = (lines("a", 900, 5), lines("b", 300, 5));
    a.extend([line("a-u", 1, None, true), line("a-v", 1, None, false), line("a-w", 1, Some(true), false)]);
    // A ride that is trainable in both batches counts in a; one without a label in a counts in b.
    b.extend([line("a-7", 7, Some(true), true), line("a-u", 1, Some(true), true)]);
    // A distance from before the limit existed: one such ride does not prevent a training.
    b.push(line("b-absurd", 1, Some(true), true).replacen(".5,", "e300,", 1));
    let (first, second) = b.split_at(100);
    put_dataset(&store, "a", &[a.clone()]).await;
    let ready = put_dataset(&store, "b", &[first.to_vec(), second.to_vec()]).await;
    let promoted = promoted(&trainer(&store), &ready).await;
    let model = model(&store, &promoted).await;

    let ids = (0..900).map(|i| format!("a-{i}")).chain((0..300).map(|i| format!("b-{i}"))).chain(["a-u".to_owned()]);
    let test = ids.filter(|id| is_test_ride(id)).count() as u64;
    let TrainingCounts { rides, unlabelled, without_weather, out_of_range, duplicates, train, test: held_out, .. } =
        model.counts;
    assert_eq!((rides, unlabelled, without_weather, out_of_range, duplicates), (1_206, 2, 1, 1, 1));
    assert_eq!((train, held_out), (1_201 - test, test));
    assert_eq!((model.train.rides, model.test.as_ref().unwrap().rides), (train, test));
    let confusion = model.train.confusion;
    assert_eq!(confusion.true_positive + confusion.false_negative, model.counts.train_service);

    assert_eq!(model.model_id, promoted.model_id);
    assert_eq!(model.datasets.iter().map(|d| d.batch_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(model.coefficients.iter().zip(FEATURES).all(|(c, f)| c.feature == f.name && c.unit == f.unit));
    let report: MetricsFile =
        store::read_json(&store, &layout::version_document::<MetricsFile>(&model.model, &model.model_id))
            .await
            .unwrap()
            .unwrap();
    assert_eq!((report.counts, report.test), (model.counts, model.test));
    assert_eq!((report.data.batches, report.data.received, report.data.accepted), (2, 1_206, 1_206));
    assert_eq!(report.data.coverage.iter().map(|place| place.rides).sum::<u64>(), 1_206);
}

#[tokio::test]
async fn training_twice_gives_the_same_bytes_under_the_same_id() {
    let (one, other) = (memory(), memory());
    let part = [lines("a", 1_000, 6)];
    let ready = put_dataset(&one, "a", &part).await;
    assert_eq!(put_dataset(&other, "a", &part).await, ready);
    let first = promoted(&trainer(&one), &ready).await;
    let before = everything(&one).await;
    assert_eq!(promoted(&trainer(&one), &ready).await, first);
    let alone = Shared::new(always(), Arc::clone(&other), 1);
    let alone = Trainer { shared: Arc::new(alone), running: Mutex::default() };
    assert_eq!(promoted(&alone, &ready).await, first);
    assert_eq!(everything(&one).await, before);
    assert_eq!(everything(&other).await, before);
}

#[tokio::test]
async fn other_settings_make_another_model() {
    let store = memory();
    let ready = put_dataset(&store, "a", &[lines("a", 1_000, 6)]).await;
    let first = promoted(&trainer(&store), &ready).await;
    let settings = Settings { threshold: Threshold::Fixed(0.25), ..always() };
    let second = promoted(&Trainer::new(settings, Arc::clone(&store)), &ready).await;
    assert_ne!(first.model_id, second.model_id);
    assert_eq!(second.previous_model_id.as_ref(), Some(&first.model_id));
    // Back to the first settings: there is no new training and no promotion; only a person promotes the old model again.
    assert_eq!(promoted(&trainer(&store), &ready).await, second);
}

#[tokio::test]
async fn longer_rides_have_more_service_requests_whichever_class_is_larger() {
    for majority_serves in [false, true] {
        let store = memory();
        let mut rides = Vec::new();
        for (seed, distance) in (0..1_000).zip((20..40).cycle()) {
            // Of twenty distances, the longest four or sixteen end in a service request, except for every seventh ride.
            let long = distance >= if majority_serves { 24 } else { 36 };
            let service = long != (seed % 7 == 0);
            let ride = line(&format!("a-{seed}"), seed, Some(service), true);
            let (head, tail) = ride.split_once(",-74.1,").unwrap();
            let (_, tail) = tail.split_once(',').unwrap();
            rides.push(format!("{head},-74.1,{distance},{tail}"));
        }
        let ready = put_dataset(&store, "a", &[rides]).await;
        let model = model(&store, &promoted(&trainer(&store), &ready).await).await;
        assert_eq!(model.counts.train_service * 2 > model.counts.train, majority_serves);
        let at = |distance: f64| model.probability(&[distance, 330.0, 330.0, 50.0, 50.0, 50.0]);
        assert!(model.coefficients[0].per_unit > 0.0);
        assert!(at(40.0) > 0.5 && at(20.0) < 0.5, "{} {}", at(40.0), at(20.0));
        assert!(model.test.unwrap().roc_auc.unwrap() > 0.7);
    }
}

#[tokio::test]
async fn every_refusal_has_a_reason_and_keeps_the_champion() {
    let unlabelled = |n: u64| (0..n).map(|i| line(&format!("a-{i}"), i, None, true)).collect::<Vec<_>>();
    let dry = |n: u64| (0..n).map(|i| line(&format!("a-{i}"), i, Some(i % 2 == 0), false)).collect::<Vec<_>>();
    let separable = (0..400).map(|i| {
        let (head, tail) = (format!("a-{i},,,2018-04-25 17:03:05.722,40.6,-74.1"), "USW00094728,1.0");
        format!(
            "{head},{i},{},{},{},{tail},{},{},{}\n",
            i * 7 % 31,
            i * 5 % 29,
            u8::from(i >= 200),
            i % 3,
            i % 5,
            i % 11
        )
    });
    let unpenalised = Settings { alpha: vec![0.0], ..Settings::default() };
    let small = Settings { rides_min: 10, rides_max: 500, ..Settings::default() };
    for (lines, settings, reason, why) in [
        (lines("a", 1_000, 0), Settings::default(), "one_class_only", "0 of "),
        (lines("a", 1_000, 16), Settings::default(), "one_class_only", " ended in a service request"),
        (
            lines("a", 99, 8),
            Settings::default(),
            "too_few_rides",
            "99 rides have a label and weather (99 rides in all)",
        ),
        (Vec::new(), Settings::default(), "too_few_rides", "0 rides have a label"),
        (unlabelled(500), Settings::default(), "too_few_rides", "0 rides have a label and weather (500 rides in all)"),
        (dry(500), Settings::default(), "no_weather", "none of 500 labelled rides has weather"),
        (lines("a", 501, 8), small, "too_many_rides", "501 rides have a label and weather: at most 500"),
        (separable.collect(), unpenalised, "not_converged", "alpha = 0"),
    ] {
        let store = memory();
        let trainer = Trainer::new(settings, Arc::clone(&store));
        let ready = put_dataset(&store, "a", &[lines]).await;
        let refusal = rejected(&trainer, &ready).await;
        assert_eq!(refusal.reason, reason, "{}", refusal.why);
        assert!(refusal.why.contains(why), "{}", refusal.why);
        assert_eq!(alias(&store).await, None);
        assert_eq!(everything(&store).await.len(), 1, "rejected.json alone");
        assert_eq!(rejected(&trainer, &ready).await, refusal, "a second delivery has the same answer");
    }
}

#[tokio::test]
async fn a_higher_limit_lifts_a_refusal() {
    let store = memory();
    let ready = put_dataset(&store, "a", &[lines("a", 500, 6)]).await;
    let first = promoted(&trainer(&store), &ready).await;
    let ready = put_dataset(&store, "b", &[lines("b", 500, 6)]).await;
    let small = Trainer::new(Settings { rides_max: 700, ..always() }, Arc::clone(&store));
    let refusal = rejected(&small, &ready).await;
    assert_eq!(alias(&store).await.unwrap().model_id, first.model_id);
    let second = promoted(&trainer(&store), &ready).await;
    assert_eq!((second.model_id, second.previous_model_id), (refusal.model_id, Some(first.model_id)));
}

#[tokio::test]
async fn a_dataset_that_differs_from_its_manifest_is_never_trained_on() {
    let part = [lines("a", 500, 6)];
    let path = layout::dataset_part("a", FIRST_REVISION, 0);
    let reason = async |store: &Store, ready: &DatasetReady| match handle(&trainer(store), ready).await {
        Err(Failure::Permanent { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let store = memory();
    let ready = put_dataset(&store, "a", &part).await;
    let whole = store::read(&store, &path).await.unwrap().unwrap();

    let mut same_length = whole.to_vec();
    *same_length.last_mut().unwrap() = b' ';
    for body in [whole.slice(..whole.len() - 10).to_vec(), same_length] {
        store::write(&store, &path, body).await.unwrap();
        assert_eq!(reason(&store, &ready).await, "dataset_changed");
    }
    let nowhere = memory();
    let bytes = store::read(&store, &ready.manifest).await.unwrap().unwrap();
    store::write(&nowhere, &ready.manifest, bytes.clone()).await.unwrap();
    assert_eq!(reason(&nowhere, &ready).await, "dataset_changed");

    store::write(&store, &path, whole).await.unwrap();
    let other = DatasetReady { manifest_sha256: "f".repeat(64), ..ready.clone() };
    assert_eq!(reason(&store, &other).await, "dataset_changed");

    let mut wrong: Manifest = serde_json::from_slice(&bytes).unwrap();
    wrong.trainable -= 1;
    let bytes = serde_json::to_vec(&wrong).unwrap();
    let manifest_sha256 = hex::encode(Sha256::digest(&bytes));
    store::write(&store, &ready.manifest, bytes).await.unwrap();
    assert_eq!(reason(&store, &DatasetReady { manifest_sha256, ..ready.clone() }).await, "broken_dataset");

    for elsewhere in ["raw/part-00000.csv", "dataset/aa/part-00000.csv", "dataset/a/../../raw/x", "/etc/passwd"] {
        let mut outside = wrong.clone();
        elsewhere.clone_into(&mut outside.files[0].path);
        let bytes = serde_json::to_vec(&outside).unwrap();
        let manifest_sha256 = hex::encode(Sha256::digest(&bytes));
        store::write(&store, &ready.manifest, bytes).await.unwrap();
        let failure = handle(&trainer(&store), &DatasetReady { manifest_sha256, ..ready.clone() }).await.unwrap_err();
        assert!(failure.to_string().contains("which is not below"), "{failure}");
    }

    let missing = DatasetReady { batch_id: "b".to_owned(), ..ready };
    assert!(matches!(handle(&trainer(&store), &missing).await, Err(Failure::Transient { .. })));
    assert_eq!(alias(&store).await, None);
}

#[tokio::test]
async fn damage_to_another_dataset_fails_only_this_attempt() {
    let store = memory();
    put_dataset(&store, "damaged", &[lines("x", 500, 6)]).await;
    let ready = put_dataset(&store, "good", &[lines("a", 500, 6)]).await;
    let manifest = layout::manifest("damaged", FIRST_REVISION);
    for path in [layout::dataset_part("damaged", FIRST_REVISION, 0), manifest.clone()] {
        store::write(&store, &path, "{").await.unwrap();
        let failure = handle(&trainer(&store), &ready).await.unwrap_err();
        assert!(matches!(&failure, Failure::Transient { why, .. } if why.contains("damaged")), "{failure:?}");
    }
    store.delete(&Path::from(manifest)).await.unwrap();
    let model = model(&store, &promoted(&trainer(&store), &ready).await).await;
    assert_eq!(model.datasets.iter().map(|dataset| dataset.batch_id.as_str()).collect::<Vec<_>>(), ["good"]);
}

#[tokio::test]
async fn rows_are_independent_of_blocks_and_files() {
    // About ten megabytes in two files of several blocks each, with cuts anywhere.
    let store = memory();
    let all = lines("a", 80_000, 6);
    let (first, second) = all.split_at(50_001);
    let ready = put_dataset(&store, "a", &[first.to_vec(), second.to_vec()]).await;
    let model = model(&store, &promoted(&trainer(&store), &ready).await).await;
    assert_eq!((model.counts.rides, model.counts.train + model.counts.test), (80_000, 80_000));

    let mut body = String::new();
    all.iter().for_each(|line| body.write_str(line).unwrap());
    let header = Header::default();
    let rows = rows::parse(&mut Records::new(&header, body.as_bytes())).unwrap().rows;
    let plan = Plan::read(&store, TrainingSettings::default(), "a").await.unwrap();
    let loaded = load(&store, &plan, "a", &ScoredRides::default(), 2, true).await.unwrap();
    for (side, test) in [(&loaded.train, false), (&loaded.test, true)] {
        let expected: Vec<_> =
            rows.iter().filter(|row| row.test == test).map(|row| (row.features, row.service)).collect();
        let found: Vec<_> = side.features.iter().copied().zip(side.service.iter().copied()).collect();
        assert!(found == expected, "rows differ");
    }
}

#[tokio::test]
async fn concurrent_promotions_leave_one_history() {
    // Latency makes all of them read before the first one writes.
    let latency = Duration::from_millis(1);
    let latencies =
        ThrottleConfig { wait_get_per_call: latency, wait_put_per_call: latency, ..ThrottleConfig::default() };
    let store: Store = Arc::new(ThrottledStore::new(InMemory::new(), latencies));
    let ready = put_dataset(&store, "a", &[lines("a", 500, 6)]).await;
    let template = model(&store, &promoted(&trainer(&store), &ready).await).await;
    let version = |index: u8| Version {
        model_id: format!("{index:016x}"),
        sha256: "0".repeat(64),
        model: template.model.clone(),
    };
    let rivals: Vec<Version> = (0..8).map(version).collect();
    let racing = rivals.iter().cloned().map(|rival| {
        let store = Arc::clone(&store);
        let change = Change { by: "a rival", at: host::now(), why: "" };
        tokio::spawn(async move { registry::set_alias(&store, AliasName::Champion, &rival, change).await.unwrap() })
    });
    futures::future::join_all(racing).await.into_iter().for_each(|joined| drop(joined.unwrap()));

    let champion = alias(&store).await.unwrap();
    let past = |alias: &Alias| alias.history.iter().map(|past| past.model_id.clone()).collect::<Vec<_>>();
    let mut line = past(&champion);
    line.push(champion.model_id.clone());
    let mut expected: Vec<_> = rivals.iter().map(|rival| rival.model_id.clone()).chain([template.model_id]).collect();
    for (index, model_id) in line.iter().enumerate() {
        let path = layout::alias_generation(&champion.model, AliasName::Champion, index as u64 + 1);
        let generation: Alias = store::read_json(&store, &path).await.unwrap().unwrap();
        assert_eq!((&generation.model_id, past(&generation).as_slice()), (model_id, &line[..index]));
    }
    line.sort();
    expected.sort();
    assert_eq!(line, expected);
}

#[tokio::test]
async fn the_next_delivery_completes_the_work_of_a_dead_trainer() {
    let store = memory();
    let ready = put_dataset(&store, "a", &[lines("a", 500, 6)]).await;
    let first = promoted(&trainer(&store), &ready).await;
    let complete = everything(&store).await;
    let alias = layout::champion(layout::GLOBAL_MODEL);
    let half = complete[&first.object][..100].to_vec();
    // It died before it wrote the alias; while it wrote the model, on a store that shows incomplete writes; while it wrote the alias.
    for (path, left) in [(&alias, None), (&first.object, Some(half)), (&alias, Some(b"{".to_vec()))] {
        match left {
            None => store.delete(&Path::from(path.as_str())).await.unwrap(),
            Some(bytes) => store::write(&store, path, bytes).await.unwrap(),
        }
        assert_eq!(promoted(&trainer(&store), &ready).await, first);
        assert_eq!(everything(&store).await, complete, "{path}");
    }
}

/// A late write sets the alias back after another promotion: readers follow the generations, and the next trainer that tends the store
/// repairs the alias.
#[tokio::test]
async fn a_late_write_of_the_alias_is_repaired() {
    let store = memory();
    let ready = put_dataset(&store, "a", &[lines("a", 300, 6)]).await;
    promoted(&trainer(&store), &ready).await;
    let path = layout::champion(layout::GLOBAL_MODEL);
    let late = store::read(&store, &path).await.unwrap().unwrap();
    let ready = put_dataset(&store, "b", &[lines("b", 300, 6)]).await;
    let second = promoted(&trainer(&store), &ready).await;
    let as_it_was = everything(&store).await;
    store::write(&store, &path, late).await.unwrap();
    assert_ne!(alias(&store).await.unwrap().model_id, second.model_id);
    let read = registry::read_alias(&store, layout::GLOBAL_MODEL, AliasName::Champion).await.unwrap();
    assert_eq!(read.unwrap().model_id, second.model_id);
    trainer(&store).tend().await.unwrap();
    assert_eq!(everything(&store).await, as_it_was);
}

#[tokio::test]
async fn concurrent_messages_train_once() {
    let store = memory();
    let mut ready = Vec::new();
    for batch_id in ["a", "b", "c"] {
        ready.push(put_dataset(&store, batch_id, &[lines(batch_id, 300, 6)]).await);
    }
    let trainer = trainer(&store);
    let announced = futures::future::join_all(ready.iter().map(|ready| promoted(&trainer, ready))).await;
    assert!(announced.iter().all(|promoted| *promoted == announced[0]));
    let champion = alias(&store).await.unwrap();
    assert_eq!((champion.model_id, champion.history.len()), (announced[0].model_id.clone(), 0));
}
