//! Clients of model servers, and readers of OpenAPI, that others wrote.

use super::{probability, same};
use pipeline_tests::{
    aloud,
    gateway::{Serving, ride},
    processes::{Input, succeed},
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The Python that `tests/openapi prepare` makes; `None`, said aloud, where it has not.
fn python() -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python-http");
    // Written once all is installed.
    if environment.join("requirements").is_file() {
        return Some(environment.join("bin/python3"));
    }
    aloud("not run: the clients that others wrote, which `tests/openapi prepare` installs below target/");
    None
}

/// The HTTP client of the Triton server reads the model's metadata, asks with JSON and with binary tensors, gets the number of
/// `/v1/score`, and reads our errors as its own.
#[tokio::test]
async fn a_client_of_another_model_server_gets_the_same_number() {
    let Some(python) = python() else { return };
    let serving = Serving::start(&Input::of(2_000), &[]).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interfaces/foreign/inference.py");
    let printed = succeed(Command::new(python).arg(script).arg(&serving.api.url));
    let told: Value = serde_json::from_str(&printed).expect("JSON");
    let expected = probability(&serving.api.score(&ride()).await);
    for how in ["json", "binary", "named"] {
        same(told[how].as_f64().expect("a number"), expected, how);
    }
    assert!(told["error"].as_str().unwrap().contains("distance is -1"), "{told}");
    serving.finish().await;
}

/// The OpenAPI document is valid, and what it says is true of every answer to what its schemas bring forth.
#[test]
fn the_openapi_document_is_valid_and_true() {
    if python().is_none() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi");
    let wildrydes = pipeline_tests::processes::wildrydes();
    let printed = succeed(Command::new(script).arg("check").env("WILDRYDES", wildrydes.get_program()));
    aloud(printed.lines().rev().find(|line| line.contains("generated")).unwrap_or("checked").trim().to_owned());
}
