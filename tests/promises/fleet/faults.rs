//! Tests that killed workers change no byte.

use pipeline_tests::processes::{Fleet, Input, dataset_sha256, json_output};

/// `kill -9` of each worker in the middle of a batch of 200,000 rides, then a restart: the digest of the dataset is that of an
/// undisturbed run, and so is the model.
#[tokio::test]
async fn killing_any_worker_in_the_middle_changes_no_byte() {
    let input = Input::of(200_000);
    let undisturbed = input.run(&[]);
    let mut fleet = Fleet::start(1, &input.weather);
    let submitted = json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides));
    let batch_id = submitted["batch_id"].as_str().unwrap().to_owned();
    let mut disturbed = 0;
    for (name, chunks) in [
        ("splitter", 1),
        ("weather-fetcher", 30),
        ("merger", 60),
        ("splitter", 90),
        ("merger", 120),
        ("weather-fetcher", 150),
    ] {
        fleet.wait_for("progress", |_| fleet.staged_chunks(&batch_id) >= chunks || fleet.is_ready(&batch_id));
        disturbed += u32::from(!fleet.is_ready(&batch_id));
        fleet.kill(name, 0);
        fleet.launch(name, 0);
    }
    assert!(disturbed >= 3, "only {disturbed} kills fell into the batch");
    fleet.kill("trainer", 0);
    fleet.wait_for("the dataset", |_| fleet.is_ready(&batch_id));
    fleet.launch("trainer", 0);
    fleet.kill("scorer", 0);
    fleet.launch("scorer", 0);
    let again = json_output(fleet.wildrydes().arg("ingest").arg(&input.rides));
    assert_eq!(dataset_sha256(&again), dataset_sha256(&undisturbed));
    assert_eq!(again["batches"][0]["manifest"], undisturbed["batches"][0]["manifest"]);
    assert_eq!(fleet.champion()["model_id"], undisturbed["model"]["model_id"]);
    fleet.wait_for("the staging area to be empty", |_| fleet.staged_chunks(&batch_id) == 0);
    fleet.finish().await;
}
