//! House rules: what the compiler does not check.

mod graph;
mod paths;
mod settings;
mod sizes;
mod waits;
mod words;

pub(super) use sizes::test_functions;

use self::sizes::{attributes, is_test};
use super::project;
use common::topology::{process, queue};
use std::{
    fs,
    path::{Path, PathBuf},
};
use syn::{
    Attribute, Item, LitStr,
    visit::{self, Visit},
};

/// Every file below `folder`, with its path from the top of the project, except hidden and built files.
fn files(folder: &str) -> Vec<(String, PathBuf)> {
    fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name");
            if name.starts_with('.') || matches!(name, "target" | "__pycache__") {
                continue;
            }
            if path.is_dir() { walk(&path, paths) } else { paths.push(path) }
        }
    }
    let mut paths = Vec::new();
    walk(&project().join(folder), &mut paths);
    paths.sort();
    let relative = |path: &Path| path.strip_prefix(project()).expect("below").to_str().expect("UTF-8").to_owned();
    paths.into_iter().map(|path| (relative(&path), path)).collect()
}

/// Every Rust file below `folder`, as text.
pub(super) fn sources(folder: &str) -> Vec<(String, String)> {
    let rust = files(folder).into_iter().filter(|(name, _)| name.ends_with(".rs"));
    rust.map(|(name, path)| (name, fs::read_to_string(path).expect("text"))).collect()
}

/// The identifiers of a source, each with whether it names a macro, except those in comments and strings.
fn identifiers(source: &str) -> Vec<(&str, bool)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = rest.strip_prefix('r').and_then(raw_text_hashes) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = 2 + hashes;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if first == '"' {
            text_length(rest)
        } else if let Some(literal) = ["'\"'", "'\\\"'", "'\\''"].into_iter().find(|literal| rest.starts_with(literal))
        {
            literal.len()
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            words.push((&rest[..length], rest[length..].starts_with('!')));
            length
        } else {
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    words
}

