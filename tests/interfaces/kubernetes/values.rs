//! The table of values in the chart's README is generated from `values.yaml`: each value there has a comment.

use super::{chart, resources};
use serde_json::Value;
use std::{env, fs};

const BEGIN: &str = "<!-- values: generated, see tests/interfaces/kubernetes/values.rs -->\n";
const END: &str = "<!-- end of values -->";
/// Environment variable that makes the test rewrite the table.
const UPDATE: &str = "UPDATE_VALUES";
/// Length from which a default is not repeated.
const DEFAULT_MAX: usize = 60;

/// A documented value.
struct Entry {
    path: Vec<String>,
    description: String,
}

/// The entries of `values.yaml`, and the values without one. A comment that begins with `--` describes the next key.
fn entries(text: &str) -> (Vec<Entry>, Vec<String>) {
    let (mut entries, mut undocumented) = (Vec::<Entry>::new(), Vec::new());
    // The keys around the current line, each with its indentation.
    let mut around: Vec<(usize, String)> = Vec::new();
    let mut comment: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indentation = line.len() - trimmed.len();
        if let Some(described) = trimmed.strip_prefix("# -- ") {
            comment = Some(described.to_owned());
            continue;
        }
        let Some((key, value)) = trimmed.split_once(':').filter(|_| !trimmed.starts_with(['#', '-'])) else { continue };
        around.retain(|(outer, _)| *outer < indentation);
        around.push((indentation, key.to_owned()));
        let path: Vec<String> = around.iter().map(|(_, key)| key.clone()).collect();
        let covered = entries.iter().any(|entry| path.starts_with(&entry.path));
        match comment.take() {
            Some(description) => entries.push(Entry { path, description }),
            None if covered || value.trim().is_empty() => {}
            None => undocumented.push(path.join(".")),
        }
    }
    (entries, undocumented)
}

/// The table, in the order of the file.
fn table(text: &str) -> String {
    let values = &resources(text)[0];
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for Entry { path, description } in entries(text).0 {
        let value = path.iter().fold(values, |value, key| &value[key]);
        let default = match value {
            Value::Object(map) if map.values().any(Value::is_object) => String::new(),
            value => value.to_string(),
        };
        let default = if default.is_empty() || default.len() > DEFAULT_MAX {
            "see `values.yaml`".to_owned()
        } else {
            format!("`{default}`")
        };
        table += &format!("| `{}` | {default} | {} |\n", path.join("."), description.replace('|', "\\|"));
    }
    table
}

fn values() -> String {
    fs::read_to_string(chart().join("values.yaml")).expect("the values")
}

#[test]
fn every_value_has_a_description() {
    let (entries, undocumented) = entries(&values());
    assert!(entries.len() > 100, "{}", entries.len());
    assert!(undocumented.is_empty(), "{undocumented:?}");
}

#[test]
fn the_readme_lists_every_value() {
    let file = chart().join("README.md");
    let readme = fs::read_to_string(&file).expect("the chart's README");
    let (before, rest) = readme.split_once(BEGIN).expect("the table begins");
    let (listed, after) = rest.split_once(END).expect("the table ends");
    let expected = format!("\n{}\n", table(&values()));
    if env::var_os(UPDATE).is_some() {
        fs::write(&file, format!("{before}{BEGIN}{expected}{END}{after}")).expect("the README can be written");
        return;
    }
    assert!(listed == expected, "the table differs from values.yaml: run this test with {UPDATE}=1");
}

#[test]
fn keys_below_a_described_one_need_no_description() {
    let text = "# -- all of it\na:\n  b: 1\nc:\n  # -- a number\n  d: 2\n  e: 3\n";
    let (entries, undocumented) = entries(text);
    let paths: Vec<String> = entries.iter().map(|entry| entry.path.join(".")).collect();
    assert_eq!((paths, undocumented), (vec!["a".to_owned(), "c.d".to_owned()], vec!["c.e".to_owned()]));
    assert!(table(text).contains("| `c.d` | `2` | a number |"));
}
