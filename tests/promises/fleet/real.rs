//! Tests on real input, if it is present beside the project.

use super::coefficient;
use pipeline_tests::{
    processes::{Fleet, json_output, output, wildrydes},
    real_data,
};
use serde_json::Value;
use std::{path::Path, process::Command};

/// The folder of real input, if all of it is present.
fn input() -> Option<[std::path::PathBuf; 3]> {
    Some([real_data::find("rides")?, real_data::find("noaa")?, real_data::find("noaa/ghcnd-stations.txt.gz")?])
}

fn run(rides: &Path, noaa: &Path, stations: &Path, store: &Path) -> Command {
    let mut run = wildrydes();
    run.arg("run").arg(rides).arg("--weather").arg(noaa).arg("--stations").arg(stations).arg("--store").arg(store);
    run
}

fn within(value: f64, expected: f64, relative: f64) -> bool {
    (value - expected).abs() <= relative * expected.abs()
}

/// 20,000 labelled rides: every count, the first joined ride, and the coefficients and metrics that an independent tool
/// computed.
#[tokio::test]
async fn the_labelled_rides_give_the_known_counts_coefficients_and_metrics() {
    let Some([rides, noaa, stations]) = input() else { return };
    let file = rides.join("ride_data.json");
    let store = tempfile::tempdir().unwrap();
    // With the penalty and the threshold of the reference.
    let as_there = ["--set", "trainer.alpha=1", "--set", "trainer.threshold=0.5"];
    let first = json_output(run(&file, &noaa, &stations, store.path()).args(as_there));
    let batch = &first["batches"][0];
    assert_eq!(batch["batch_id"], "450c7f9391a7a29b");
    let manifest = &batch["manifest"];
    let counts = ["received", "accepted", "rejected", "trainable"].map(|name| manifest[name].as_u64().unwrap());
    assert_eq!(counts, [20_000, 19_961, 39, 19_946]);
    let reasons = serde_json::json!({
        "invalid_statustime": 8, "invalid_fieldservice": 7, "negative_distance": 6, "latitude_out_of_range": 5,
        "longitude_out_of_range": 3, "invalid_longitude": 3, "missing_statustime": 3, "invalid_latitude": 2,
        "missing_latitude": 1, "missing_longitude": 1,
    });
    assert_eq!(manifest["rejected_by_reason"], reasons);
    let without: u64 = manifest["without_weather"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(without, 15);
    let rejected = std::fs::read_to_string(store.path().join("rejected/450c7f9391a7a29b.ndjson")).unwrap();
    assert_eq!(rejected.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(), 39);
    let mut dataset = csv::Reader::from_path(store.path().join("dataset/450c7f9391a7a29b/part-00000.csv")).unwrap();
    let header = dataset.headers().unwrap().clone();
    let ride = dataset.records().next().unwrap().unwrap();
    let field = |name: &str| &ride[header.iter().position(|column| column == name).unwrap()];
    let joined = [
        "ride_id",
        "name",
        "statustime",
        "latitude",
        "longitude",
        "groundstation",
        "station_km",
        "tmin",
        "tmax",
        "prcp",
    ];
    let expected = [
        "450c7f9391a7a29b-0",
        "Twilight",
        "2018-04-25 17:03:05.722",
        "40.626722",
        "-74.110954",
        "USW00094728",
        "20.715330",
        "111",
        "156",
        "241",
    ];
    assert_eq!(joined.map(field), expected);

    // Reference of scikit-learn, standardised, C = 1; and the truth with its standard errors.
    for (feature, found_elsewhere, truth, standard_error) in [
        ("distance", 0.747306, 0.75, 0.0312),
        ("healthpoints", 0.000157, 0.0, 0.00043),
        ("magicpoints", -0.010924, -0.011, 0.00031),
        ("tmin", -0.003365, -0.004, 0.00066),
        ("tmax", -0.003534, -0.003, 0.00062),
        ("prcp", 0.006951, 0.007, 0.00022),
    ] {
        let value = coefficient(&first, feature);
        // The reference is printed with six decimals.
        let rounding = 0.5e-6;
        assert!((value - found_elsewhere).abs() <= 1e-4 * found_elsewhere.abs() + rounding, "{feature}: {value}");
        assert!((value - truth).abs() < 3.0 * standard_error, "{feature}: {value}, the truth is {truth}");
    }
    let model = &first["model"];
    assert!(within(model["intercept"].as_f64().unwrap(), -19.158749, 1e-4), "{}", model["intercept"]);
    let counts = &model["counts"];
    let trained = ["train", "train_service", "test", "test_service"].map(|name| counts[name].as_u64().unwrap());
    assert_eq!(trained, [17_946, 6_927, 2_000, 753]);
    let test = &model["test"];
    for (metric, expected) in [("roc_auc", 0.76215), ("log_loss", 0.55736), ("brier", 0.18744), ("accuracy", 0.7145)] {
        assert!((test[metric].as_f64().unwrap() - expected).abs() < 1e-4, "{metric}: {}", test[metric]);
    }
    let confusion = serde_json::json!({ "true_negative": 1048, "false_positive": 199, "false_negative": 372, "true_positive": 381 });
    assert_eq!(test["confusion"], confusion);

    // The same again, with one ride per message, and through RabbitMQ with two processes of each worker.
    let fingerprint = &batch["manifest_sha256"];
    assert_eq!(
        json_output(&mut run(&file, &noaa, &stations, store.path()))["batches"][0]["manifest_sha256"],
        *fingerprint
    );
    let other = tempfile::tempdir().unwrap();
    let one_by_one = json_output(run(&file, &noaa, &stations, other.path()).args(["--chunk-size", "1"]));
    assert_eq!(one_by_one["batches"][0]["manifest_sha256"], *fingerprint);
    let fleet = Fleet::start_with(2, &noaa, &[("WILDRYDES__WEATHER__STATIONS", stations.to_str().unwrap())]);
    let on_rabbitmq = json_output(fleet.wildrydes().arg("ingest").arg(&file));
    assert_eq!(on_rabbitmq["batches"][0]["manifest_sha256"], *fingerprint);
    fleet.wait_for("the champion", |store| store.join("models/service-request/champion.json").is_file());
    fleet.finish().await;
}

/// The workshop's own files, unchanged: all rides are received, and the array and the concatenated file hold the same ones.
#[test]
fn the_workshops_files_are_ingested_as_they_are() {
    let Some([rides, noaa, stations]) = input() else { return };
    let ingest = |name: &str| {
        let store = tempfile::tempdir().unwrap();
        // Without a label there is nothing to train on: exit code 4.
        let ended = output(run(&rides.join(name), &noaa, &stations, store.path()).arg("--json"));
        assert_eq!(ended.status.code(), Some(4), "{}", String::from_utf8_lossy(&ended.stderr));
        let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let batch = &report["batches"][0];
        let id = batch["batch_id"].as_str().unwrap();
        let dataset = std::fs::read_to_string(store.path().join(format!("dataset/{id}/part-00000.csv"))).unwrap();
        let manifest = &batch["manifest"];
        let stations = manifest["stations"].as_object().unwrap();
        let with_weather: u64 = stations.values().map(|rides| rides.as_u64().unwrap()).sum();
        (manifest["received"].as_u64().unwrap(), with_weather, dataset.replace(id, "batch"))
    };
    let (received, with_weather, _) = ingest("workshop-v1-travel-data.json");
    assert_eq!((received, with_weather), (10_417, 620));
    let (received, with_weather, array) = ingest("workshop-v2-array.json");
    assert_eq!((received, with_weather), (7_755, 3_299));
    let (received, with_weather, concatenated) = ingest("workshop-v2-concatenated.json");
    assert_eq!((received, with_weather), (7_755, 3_299));
    assert_eq!(array, concatenated);
}
