//! A client in another language, with nothing of ours but the published schemas.

use pipeline_tests::processes::{Fleet, Input, succeed};
use std::{path::Path, process::Command};

/// Publishes a batch, follows it, and asks for a score, in plain Python with pika.
#[tokio::test]
async fn a_python_script_publishes_a_batch_and_gets_a_score() {
    let has_packages = Command::new("python3").args(["-c", "import pika, jsonschema"]).status();
    assert!(
        has_packages.is_ok_and(|status| status.success()),
        "this test needs python3 with pika and jsonschema: run tests/run, or pip install pika jsonschema"
    );
    let input = Input::of(2_000);
    let fleet = Fleet::start(1, &input.weather);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/client.py");
    let client = |arguments: &[&str]| {
        let mut python = Command::new("python3");
        python.arg(&script).args(["--url", fleet.broker.url.reveal(), "--namespace", &fleet.broker.namespace]);
        python.args(arguments);
        python
    };
    // The topology is there once a worker has declared it.
    succeed(fleet.wildrydes().args(["topology", "apply"]));
    let published = succeed(client(&["publish", "--rides", "500", "--follow"]).arg("--batch-id").arg("from-python"));
    assert!(published.contains("from-python"), "{published}");
    fleet.wait_for("the dataset", |store| store.join("dataset/from-python/manifest.json").is_file());
    fleet.wait_for("the champion", |store| store.join("models/service-request/champion.json").is_file());
    let ride = [
        "score",
        "--distance",
        "30",
        "--healthpoints",
        "295",
        "--magicpoints",
        "301",
        "--tmin",
        "111",
        "--tmax",
        "156",
        "--prcp",
        "0",
        "--timeout",
        "60",
    ];
    let scored = succeed(&mut client(&ride));
    assert!(scored.contains("probability"), "{scored}");
    fleet.finish().await;
}
