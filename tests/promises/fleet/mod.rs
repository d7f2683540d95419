//! Tests from rides to a probability: in one process, and as processes on RabbitMQ.

mod deliveries;
mod faults;
mod foreign;
mod models;
mod observed;
mod real;
mod rollback;
mod rolling;
mod services;
mod weather;

use pipeline_tests::{
    processes::{Fleet, Input, dataset_sha256, json_output, succeed, wildrydes},
    wait,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs::File, path::Path, process::Command};

/// The coefficients that the generated rides were labelled with, and four standard errors of an estimate from 20,000 rides.
const TRUTH: [(&str, f64, f64); 6] = [
    ("distance", 0.75, 0.125),
    ("healthpoints", 0.0, 0.002),
    ("magicpoints", -0.011, 0.0013),
    ("tmin", -0.004, 0.0027),
    ("tmax", -0.003, 0.0025),
    ("prcp", 0.007, 0.0009),
];

fn coefficient(report: &Value, feature: &str) -> f64 {
    let coefficients = report["model"]["coefficients"].as_array().expect("coefficients");
    let entry = coefficients.iter().find(|c| c["feature"] == feature).expect("the feature");
    entry["per_unit"].as_f64().expect("a number")
}

/// The demo's 20,000 rides: every ride is accounted for, and the known coefficients are recovered.
#[test]
fn in_one_process_every_ride_is_accounted_for_and_the_truth_recovered() {
    let report = Input::of(20_000).run(&[]);
    let manifest = &report["batches"][0]["manifest"];
    let count = |name: &str| manifest[name].as_u64().unwrap();
    assert_eq!(count("received"), 20_000);
    assert_eq!(count("accepted") + count("rejected"), 20_000);
    let by_reason: u64 =
        manifest["rejected_by_reason"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(by_reason, count("rejected"));
    assert!(count("rejected") > 0, "the made-up rides hold some bad ones");
    let counts = &report["model"]["counts"];
    assert_eq!(counts["train"].as_u64().unwrap() + counts["test"].as_u64().unwrap(), count("trainable"));
    for (feature, truth, tolerance) in TRUTH {
        let estimate = coefficient(&report, feature);
        assert!((estimate - truth).abs() < tolerance, "{feature}: {estimate}, the truth is {truth}");
    }
    assert!(report["model"]["test"]["roc_auc"].as_f64().unwrap() > 0.7);
}

/// The digest of the dataset depends only on the batch's bytes and the weather.
#[tokio::test]
async fn the_dataset_is_independent_of_chunking_broker_and_number_of_processes() {
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
    let first = json_output(fleet.wildrydes().arg("ingest").arg(&input.rides));
    assert_eq!(dataset_sha256(&first), dataset_sha256(&expected));
    // Publishing a batch again changes nothing, and announces its dataset again.
    let mut again = json_output(fleet.wildrydes().arg("ingest").arg(&input.rides));
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
    // The model is the same as well: a pure function of the datasets and settings.
    let champion = fleet.champion();
    assert_eq!(champion["model_id"], expected["model"]["model_id"]);
    fleet.finish().await;
}

/// One trace id runs from the publisher through every worker's log; every line about a delivery names its batch.
#[tokio::test]
async fn one_trace_spans_all_workers() {
    let input = Input::of(2_500);
    let fleet = Fleet::start(1, &input.weather);
    let submitted = json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides));
    let (trace_id, batch_id) = (submitted["trace_id"].clone(), submitted["batch_id"].clone());
    fleet.champion();
    // The scorer receives the promotion a moment later.
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

