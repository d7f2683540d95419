//! Every setting is explained in a guide.

use super::super::project;
use pipeline_tests::processes::wildrydes;
use serde::Deserialize;
use std::fs;

#[derive(Deserialize)]
struct Setting {
    section: String,
    key: String,
}

/// Whether a text names a key, not as a part of a longer one.
fn names(text: &str, key: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(key)
        .any(|(at, _)| !text[..at].ends_with(is_word) && !text[at + key.len()..].starts_with(is_word))
}

#[test]
fn guides_explain_every_setting() {
    assert!(names("`run.prefetch`", "prefetch") && !names("prefetch_max", "prefetch"));
    let output = wildrydes().args(["config", "reference", "--json"]).output().expect("the command");
    let settings: Vec<Setting> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(settings.len() > 50, "{}", settings.len());
    let guides: String = ["README.md", "deploy/README.md"]
        .map(|guide| fs::read_to_string(project().join(guide)).expect("text"))
        .concat();
    let unexplained: Vec<String> = settings
        .iter()
        .filter(|setting| !names(&guides, &setting.key))
        .map(|setting| format!("{}.{}", setting.section, setting.key))
        .collect();
    assert!(unexplained.is_empty(), "no guide explains {unexplained:?}");
}
