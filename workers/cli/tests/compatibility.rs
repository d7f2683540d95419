//! Reads a store as version 0.1.0 of the fleet wrote it: every later version must read what it holds. No broker is needed.
//!
//! `schemas/examples/stores/0.1.0.json.gz` is frozen: do not edit it. It has every object of a small store by its path: claims, batch
//! log, datasets, rejects, a champion and a challenger with breed models, metrics and verdicts, serving statistics, scored rides,
//! delayed labels. The contract tests check each document of it against its schema and its type. A new version of a stored document
//! gets a store of its own beside it.

use async_compression::tokio::bufread::GzipDecoder;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, process::Command};
use tokio::io::AsyncReadExt;

const STORE: &[u8] = include_bytes!("../../../schemas/examples/stores/0.1.0.json.gz");
const CHAMPION: &str = "c75d23e6ae68ef19";
const CHALLENGER: &str = "488d06240ef94e25";

/// Writes the frozen store below `folder`. Returns its objects by path.
async fn unpack(folder: &Path) -> BTreeMap<String, String> {
    let mut text = String::new();
    GzipDecoder::new(STORE).read_to_string(&mut text).await.expect("gzip");
    let objects: BTreeMap<String, String> = serde_json::from_str(&text).expect("objects by path");
    for (path, content) in &objects {
        let path = folder.join("store").join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("an object");
    }
    objects
}

/// Runs `wildrydes … --store store --json` in `folder` and returns what it prints.
fn report(folder: &Path, arguments: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wildrydes"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WILDRYDES__")) {
        command.env_remove(name);
    }
    command.args(arguments.split(' ')).args(["--store", "store", "--json"]).current_dir(folder);
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments}: {error}"))
}

#[tokio::test]
async fn models_of_an_earlier_version_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = unpack(folder.path()).await;
    let list = report(folder.path(), "model list");
    assert_eq!(
        (&list["champion"]["model_id"], &list["challenger"]["model_id"]),
        (&CHAMPION.into(), &CHALLENGER.into())
    );
    assert_eq!((list["versions"].as_array().map(Vec::len), &list["breeds"]), (Some(3), &6.into()), "{list}");
    let model = report(folder.path(), "model show champion");
    let artefact: Value =
        serde_json::from_str(&objects[&format!("models/service-request/{CHAMPION}/model.json")]).expect("JSON");
    for part in
        ["settings", "datasets", "counts", "intercept", "coefficients", "threshold", "evidence", "train", "test"]
    {
        assert_eq!(model[part], artefact[part], "{part}");
    }
    assert_eq!(report(folder.path(), "model diff champion challenger")["to"]["model_id"], CHALLENGER);
}

#[tokio::test]
async fn scores_of_an_earlier_version_are_the_same_and_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    unpack(folder.path()).await;
    let ride = "--distance 30.6 --healthpoints 351 --magicpoints 241 --tmin 68 --tmax 68 --prcp 161";
    let answer = report(folder.path(), &format!("score --breed cloudrunner {ride}"));
    assert_eq!(answer["model_id"], CHAMPION);
    assert_eq!(answer["scores"][0]["probability"], 0.792_780_270_856_178_2, "{answer}");
    // The statistics are of November 2026; the window is the longest that the command accepts, ten years.
    let drift = report(folder.path(), "model drift --days 3650");
    assert_eq!((&drift["model_id"], &drift["rides"], &drift["service"]), (&CHAMPION.into(), &61.into(), &20.into()));
    let breed = report(folder.path(), "model drift --days 3650 --model service-request--cloudrunner");
    assert_eq!((&breed["rides"], &breed["realised"]["rides"]), (&8.into(), &8.into()), "{breed}");
}

#[tokio::test]
async fn batches_of_an_earlier_version_are_listed_and_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    unpack(folder.path()).await;
    let status = report(folder.path(), "status");
    let batches = status["batches"].as_array().expect("batches").iter();
    let batches: Vec<_> = batches.map(|batch| (&batch["batch_id"], &batch["state"], &batch["accepted"])).collect();
    let expected = [("89bc64aec01537b3", 159), ("eb5c8a93a090a2e6", 399)].map(|(id, rides)| (id.into(), rides.into()));
    for ((batch_id, state, accepted), (id, rides)) in batches.iter().zip(&expected) {
        assert_eq!((*batch_id, *state, *accepted), (id, &Value::from("ready"), rides), "{status}");
    }
    assert_eq!(batches.len(), expected.len());
    let export = report(folder.path(), "export --out rides.csv --unique --labelled");
    assert_eq!(export["rides"], 558, "{export}");
}
