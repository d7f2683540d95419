//! The cases that lie beside the project, each with the outcome that its README calls right.

use super::{Job, Outcome};
use std::{collections::BTreeSet, fs, path::PathBuf};

/// Cases that the tests of HTTP, RPC and the model cover with inputs of their own.
const COVERED_ELSEWHERE: [&str; 9] = [
    "10-from-a-pipe",                   // command::input
    "14-weather-that-cannot-be",        // inputs::own, scorer and gateway tests
    "15-weather-mended-afterwards",     // command::earlier
    "16-content-encoding-utf-8",        // splitter tests
    "17-gzip-request-body",             // gateway::bodies
    "18-optional-fields-null",          // gateway::bodies
    "19-a-ride-record-to-score",        // gateway::bodies
    "23-null-units-in-a-score-request", // contract::schemas
    "weather",                          // of the other cases
];

/// Folder, file, and what must be true.
type Case = (&'static str, &'static str, fn(&Outcome));

fn all_of(outcome: &Outcome, count: u64) {
    assert_eq!(outcome.rides(), (count, count, 0), "{outcome:?}");
    assert_eq!(outcome.code, 4, "too few rides for a model: {outcome:?}");
    outcome.check_account("a case");
}

fn refused(outcome: &Outcome, code: &str, parts: &[&str]) {
    let why = outcome.refusal();
    assert!(outcome.is_refused() && outcome.code == 3, "{outcome:?}");
    for part in parts.iter().chain([&code]) {
        assert!(why.to_lowercase().contains(&part.to_lowercase()), "{part} is missing: {why}");
    }
}

const CASES: [Case; 25] = [
    ("01-times-that-say-utc", "rides.json", |o| all_of(o, 6)),
    ("02-every-ride-rejected", "keys.json", |o| {
        assert_eq!(o.rides(), (12, 0, 12), "{o:?}");
        assert_eq!(o.code, 3, "{o:?}");
        let finding = &o.json["mostly_rejected"][0];
        assert_eq!(finding["reason"], "missing_statustime", "{o:?}");
        assert!(finding["sample"]["suggestions"].to_string().contains("statustime=status_time"), "{o:?}");
    }),
    ("02-every-ride-rejected", "american.json", |o| {
        assert_eq!(o.rides(), (12, 0, 12), "{o:?}");
        assert!(o.json["mostly_rejected"][0]["sample"]["value"].to_string().contains("/2018"), "{o:?}");
    }),
    ("03-label-true-false", "rides.json", |o| {
        all_of(o, 12);
        assert_eq!(o.count("labelled"), 12);
    }),
    ("04-nan-in-an-array", "rides.json", one_nan),
    ("04-nan-in-an-array", "rides.ndjson", one_nan),
    ("05-several-objects-on-a-line", "pairs.jsonl", |o| all_of(o, 12)),
    ("05-several-objects-on-a-line", "concatenated.jsonl", |o| all_of(o, 12)),
    ("05-several-objects-on-a-line", "first-alone.json", |o| all_of(o, 12)),
    ("06-rides-below-another-key", "data.json", |o| refused(o, "not_a_batch", &["data", "12", "--rides-at data"])),
    ("06-rides-below-another-key", "results.json", |o| refused(o, "not_a_batch", &["--rides-at results"])),
    ("06-rides-below-another-key", "features.json", |o| refused(o, "not_a_batch", &["features[].properties"])),
    ("07-not-json-at-all", "rides.csv", |o| all_of(o, 12)),
    ("07-not-json-at-all", "rides-utf16.json", |o| all_of(o, 12)),
    ("07-not-json-at-all", "rides.zip", |o| refused(o, "unsupported_format", &["zip"])),
    ("08-gzip-with-padding", "padded.json.gz", |o| all_of(o, 12)),
    ("08-gzip-with-padding", "newline.json.gz", |o| all_of(o, 12)),
    ("09-byte-order-mark-within", "joined.json", |o| all_of(o, 12)),
    ("09-byte-order-mark-within", "each.ndjson", |o| all_of(o, 12)),
    ("11-numbers-in-texts", "padded.json", |o| assert_eq!(o.count("rejected"), 0, "{o:?}")),
    ("11-numbers-in-texts", "exponent.json", |o| assert_eq!(o.count("rejected"), 0, "{o:?}")),
    ("12-one-bad-row-of-weather", "rides.json", |o| {
        assert!(o.with_weather() + 1 >= o.count("accepted"), "at most one day is lost: {o:?}");
        let warnings = o.json["weather_warnings"].to_string();
        assert!(warnings.contains("USW00094728.csv") && warnings.contains("\"line\""), "{warnings}");
    }),
    ("13-station-files-compressed", "rides.json", |o| assert_eq!(o.with_weather(), o.count("accepted"), "{o:?}")),
    ("20-perfect-separation", "rides.json.gz", |o| {
        assert!(o.json["model"]["warnings"].to_string().contains("separate"), "{o:?}");
    }),
    ("22-no-station-file-at-all", "rides.json", |o| {
        let warnings = o.json["weather_warnings"].to_string();
        assert!(warnings.contains("USW00094728.csv") && warnings.contains("has a file"), "{warnings}");
    }),
];

fn one_nan(outcome: &Outcome) {
    assert_eq!(outcome.rides(), (12, 11, 1), "{outcome:?}");
    assert_eq!(outcome.rejected_by("invalid_magicpoints"), 1, "{outcome:?}");
    outcome.check_account("one NaN");
}

#[test]
fn every_case_beside_the_project_ends_as_it_should() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    if !folder.exists() {
        pipeline_tests::aloud(format_args!("not run: there are no cases at {}", folder.display()));
        return;
    }
    let mut known: BTreeSet<&str> = COVERED_ELSEWHERE.into();
    for (case, file, check) in CASES {
        known.insert(case);
        let own_weather = folder.join(case).join("weather");
        let weather = if own_weather.exists() { own_weather } else { folder.join("weather") };
        let input = folder.join(case).join(file);
        if input.exists() {
            check(&Job::with_weather(&weather).run_file(&input));
        }
    }
    known.insert("21-which-features-are-collinear");
    let collinear = folder.join("21-which-features-are-collinear/rides.json.gz");
    if collinear.exists() {
        let outcome = Job::with_weather(&folder.join("weather")).run_file(&collinear);
        let warnings = outcome.json["model"]["warnings"].to_string();
        assert!(warnings.contains("others: distance, magicpoints;"), "{warnings}");
    }
    let there = fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry"));
    for entry in there.filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().expect("UTF-8");
        assert!(known.contains(name.as_str()), "no row for the case {name}");
    }
}
