//! Tests of trained models: the same bytes everywhere, the truth within the intervals, no evidence in random labels.

use pipeline_tests::{
    processes::{Fleet, Input, json_output, output, succeed, wildrydes},
    real_data,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every global and breed model, by its path, of any version.
fn artefacts(store: &Path) -> Vec<(String, Vec<u8>)> {
    let mut models = Vec::new();
    for family in fs::read_dir(store.join("models")).unwrap().flatten() {
        for version in fs::read_dir(family.path()).unwrap().flatten() {
            if let Ok(bytes) = fs::read(version.path().join("model.json")) {
                let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
                models.push((format!("{}/{}", name(family.path()), name(version.path())), bytes));
            }
        }
    }
    models.sort();
    models
}

fn id_of(store: &Path) -> String {
    let champion: Value =
        serde_json::from_slice(&fs::read(store.join("models/service-request/champion.json")).unwrap()).unwrap();
    champion["model_id"].as_str().unwrap().to_owned()
}

/// Two batches in either order, in process and on RabbitMQ: the last global model and its breed models have the same ids and
/// the same bytes.
#[tokio::test]
async fn a_model_is_independent_of_the_broker_and_the_order_of_arrival() {
    let input = Input::of(6_000);
    let other = input.folder().join("other.json");
    succeed(wildrydes().args(["generate", "rides", "--rides", "5000", "--seed", "7"]).arg(&other));
    let in_process = |order: [&Path; 2]| {
        let store = tempfile::tempdir().unwrap();
        for file in order {
            let mut run = wildrydes();
            run.arg("run").arg(file).arg("--weather").arg(&input.weather).arg("--store").arg(store.path());
            json_output(run.args(["--set", "trainer.promotion=always"]));
        }
        let last = id_of(store.path());
        let written = artefacts(store.path());
        (last, written)
    };
    let (last, forth) = in_process([&input.rides, &other]);
    let (same, back) = in_process([&other, &input.rides]);
    assert_eq!(last, same);
    let fleet = Fleet::start_with(2, &input.weather, &[("WILDRYDES__TRAINER__PROMOTION", "always")]);
    for file in [&other, &input.rides] {
        json_output(fleet.wildrydes().arg("ingest").arg(file).args(["--until", "model"]));
    }
    assert_eq!(id_of(&fleet.store()), last);
    let on_rabbitmq = artefacts(&fleet.store());
    let of_last = |all: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
        // Breed models name the global model that their coefficients are shrunk towards.
        let is_of_last = |(path, bytes): &&(String, Vec<u8>)| {
            path.ends_with(&last) || serde_json::from_slice::<Value>(bytes).unwrap()["centre"] == last.as_str()
        };
        all.iter().filter(is_of_last).cloned().collect()
    };
    let expected = of_last(&forth);
    assert!(expected.len() > 1, "the made-up rides have breeds with models of their own");
    assert!(of_last(&back) == expected, "another order of arrival gave other bytes");
    assert!(of_last(&on_rabbitmq) == expected, "RabbitMQ gave other bytes");
    fleet.finish().await;
}

/// On real weather, each true coefficient lies within its 95 % interval, and the model's report does not overclaim.
#[test]
fn the_known_truth_is_within_the_stated_intervals() {
    let Some((rides, noaa)) = real_data::find("rides/ride_data.json").zip(real_data::find("noaa")) else { return };
    let store = tempfile::tempdir().unwrap();
    let mut run = wildrydes();
    let report_json =
        json_output(run.arg("run").arg(rides).arg("--weather").arg(noaa).arg("--store").arg(store.path()));
    let truths = [0.75, 0.0, -0.011, -0.004, -0.003, 0.007];
    for (coefficient, truth) in report_json["model"]["coefficients"].as_array().unwrap().iter().zip(truths) {
        let inference = &coefficient["inference"];
        let per_step = (truth * inference["step"].as_f64().unwrap()).exp();
        let odds = &inference["odds_ratio"];
        let [lower, upper] = ["lower", "upper"].map(|end| odds[end].as_f64().unwrap());
        assert!(lower <= per_step && per_step <= upper, "{}: {per_step} is not in {odds}", coefficient["feature"]);
    }
    let evidence = &report_json["model"]["evidence"];
    assert!(evidence["weather"]["p_value"].as_f64().unwrap() < 1e-10);
    assert!(evidence["held_out"]["over_mileage"]["log_loss"]["lower"].as_f64().unwrap() > 0.0);
    let report = store.path().join("models/service-request").join(id_of(store.path())).join("report.html");
    let page = fs::read_to_string(report).unwrap();
    assert!(page.contains("It helps clearly") && !page.contains("no evidence that the features"), "{}", &page[..2_000]);
}

/// With permuted labels the champion stays, and the report and the command say that there is no evidence.
#[test]
fn shuffled_labels_are_no_evidence_and_replace_no_champion() {
    let input = Input::of(12_000);
    let store = tempfile::tempdir().unwrap();
    let run = |rides: &Path| {
        let mut run = wildrydes();
        run.arg("run").arg(rides).arg("--weather").arg(&input.weather).arg("--store").arg(store.path()).arg("--json");
        output(&mut run)
    };
    assert!(run(&input.rides).status.success());
    let champion = id_of(store.path());
    // The labels of another set of rides, in their order.
    let rides: Value = serde_json::from_slice(&fs::read(&input.rides).unwrap()).unwrap();
    let mut rides = rides.get("travel_data").unwrap_or(&rides).as_array().unwrap().clone();
    // Keys may be in any case.
    let label = |ride: &Value| ride.as_object()?.keys().find(|key| key.eq_ignore_ascii_case("fieldservice")).cloned();
    let labels: Vec<Value> = rides.iter().filter_map(|ride| Some(ride[&label(ride)?].clone())).collect();
    for (index, ride) in rides.iter_mut().enumerate() {
        if let Some(key) = label(ride) {
            ride[&key] = labels[(index * 7_919 + 13) % labels.len()].clone();
        }
    }
    let shuffled = input.folder().join("shuffled.json");
    fs::write(&shuffled, serde_json::to_vec(&rides).unwrap()).unwrap();
    // Without the rides whose labels are right.
    for dataset in fs::read_dir(store.path().join("dataset")).unwrap().flatten() {
        fs::remove_dir_all(dataset.path()).unwrap();
    }
    let ended = run(&shuffled);
    let report_json: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report_json["not_promoted"]["reason"], "no_evidence", "{report_json}");
    assert_eq!(id_of(store.path()), champion);
    let model_id = report_json["model"]["model_id"].as_str().unwrap();
    let report = store.path().join("models/service-request").join(model_id).join("report.html");
    let page = fs::read_to_string(report).unwrap().to_lowercase();
    assert!(page.contains("no evidence"), "{}", &page[..2_000]);
}
