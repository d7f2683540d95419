//! Tests of what `status` and `doctor` report of jobs that failed within one process.

use super::failed;
use pipeline_tests::processes::{Input, json_output, output, succeed, wildrydes};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Rides in a folder, and a store.
fn input() -> (Input, PathBuf) {
    let input = Input::of(12);
    let store = input.folder().join("store");
    (input, store)
}

fn run(input: &Input, store: &Path, rides: &Path) -> Command {
    let mut run = wildrydes();
    run.arg("run").arg(rides).arg("--weather").arg(&input.weather).arg("--store").arg(store);
    run
}

fn status(store: &Path) -> Command {
    let mut status = wildrydes();
    status.arg("status").arg("--store").arg(store);
    status
}

/// A job that failed within `run` leaves no dead letter in a queue: `status` still knows its cause, until the dataset
/// is complete.
#[test]
fn a_batch_that_failed_in_run_is_refused_with_its_cause() {
    let (input, store) = input();
    let other = input.folder().join("other.json");
    fs::write(&other, r#"{"records": [{"statustime": "2018-04-25 17:03:05"}]}"#).unwrap();
    failed(&mut run(&input, &store, &other), 3);
    let files = fs::read_dir(input.weather.join("csv/by_station")).unwrap().map(|file| file.unwrap().path());
    let kept: Vec<(PathBuf, Vec<u8>)> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    for (path, _) in &kept {
        fs::write(path, "<html><body>Service unavailable</body></html>").unwrap();
    }
    let words = failed(&mut run(&input, &store, &input.rides), 3);
    assert!(words.contains("weather_unusable"), "{words}");
    // Both times may be in the same second, so the order may be either.
    let batches = json_output(&mut status(&store))["batches"].clone();
    let of = |batches: &Value, source: bool| {
        batches.as_array().unwrap().iter().find(|batch| batch["source"].is_string() == source).unwrap().clone()
    };
    let (never_split, split) = (of(&batches, false), of(&batches, true));
    assert_eq!((&never_split["state"], &split["state"]), (&"refused".into(), &"refused".into()), "{batches}");
    let why = never_split["why"].as_str().unwrap();
    assert!(why.contains("not_a_batch") && why.contains("--rides-at records"), "{batches}");
    let why = split["why"].as_str().unwrap();
    assert!(why.contains("weather_unusable") && why.contains("USW0"), "{batches}");
    let table = succeed(&mut status(&store));
    assert!(table.contains("newest last") && table.matches(" refused ").count() == 2, "{table}");

    let doctor = output(wildrydes().args(["doctor", "--json", "--store"]).arg(&store).args([
        "--set",
        &format!("weather.source={}", input.weather.display()),
        "--broker",
        "amqp://127.0.0.1:1/%2f",
    ]));
    let findings: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let files =
        findings["findings"].as_array().unwrap().iter().find(|found| found["check"] == "weather files").unwrap();
    assert_eq!(files["verdict"], "broken", "{files}");
    assert!(files["found"].as_str().unwrap().contains("by_station/US") && files["remedy"].is_string(), "{files}");

    for (path, bytes) in kept {
        fs::write(path, bytes).unwrap();
    }
    failed(&mut run(&input, &store, &input.rides), 4);
    let batches = json_output(&mut status(&store))["batches"].clone();
    let states = (of(&batches, false)["state"].clone(), of(&batches, true)["state"].clone());
    assert_eq!(states, ("refused".into(), "ready".into()), "{batches}");
}

/// If all rides of a document are rejected, the report begins with the cause and what to do; a document without rides
/// is reported as such.
#[test]
fn a_report_begins_with_the_cause_if_every_ride_is_rejected() {
    let (input, store) = input();
    let rides = fs::read_to_string(&input.rides).unwrap();
    let renamed = input.folder().join("renamed.json");
    fs::write(&renamed, rides.replace("\"StatusTime\"", "\"status_time\"").replace("\"Latitude\"", "\"lat\"")).unwrap();
    let words = failed(&mut run(&input, &store, &renamed), 3);
    for part in [
        "all 12 rides were rejected",
        "missing_statustime, ",
        "has no statustime",
        "--map statustime=status_time",
        "--map latitude=lat",
        "/rejected/",
    ] {
        assert!(words.contains(part), "{part} is missing\n{words}");
    }
    assert!(!words.contains("too_few_rides") && !words.contains("label"), "{words}");
    let first = words.find("were rejected").unwrap();
    assert!(first < words.find("received").unwrap(), "it comes first\n{words}");
    let mapped =
        run(&input, &store, &renamed).args(["--map", "statustime=status_time", "--map", "latitude=lat"]).output();
    let mapped = String::from_utf8_lossy(&mapped.unwrap().stdout).into_owned();
    assert!(!mapped.contains("were rejected") && mapped.contains("in the dataset"), "{mapped}");

    let none = input.folder().join("none.json");
    fs::write(&none, "[]").unwrap();
    let words = failed(&mut run(&input, &input.folder().join("other"), &none), 3);
    assert!(words.contains("none.json"), "{words}");
    let table = succeed(&mut status(&input.folder().join("other")));
    assert!(!table.contains(" ready ") || table.contains("the batch contains no ride"), "{table}");
}