/// `ingest` follows a batch to the trainer's result, or as far as requested. A batch without a model is a failure only if the
/// model was requested.
#[tokio::test]
async fn ingest_follows_a_batch_as_far_as_requested() {
    let input = Input::of(50);
    let fleet = Fleet::start(1, &input.weather);
    let ingest = |more: &[&str], code| {
        let ended = fleet.wildrydes().arg("ingest").arg(&input.rides).args(more).output().unwrap();
        let text = [ended.stdout, ended.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{text}");
        (text.contains("too_few_rides"), text.contains("waiting for the model"), text)
    };
    // While the trainer stands still, the command announces that it waits.
    fleet.wait_for_sessions(&["trainer"], 1);
    fleet.pause("trainer", 0);
    let output = input.folder().join("output");
    let file = File::create(&output).unwrap();
    let mut waiting = fleet.wildrydes().arg("ingest").arg(&input.rides).stderr(file).spawn().unwrap();
    let announced = |_: &Path| std::fs::read_to_string(&output).unwrap().contains("waiting for the model");
    fleet.wait_for("the announcement of the wait", announced);
    fleet.go_on("trainer", 0);
    assert!(waiting.wait().unwrap().success());
    // If the trainer decides first, the command does not wait and announces nothing.
    assert!(matches!(ingest(&[], 0), (true, _, _)));
    assert!(matches!(ingest(&["--until", "model"], 4), (true, false, _)));
    assert!(matches!(ingest(&["--until", "dataset"], 0), (false, false, _)));
    fleet.finish().await;
    let without = Fleet::start_some(&["splitter", "weather-fetcher", "merger"], 1, &input.weather, &[]);
    let text = without.wildrydes().arg("ingest").arg(&input.rides).output().unwrap();
    assert!(text.status.success(), "{text:?}");
    assert!(String::from_utf8_lossy(&text.stderr).contains("no process reads the queue `trainer`"), "{text:?}");
    without.finish().await;
}

/// Scores come from one promoted model each, and change with the next promotion.
#[tokio::test]
async fn a_fleet_answers_score_requests_and_names_the_model() {
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
    assert!(fleet.store().join("models/service-request/champion.json").is_file(), "a subscriber can request scores");
    let champion = fleet.champion();
    // The scorer receives the promotion a moment after the alias is written.
    ask.arg("--json");
    let answer = answer_of(&mut ask, &champion["model_id"], None);
    let probability = answer["scores"][0]["probability"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&probability));
    // The formula, computed from the artefact.
    let model = std::fs::read(fleet.store().join(champion["object"].as_str().unwrap())).unwrap();
    let model = serde_json::json!({ "model": serde_json::from_slice::<Value>(&model).unwrap() });
    let features = [
        ("distance", 30.0),
        ("healthpoints", 300.0),
        ("magicpoints", 300.0),
        ("tmin", 180.0),
        ("tmax", 270.0),
        ("prcp", 0.0),
    ];
    let log_odds = features.iter().map(|(name, x)| coefficient(&model, name) * x).sum::<f64>()
        + model["model"]["intercept"].as_f64().unwrap();
    assert!((probability - 1.0 / (1.0 + (-log_odds).exp())).abs() < 1e-12);
    // More rides make another model: the running scorer answers with it, and until then with the previous one, never with an
    // error.
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

/// Requests scores until that model answers; until then the previous model may answer, if there was one.
fn answer_of(ask: &mut Command, model_id: &Value, before: Option<&Value>) -> Value {
    wait::until_blocking(format!("an answer of {model_id}"), || {
        let ended = ask.output().expect("the command starts");
        let answer: Option<Value> = serde_json::from_slice(&ended.stdout).ok().filter(|_| ended.status.success());
        match answer {
            Some(answer) if answer["model_id"] == *model_id => return Ok(answer),
            Some(answer) => assert_eq!(Some(&answer["model_id"]), before),
            None => assert_eq!(before, None, "an answer was dropped: {ended:?}"),
        }
        Err(format!("{ended:?}"))
    })
}

/// Removes the one dead letter that a test expects.
async fn drain_dead_letter(fleet: &Fleet, queue: &str, reason: &str) {
    use runtime::Broker;
    let broker = runtime::AmqpBroker::new(fleet.broker.clone());
    let connection = broker.connect("test").await.unwrap();
    let mut dead = connection.consume(&common::topology::dead_queue(queue), 1).await.unwrap();
    let delivery = wait::soon("a dead letter", dead.next()).await.unwrap();
    assert_eq!(delivery.properties.text("x-reason"), Some(reason));
    delivery.settle.ack().await.unwrap();
    connection.close().await;
}
