//! Tests with clients in other languages that use only the published schemas.

use pipeline_tests::{
    processes::{Fleet, Input, output, succeed},
    rabbitmq::rabbitmq,
};
use serde_json::Value;
use std::{path::Path, process::Command};

/// Publishes a batch, follows it, and requests a score, in plain Python with pika.
#[tokio::test]
async fn a_python_script_publishes_a_batch_and_gets_a_score() {
    let has_packages = Command::new("python3").args(["-c", "import pika, jsonschema"]).status();
    assert!(
        has_packages.is_ok_and(|status| status.success()),
        "this test needs python3 with pika and jsonschema: run tests/run, or pip install pika jsonschema"
    );
    let input = Input::of(2_000);
    let fleet = Fleet::start(1, &input.weather);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interfaces/foreign/client.py");
    let client = |arguments: &[&str]| {
        let mut python = Command::new("python3");
        python.arg(&script).args(["--url", fleet.broker.url.reveal(), "--namespace", &fleet.broker.namespace]);
        python.args(arguments);
        python
    };
    // The topology exists once a worker has declared it.
    succeed(fleet.wildrydes().args(["topology", "apply"]));
    let published = succeed(client(&["publish", "--rides", "500", "--follow"]).arg("--batch-id").arg("from-python"));
    assert!(published.contains("from-python"), "{published}");
    fleet.wait_for("the dataset", |store| store.join("dataset/from-python/manifest.json").is_file());
    let champion = fleet.champion();
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
    // The answer names its model; the scorer may follow the promotion a moment after the alias is written.
    let scored = fleet.wait_for(&format!("an answer of {champion}"), |_| {
        let ended = output(&mut client(&ride));
        let scored: Value = serde_json::from_slice(&ended.stdout).unwrap_or_default();
        if scored["model_id"] == champion["model_id"] { Ok(scored) } else { Err(format!("{ended:?}")) }
    });
    let probability = scored["scores"][0]["probability"].as_f64().expect("a probability");
    assert!((0.0..=1.0).contains(&probability), "{scored}");
    fleet.finish().await;
}

/// Publishes a file from a shell, over HTTP: its rides become a dataset under the id of its bytes. If no queue takes it, the
/// script says so.
#[tokio::test]
async fn a_shell_script_publishes_a_batch_over_http() {
    let broker = rabbitmq();
    let Some(management) = &broker.management else {
        pipeline_tests::print_uncaptured(format_args!(
            "not run: {} has no management API (and curl is needed to see it)",
            broker.origin
        ));
        return;
    };
    let input = Input::of(500);
    let fleet = Fleet::start(1, &input.weather);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interfaces/foreign/publish.sh");
    let publish = |namespace: &str| {
        let mut shell = Command::new("sh");
        shell.arg(&script).arg(&input.rides).env("MANAGEMENT", management).env("NAMESPACE", namespace);
        shell
    };
    let nowhere = output(&mut publish("no-such-fleet."));
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("not published"), "{nowhere:?}");
    succeed(fleet.wildrydes().args(["topology", "apply"]));
    let published = succeed(&mut publish(&fleet.broker.namespace));
    let expected = input.run(&[]);
    let batch_id = expected["batches"][0]["batch_id"].as_str().unwrap();
    assert!(published.contains(batch_id), "{published}");
    let manifest = fleet.manifest(batch_id);
    assert_eq!(manifest, expected["batches"][0]["manifest"]);
    assert_eq!(fleet.champion()["model_id"], expected["model"]["model_id"]);
    fleet.finish().await;
}
