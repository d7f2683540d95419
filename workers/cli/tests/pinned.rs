//! Pins what the demo computes: a change that moves a byte of its dataset, or a bit of its model, fails here within seconds.
//! No broker is needed.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{fs, path::Path, process::Command};

/// SHA-256 of the demo's dataset file. README.md shows its beginning.
const DATASET_SHA256: &str = "47d44ac1b8e2d069123b05afc83b5468d6764bcd57a8056cd01b6a492780faba";
/// SHA-256 of the dataset's manifest. README.md shows its beginning.
const MANIFEST_SHA256: &str = "5a779231bc63b770e5017e0334f3bb684cc7db8b330c6eb88947d9104646a7be";
/// Id of the demo's model, which is derived from its datasets, settings and coefficients. README.md shows it.
const MODEL_ID: &str = "1ca3b22f458eb845";

/// Runs `wildrydes demo` in `folder` with the default settings and returns its report.
fn demo(folder: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wildrydes"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WILDRYDES__")) {
        command.env_remove(name);
    }
    let output = command.args(["demo", "--json"]).current_dir(folder).output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report in JSON")
}

#[test]
fn the_demo_makes_the_same_dataset_and_model_as_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = demo(folder.path());
    let store = folder.path().join("wildrydes-demo/store-20000-seed-42");
    let sha256 = |path: &str| hex::encode(Sha256::digest(fs::read(store.join(path)).expect("a stored file")));
    let file = report["batches"][0]["manifest"]["files"][0]["path"].as_str().expect("the path of the dataset file");
    let manifest = Path::new(file).with_file_name("manifest.json");
    assert_eq!(sha256(file), DATASET_SHA256);
    assert_eq!(sha256(manifest.to_str().expect("UTF-8")), MANIFEST_SHA256);
    assert_eq!(report["model"]["model_id"], MODEL_ID);
    assert!(store.join(format!("models/service-request/{MODEL_ID}/model.json")).is_file());
}

#[test]
fn the_readme_shows_the_pinned_dataset_and_model() {
    let readme = include_str!("../../../README.md");
    for shown in [&format!("{}…", &DATASET_SHA256[..12]), &format!("{}…", &MANIFEST_SHA256[..12]), MODEL_ID] {
        assert!(readme.contains(shown), "README.md does not show {shown}");
    }
}
