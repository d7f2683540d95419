//! Checks that `tests/README.md` is true: the tests that it names exist, and each figure names the command that printed it.

use super::{
    house::{sources, test_functions},
    project,
};
use regex::Regex;
use std::fs;

fn readme() -> String {
    fs::read_to_string(project().join("tests/README.md")).expect("the README of the tests")
}

/// The module of a source file, without the name of its crate: `tests/promises/fleet/mod.rs` is `fleet`.
fn module(file: &str) -> Vec<String> {
    let below =
        ["tests/promises/", "tests/interfaces/", "tests/support/"].iter().find_map(|top| file.strip_prefix(top));
    let below = below.or_else(|| file.split_once("/src/").map(|(_, below)| below)).unwrap_or(file);
    let names = below.trim_end_matches(".rs").split('/').filter(|name| !matches!(*name, "mod" | "lib" | "tests"));
    names.map(str::to_owned).collect()
}

/// Every test of the workspace as a path; tests that a macro makes for each broker stand there once.
fn tests() -> Vec<Vec<String>> {
    let all = [sources("tests"), sources("workers"), sources("common")].concat();
    let of_file = |(file, source): &(String, String)| {
        let module = module(file);
        test_functions(source).into_iter().map(move |name| [module.clone(), vec![name]].concat()).collect::<Vec<_>>()
    };
    all.iter().flat_map(of_file).collect()
}

/// Returns whether `name` fits `pattern`, in which `…` stands for any beginning or end and `*` for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('…'), pattern.strip_suffix('…')) {
        _ if pattern == "*" => true,
        (Some(middle), Some(_)) => name.contains(middle.trim_end_matches('…')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(beginning)) => name.starts_with(beginning),
        (None, None) => name == pattern,
    }
}

/// Returns whether a test's path ends with these segments, in which `*` stands for any number of modules.
fn names_test(reference: &[&str], test: &[String]) -> bool {
    match (reference.split_last(), test.split_last()) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some((pattern, rest)), Some((name, module))) => {
            (fits(pattern, name) && names_test(rest, module))
                || (*pattern == "*" && (names_test(rest, test) || names_test(reference, module)))
        }
    }
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let (tests, readme) = (tests(), readme());
    // Paths with at least two segments, shortened names, and names long enough to be a test's.
    let reference =
        Regex::new(r"`(…?[a-z0-9_]+(?:::[a-z0-9_*]+)+…?|…?[a-z0-9_]+…|…[a-z0-9_]+|[a-z0-9]+(?:_[a-z0-9]+){4,})`");
    let mut missing = Vec::new();
    let mut count = 0;
    for found in reference.expect("a pattern").captures_iter(&readme) {
        let segments: Vec<&str> = found[1].split("::").collect();
        count += 1;
        // A path to a module stands for its tests.
        let of_module = [segments.as_slice(), &["*"]].concat();
        if !tests.iter().any(|test| names_test(&segments, test) || names_test(&of_module, test)) {
            missing.push(found[1].to_owned());
        }
    }
    assert!(missing.is_empty(), "tests/README.md names tests that do not exist: {missing:#?}");
    assert!(count > 100, "{count} tests are named");
}

#[test]
fn every_figure_names_the_command_that_printed_it() {
    let readme = readme();
    let command = Regex::new(r"`(tests/[a-z]+|wildrydes |cargo |target/release/)|```sh").expect("a pattern");
    let is_figure = |block: &str| block.starts_with("```text") || block.starts_with("|---");
    for section in readme.split("\n## ").filter(|section| !section.starts_with("Promise, fault, test")) {
        let mut before = String::new();
        for block in section.split("\n\n") {
            let has_figures = block.split('\n').any(is_figure) && block.contains(|c: char| c.is_ascii_digit());
            let is_described = command.is_match(&before) || command.is_match(block);
            assert!(!has_figures || is_described, "no command is named for these figures:\n{block}");
            // A paragraph in bold begins another figure.
            if block.starts_with("**") {
                before.clear();
            }
            before += block;
        }
    }
    for program in Regex::new("`tests/([a-z]+)").expect("a pattern").captures_iter(&readme) {
        assert!(project().join("tests").join(&program[1]).exists(), "tests/{} does not exist", &program[1]);
    }
}

#[test]
fn references_are_matched_by_segment() {
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    let names = |reference: &str, test: &str| names_test(&reference.split("::").collect::<Vec<_>>(), &path(test));
    assert!(names("worker::*::an_output…", "conformance::worker::an_output_waits"));
    assert!(names("worker::*::an_output…", "conformance::worker::on_rabbitmq::an_output_waits"));
    assert!(names("fleet::*", "fleet::models::any") && names("…the_champion…", "a::follows_the_champion_now"));
    assert!(!names("fleet::models::*", "fleet::any") && !names("fleet::any", "fleet::any_other"));
}
