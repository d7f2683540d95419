//! What comes of the training: the same bytes everywhere, the truth within the intervals, no evidence where there is none.

use pipeline_tests::{
    processes::{Fleet, Input, output, succeed, told, wildrydes},
    real_data,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every model, by its path: global, of breeds, whatever the number of versions.
fn artefacts(store: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for family in fs::read_dir(store.join("models")).unwrap().flatten() {
        for version in fs::read_dir(family.path()).unwrap().flatten() {
            if let Ok(bytes) = fs::read(version.path().join("model.json")) {
                let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
                found.push((format!("{}/{}", name(family.path()), name(version.path())), bytes));
            }
        }
    }
    found.sort();
    found
}

fn id_of(store: &Path) -> String {
    let champion: Value =
        serde_json::from_slice(&fs::read(store.join("models/service-request/champion.json")).unwrap()).unwrap();
    champion["model_id"].as_str().unwrap().to_owned()
}

/// Two batches in either order, in process and as processes on RabbitMQ: the last model and those of the breeds beside it have the same
/// ids and the same bytes.
#[tokio::test]
async fn a_model_is_the_same_whatever_the_broker_and_the_order_of_arrival() {
    let input = Input::of(6_000);
    let other = input.folder().join("other.json");
    succeed(wildrydes().args(["generate", "rides", "--rides", "5000", "--seed", "7"]).arg(&other));
    let in_process = |order: [&Path; 2]| {
        let store = tempfile::tempdir().unwrap();
        for file in order {
            let mut run = wildrydes();
            run.arg("run").arg(file).arg("--weather").arg(&input.weather).arg("--store").arg(store.path());
            told(run.args(["--set", "trainer.promotion=always"]));
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
        told(fleet.wildrydes().arg("ingest").arg(file).args(["--until", "model"]));
    }
    assert_eq!(id_of(&fleet.store()), last);
    let on_rabbitmq = artefacts(&fleet.store());
    let of_last = |all: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
        // Those of breeds name the model of all rides as the centre of their penalty.
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

/// On the real weather, each true coefficient lies within its stated 95 % interval; what the model's page says does not overclaim.
#[test]
fn the_known_truth_is_within_the_stated_intervals() {
    let Some((rides, noaa)) = real_data::find("rides/ride_data.json").zip(real_data::find("noaa")) else { return };
    let store = tempfile::tempdir().unwrap();
    let mut run = wildrydes();
    let told = told(run.arg("run").arg(rides).arg("--weather").arg(noaa).arg("--store").arg(store.path()));
    let truths = [0.75, 0.0, -0.011, -0.004, -0.003, 0.007];
    for (coefficient, truth) in told["model"]["coefficients"].as_array().unwrap().iter().zip(truths) {
        let inference = &coefficient["inference"];
        let per_step = (truth * inference["step"].as_f64().unwrap()).exp();
        let odds = &inference["odds_ratio"];
        let [lower, upper] = ["lower", "upper"].map(|end| odds[end].as_f64().unwrap());
        assert!(lower <= per_step && per_step <= upper, "{}: {per_step} is not in {odds}", coefficient["feature"]);
    }
    let evidence = &told["model"]["evidence"];
    assert!(evidence["weather"]["p_value"].as_f64().unwrap() < 1e-10);
    assert!(evidence["held_out"]["over_mileage"]["log_loss"]["lower"].as_f64().unwrap() > 0.0);
    let report = store.path().join("models/service-request").join(id_of(store.path())).join("report.html");
    let page = fs::read_to_string(report).unwrap();
    assert!(page.contains("It helps clearly") && !page.contains("no evidence that the features"), "{}", &page[..2_000]);
}

/// Rides whose labels were dealt out anew: the champion stays, the page says that there is no evidence, and so does the command.
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
    // Keys are in any case.
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
    let said: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(said["not_promoted"]["reason"], "no_evidence", "{said}");
    assert_eq!(id_of(store.path()), champion);
    let model_id = said["model"]["model_id"].as_str().unwrap();
    let report = store.path().join("models/service-request").join(model_id).join("report.html");
    let page = fs::read_to_string(report).unwrap().to_lowercase();
    assert!(page.contains("no evidence"), "{}", &page[..2_000]);
}
