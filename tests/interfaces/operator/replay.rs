//! Tests of `wildrydes replay`.

use super::{ends_with, publish};
use common::{
    message::{BatchContent, RideBatch},
    reading::Reading,
    topology::{queue, retry_delays_of, retry_queue},
};
use pipeline_tests::processes::{Fleet, Input, json_output, succeed};
use serde_json::json;

/// A lost dataset is made again from the stored bytes, whether they were uploaded or came inline. Its manifest is the same byte
/// by byte.
#[tokio::test]
async fn a_lost_dataset_is_made_again_byte_by_byte() {
    let input = Input::of(1_500);
    let fleet = Fleet::start(1, &input.weather);
    let uploaded = json_output(fleet.wildrydes().arg("ingest").arg(&input.rides))["batches"][0]["batch_id"].clone();
    let ride = json!({
        "name": "Twilight", "statustime": "2018-04-25 17:03:05", "latitude": 40.7, "longitude": -74.0, "distance": 9,
        "healthpoints": 200, "magicpoints": 200, "fieldservice": 1,
    });
    let content = BatchContent::Inline { rides: vec![ride, json!({ "name": "Nightmare" })] };
    publish(
        &fleet,
        &RideBatch {
            batch_id: Some("inline".to_owned()),
            source: None,
            reading: Reading::default(),
            refresh: None,
            content,
        },
    )
    .await;
    fleet.manifest("inline");
    for batch_id in [uploaded.as_str().unwrap(), "inline"] {
        let manifest = fleet.store().join(format!("dataset/{batch_id}/manifest.json"));
        let before = std::fs::read(&manifest).unwrap();
        let dry = succeed(fleet.wildrydes().args(["replay", batch_id, "--dry-run"]));
        assert!(dry.contains("would publish") && dry.contains("raw/"), "{dry}");
        for folder in ["dataset", "staging"] {
            let folder = fleet.store().join(folder).join(batch_id);
            if folder.exists() {
                std::fs::remove_dir_all(folder).unwrap();
            }
        }
        let again = json_output(fleet.wildrydes().args(["replay", batch_id]));
        assert_eq!(again["batches"][0]["batch_id"], batch_id);
        assert_eq!(std::fs::read(&manifest).unwrap(), before, "{batch_id}");
        // If the dataset exists, a replay changes nothing.
        succeed(fleet.wildrydes().args(["replay", batch_id]));
        assert_eq!(std::fs::read(&manifest).unwrap(), before, "{batch_id}");
    }
    let unknown = ends_with(fleet.wildrydes().args(["replay", "nobody"]), 1);
    assert!(unknown.contains("no such batch"), "{unknown}");
    std::fs::remove_dir_all(fleet.store().join("raw/inline")).unwrap();
    let gone = ends_with(fleet.wildrydes().args(["replay", "inline"]), 1);
    assert!(gone.contains("is missing") && gone.contains("wildrydes ingest"), "{gone}");
    fleet.champion();
    // If a training failed because the dataset was removed, its message waits in a retry queue.
    for retry in 0..retry_delays_of(queue::TRAINER).len() {
        fleet.until_depth(&retry_queue(queue::TRAINER, retry), |messages| messages == 0).await;
    }
    fleet.finish().await;
}
