//! Rides in, probability out: in one process, and as processes on RabbitMQ.

mod deliveries;
mod faults;
mod foreign;
mod models;
mod real;
mod rollback;
mod weather;

use pipeline_tests::processes::{Fleet, Input, SOON, dataset_sha256, succeed, told, wildrydes};
use serde_json::Value;
use std::{collections::BTreeSet, process::Command, time::Instant};

/// What the made-up rides were labelled with, and four standard errors of an estimate from 20,000 of them.
const TRUTH: [(&str, f64, f64); 6] = [
    ("distance", 0.75, 0.125),
    ("healthpoints", 0.0, 0.002),
    ("magicpoints", -0.011, 0.0013),
    ("tmin", -0.004, 0.0027),
    ("tmax", -0.003, 0.0025),
    ("prcp", 0.007, 0.0009),
];

fn coefficient(told: &Value, feature: &str) -> f64 {
    let coefficients = told["model"]["coefficients"].as_array().expect("coefficients");
    let found = coefficients.iter().find(|c| c["feature"] == feature).expect("the feature");
    found["per_unit"].as_f64().expect("a number")
}

/// The demo's data: 20,000 rides, every one accounted for, the known truth recovered.
#[test]
fn in_one_process_every_ride_is_accounted_for_and_the_truth_recovered() {
    let told = Input::of(20_000).run(&[]);
    let manifest = &told["batches"][0]["manifest"];
    let count = |name: &str| manifest[name].as_u64().unwrap();
    assert_eq!(count("received"), 20_000);
    assert_eq!(count("accepted") + count("rejected"), 20_000);
    let by_reason: u64 =
        manifest["rejected_by_reason"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(by_reason, count("rejected"));
    assert!(count("rejected") > 0, "the made-up rides hold some bad ones");
    let counts = &told["model"]["counts"];
    assert_eq!(counts["train"].as_u64().unwrap() + counts["test"].as_u64().unwrap(), count("trainable"));
    for (feature, truth, tolerance) in TRUTH {
        let found = coefficient(&told, feature);
        assert!((found - truth).abs() < tolerance, "{feature}: {found}, the truth is {truth}");
    }
    assert!(told["model"]["test"]["roc_auc"].as_f64().unwrap() > 0.7);
}

/// The fingerprint of the dataset depends on the batch's bytes and the weather alone.
#[tokio::test]
async fn the_dataset_is_the_same_whatever_the_chunks_the_broker_and_the_number_of_processes() {
    let input = Input::of(3_000);
    let expected = input.run(&[]);
    for chunk_size in ["1", "7", "2999", "10000"] {
        assert_eq!(
            dataset_sha256(&input.run(&["--chunk-size", chunk_size])),
            dataset_sha256(&expected),
            "{chunk_size}"
        );
    }
    let fleet = Fleet::start(2, &input.weather);
    let first = told(fleet.wildrydes().arg("ingest").arg(&input.rides));
    assert_eq!(dataset_sha256(&first), dataset_sha256(&expected));
    // Publishing a batch again changes nothing, and still tells that its dataset is ready.
    let mut again = told(fleet.wildrydes().arg("ingest").arg(&input.rides));
    let earlier = again["batches"][0].as_object_mut().and_then(|batch| batch.remove("earlier"));
    assert!(earlier.is_some_and(|earlier| earlier["rides"].is_number()), "and that it was ready before");
    assert_eq!(again, first);
    // The same batch id with other bytes is refused.
    let other = input.folder().join("other.json");
    std::fs::write(&other, "[]").unwrap();
    let id = first["batches"][0]["batch_id"].as_str().unwrap();
    let refused = fleet.wildrydes().args(["ingest", "--batch-id", id]).arg(&other).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("batch_id_conflict"));
    drain_dead_letter(&fleet, "splitter", "batch_id_conflict").await;
    // The model is the same one, too: a pure function of the datasets and settings.
    let champion = fleet.champion();
    assert_eq!(champion["model_id"], expected["model"]["model_id"]);
    fleet.finish().await;
}

/// One trace id leads from the publisher through every worker's log; every line of a delivery names its batch.
#[tokio::test]
async fn one_trace_spans_all_workers() {
    let input = Input::of(2_500);
    let fleet = Fleet::start(1, &input.weather);
    let submitted = told(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides));
    let (trace_id, batch_id) = (submitted["trace_id"].clone(), submitted["batch_id"].clone());
    fleet.champion();
    // The scorer hears of the promotion a moment later.
    fleet.wait_for("the scorer's line", |_| workers_with(&fleet.logs(), &trace_id).contains("scorer"));
    let logs = fleet.logs();
    let workers = workers_with(&logs, &trace_id);
    let expected: BTreeSet<String> = common::topology::PROCESSES.iter().map(ToString::to_string).collect();
    assert_eq!(workers, expected);
    let joined = logs.iter().filter(|line| line["span"]["worker"] == "merger" && line["message"] == "done");
    assert!(joined.clone().count() >= 3 && joined.clone().all(|line| line["span"]["batch_id"] == batch_id));
    fleet.finish().await;
}

fn workers_with(logs: &[Value], trace_id: &Value) -> BTreeSet<String> {
    let mine = logs.iter().filter(|line| line["span"]["trace_id"] == *trace_id);
    mine.filter_map(|line| line["span"]["worker"].as_str().map(str::to_owned)).collect()
}