/// The number of `#` before the quote, if `rest` follows the `r` of a raw string.
fn raw_text_hashes(rest: &str) -> Option<usize> {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// Bytes of the string literal at the start of `rest`, quotes included.
fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn names(source: &str, expected: &[&str]) -> Vec<String> {
    let named = identifiers(source).into_iter().filter(|(name, is_macro)| !is_macro && expected.contains(name));
    named.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn identifiers_are_found_outside_comments_and_texts() {
    let source = r##"use lapin::a; // tokio
        /* rand */ let x = "fs \" env" ; let q = '"'; let r = r#"unsafe " "#; env!("X"); bar"##;
    let words = identifiers(source);
    assert_eq!(
        words,
        ["use", "lapin", "a", "let", "x", "let", "q", "let", "r", "env", "bar"].map(|name| (name, name == "env"))
    );
}

#[test]
fn the_contract_is_pure() {
    let sources = sources("common/src");
    assert!(!sources.is_empty());
    // The generator of the schemas is compiled for tests only.
    for (file, source) in sources.into_iter().filter(|(file, _)| file != "common/src/schema/generate.rs") {
        let impure = names(&source, &["env", "fs", "net", "SystemTime", "Instant", "println"]);
        assert!(impure.is_empty(), "{file} names {impure:?}");
    }
    let manifest = fs::read_to_string(project().join("common/Cargo.toml")).expect("text");
    for impure in ["tokio", "lapin", "rand", "object_store", "reqwest", "tracing", "records", "runtime"] {
        assert!(!manifest.contains(&format!("\n{impure}.")), "common depends on {impure}");
    }
}

#[test]
fn records_know_no_broker_and_draw_no_random_numbers() {
    let manifest = fs::read_to_string(project().join("common/records/Cargo.toml")).expect("text");
    for foreign in ["lapin", "rand", "runtime"] {
        assert!(!manifest.contains(&format!("\n{foreign}.")), "records depends on {foreign}");
    }
}

#[test]
fn only_the_amqp_adapter_names_the_amqp_library() {
    for (file, source) in [sources("common"), sources("workers")].concat() {
        if !file.starts_with("common/runtime/src/amqp") {
            assert!(names(&source, &["lapin"]).is_empty(), "{file} names lapin");
        }
    }
}

/// The string literals of a source, except in its tests, attributes and macros.
#[derive(Default)]
struct Texts(Vec<String>);

impl Visit<'_> for Texts {
    fn visit_item(&mut self, item: &Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_attribute(&mut self, _: &Attribute) {}

    fn visit_lit_str(&mut self, text: &LitStr) {
        self.0.push(text.value());
    }
}

#[test]
fn names_of_processes_and_queues_stand_in_one_table() {
    let names: Vec<&str> = process::ALL.iter().map(|process| process.name).chain(queue::ALL).collect();
    let mut found = 0;
    for (file, source) in [sources("common"), sources("workers")].concat() {
        if file.ends_with("tests.rs") || file.contains("/tests/") {
            continue;
        }
        let mut texts = Texts::default();
        texts.visit_file(&syn::parse_file(&source).expect("Rust"));
        let repeated: Vec<&String> = texts.0.iter().filter(|text| names.contains(&text.as_str())).collect();
        if file == "common/src/fleet/process.rs" {
            found = repeated.len();
        } else {
            assert!(repeated.is_empty(), "{file} repeats {repeated:?}");
        }
    }
    assert!(found > queue::ALL.len(), "{found}");
}

#[test]
fn nothing_is_unsafe() {
    for (file, source) in [sources("common"), sources("workers"), sources("tests")].concat() {
        assert!(names(&source, &["unsafe"]).is_empty(), "{file} is unsafe");
    }
    for manifest in member_manifests() {
        let text = fs::read_to_string(&manifest).expect("text");
        assert!(text.contains("[lints]\nworkspace = true"), "{} does not inherit the lints", manifest.display());
    }
}

fn member_manifests() -> Vec<PathBuf> {
    let below = ["common", "workers", "tests"].into_iter().flat_map(files);
    // Fuzzing is a workspace of its own.
    let members = below.filter(|(name, _)| name.ends_with("Cargo.toml") && !name.starts_with("tests/fuzz/"));
    members.map(|(_, path)| path).collect()
}

#[test]
fn every_dependency_version_stands_once_at_the_top() {
    let manifests = member_manifests();
    assert!(manifests.len() > 2);
    for manifest in manifests {
        let text = fs::read_to_string(&manifest).expect("text");
        let mut in_dependencies = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
                assert!(!line.contains("dependencies."), "{}: {line}: one line a dependency", manifest.display());
            } else if in_dependencies {
                let inherits = line.contains(".workspace = true") || line.contains("workspace = true");
                assert!(inherits && !line.contains("version"), "{}: {line}", manifest.display());
            }
        }
    }
}

#[test]
fn the_top_level_holds_only_what_the_design_names() {
    let allowed =
        ["Cargo.toml", "Cargo.lock", "workers", "common", "schemas", "deploy", "tests", "README.md", "LICENSE"];
    for entry in fs::read_dir(project()).expect("the project") {
        let name = entry.expect("entry").file_name().into_string().expect("UTF-8");
        let expected = allowed.contains(&name.as_str()) || name.starts_with('.') || name == "target";
        assert!(expected, "{name} has no place at the top level");
    }
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let homes = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    let starts_there = |text: &str| {
        homes.iter().any(|home| {
            text.match_indices(home).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '}' | '_' | '-' | '~' | '>'))
            })
        })
    };
    assert!(starts_there(&format!("see `{}x`", homes[0])) && !starts_there(&format!("#/channels{}x", homes[0])));
    let mut pages = vec!["README.md".to_owned(), "Cargo.toml".to_owned()];
    for folder in ["common", "workers", "schemas", "deploy", "tests"] {
        pages.extend(files(folder).into_iter().map(|(name, _)| name));
    }
    for page in pages {
        let text = fs::read_to_string(project().join(&page)).unwrap_or_default();
        assert!(!starts_there(&text), "{page} names a path of one machine");
    }
}
