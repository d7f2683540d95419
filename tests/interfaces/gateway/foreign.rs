//! Tests with foreign clients of model servers, and with checkers of OpenAPI documents.

use super::{probability, same};
use pipeline_tests::{
    gateway::{Serving, ride},
    print_uncaptured,
    processes::{Input, succeed},
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The Python that `tests/openapi prepare` installs. Prints a line and returns `None` if it has not been installed.
fn python() -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python-http");
    // Written at the end of the installation.
    if environment.join("requirements").is_file() {
        return Some(environment.join("bin/python3"));
    }
    print_uncaptured("not run: the clients that others wrote, which `tests/openapi prepare` installs below target/");
    None
}

/// The HTTP client of the Triton server reads the model's metadata, requests scores with JSON and with binary tensors, gets the
/// probability of `/v1/score`, and reads our errors as its own.
#[tokio::test]
async fn a_client_of_another_model_server_gets_the_same_probability() {
    let Some(python) = python() else { return };
    let serving = Serving::start(&Input::of(2_000), &[]).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interfaces/foreign/inference.py");
    let printed = succeed(Command::new(python).arg(script).arg(&serving.api.url));
    let text: Value = serde_json::from_str(&printed).expect("JSON");
    let expected = probability(&serving.api.score(&ride()).await);
    for how in ["json", "binary", "named"] {
        same(text[how].as_f64().expect("a number"), expected, how);
    }
    assert!(text["error"].as_str().unwrap().contains("distance is -1"), "{text}");
    serving.finish().await;
}

/// The OpenAPI document is valid, and every answer to a request that its schemas generate agrees with it.
#[test]
fn the_openapi_document_is_valid_and_true() {
    if python().is_none() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi");
    let wildrydes = pipeline_tests::processes::wildrydes();
    let printed = succeed(Command::new(script).arg("check").env("WILDRYDES", wildrydes.get_program()));
    print_uncaptured(
        printed.lines().rev().find(|line| line.contains("generated")).unwrap_or("checked").trim().to_owned(),
    );
}