/// `ingest` follows to what the trainer says, or as far as it is told; that no model comes of a batch is its failure only
/// where the model was asked for.
#[tokio::test]
async fn ingest_follows_as_far_as_it_is_told() {
    let input = Input::of(50);
    let fleet = Fleet::start(1, &input.weather);
    let ingest = |more: &[&str], code| {
        let ended = fleet.wildrydes().arg("ingest").arg(&input.rides).args(more).output().unwrap();
        let said = [ended.stdout, ended.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        (said.contains("too_few_rides"), said.contains("waiting for the model"), said)
    };
    assert!(matches!(ingest(&[], 0), (true, true, _)));
    assert!(matches!(ingest(&["--until", "model"], 4), (true, false, _)));
    assert!(matches!(ingest(&["--until", "dataset"], 0), (false, false, _)));
    fleet.finish().await;
    let without = Fleet::start_some(&["splitter", "weather-fetcher", "merger"], 1, &input.weather, &[]);
    let said = without.wildrydes().arg("ingest").arg(&input.rides).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("no process reads the queue `trainer`"), "{said:?}");
    without.finish().await;
}

/// Scores come from the promoted model, whole, and swap with the next promotion.
#[tokio::test]
async fn a_fleet_answers_score_requests_and_says_which_model_it_was() {
    let input = Input::of(4_000);
    let fleet = Fleet::start(1, &input.weather);
    let mut ask = fleet.wildrydes();
    ask.args(["score", "--fleet", "--distance", "30", "--healthpoints", "300", "--magicpoints", "300"]);
    ask.args(["--tmin", "18", "--tmax", "27", "--prcp", "0", "--units", "celsius", "--timeout-ms", "60000"]);
    let too_early = ask.output().unwrap();
    assert!(!too_early.status.success());
    assert!(String::from_utf8_lossy(&too_early.stderr).contains("wildrydes ingest"), "{too_early:?}");
    let report = succeed(fleet.wildrydes().arg("ingest").arg(&input.rides));
    assert!(report.contains("ROC AUC"), "it follows to the model\n{report}");
    assert!(
        fleet.store().join("models/service-request/champion.json").is_file(),
        "who is told of it can ask for scores"
    );
    let champion = fleet.champion();
    // The scorer hears of the promotion a moment after the alias is written.
    ask.arg("--json");
    let answer = answer_of(&mut ask, &champion["model_id"], None);
    let probability = answer["scores"][0]["probability"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&probability));
    // The same formula by hand, from the artefact.
    let model = std::fs::read(fleet.store().join(champion["object"].as_str().unwrap())).unwrap();
    let told = serde_json::json!({ "model": serde_json::from_slice::<Value>(&model).unwrap() });
    let features = [
        ("distance", 30.0),
        ("healthpoints", 300.0),
        ("magicpoints", 300.0),
        ("tmin", 180.0),
        ("tmax", 270.0),
        ("prcp", 0.0),
    ];
    let log_odds = features.iter().map(|(name, x)| coefficient(&told, name) * x).sum::<f64>()
        + told["model"]["intercept"].as_f64().unwrap();
    assert!((probability - 1.0 / (1.0 + (-log_odds).exp())).abs() < 1e-12);
    // More rides, another model: the running scorer answers with it, and in between with the one before, never an error.
    let more = input.folder().join("more.json");
    succeed(wildrydes().args(["generate", "rides", "--rides", "3000", "--seed", "8"]).arg(&more));
    succeed(fleet.wildrydes().arg("ingest").arg(&more));
    let first = &champion["model_id"];
    fleet.wait_for("another champion", |_| fleet.champion()["model_id"] != *first);
    let second = fleet.champion();
    let answer = answer_of(&mut ask, &second["model_id"], Some(first));
    assert_ne!(answer["scores"][0]["probability"].as_f64().unwrap(), probability);
    fleet.finish().await;
}

/// Asks until the answer is that model's; until then answers come from the model before, when there was one.
fn answer_of(ask: &mut Command, model_id: &Value, before: Option<&Value>) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let ended = ask.output().expect("the command starts");
        let answer: Option<Value> = serde_json::from_slice(&ended.stdout).ok().filter(|_| ended.status.success());
        match answer {
            Some(answer) if answer["model_id"] == *model_id => return answer,
            Some(answer) => assert_eq!(Some(&answer["model_id"]), before),
            None => assert_eq!(before, None, "an answer was dropped: {ended:?}"),
        }
        assert!(Instant::now() < deadline, "no answer of {model_id}: {ended:?}");
    }
}

/// Takes the one dead letter a test expects off its queue.
async fn drain_dead_letter(fleet: &Fleet, queue: &str, reason: &str) {
    use runtime::Broker;
    let broker = runtime::AmqpBroker::new(fleet.broker.clone());
    let connection = broker.connect("test").await.unwrap();
    let mut dead = connection.consume(&common::topology::dead_queue(queue), 1).await.unwrap();
    let delivery = tokio::time::timeout(SOON, dead.next()).await.expect("a dead letter").unwrap();
    assert_eq!(delivery.properties.text("x-reason"), Some(reason));
    delivery.settle.ack().await.unwrap();
    connection.close().await;
}
