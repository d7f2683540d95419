//! Tests of the cases in `../shared/cases`, each with the outcome that its README expects.

use super::{Job, Outcome, served};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Folder, file, and the check of the outcome.
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

const CASES: [Case; 27] = [
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
    ("14-weather-that-cannot-be", "rides.json.gz", |o| {
        assert_eq!((o.with_weather(), o.count("trainable")), (0, 0), "{o:?}");
        assert!(o.json["weather_warnings"][0]["left_out"]["tmin_above_tmax"].as_u64() > Some(0), "{o:?}");
    }),
    ("20-perfect-separation", "rides.json.gz", |o| {
        assert!(o.json["model"]["warnings"].to_string().contains("separate"), "{o:?}");
    }),
    ("21-which-features-are-collinear", "rides.json.gz", |o| {
        let warnings = o.json["model"]["warnings"].to_string();
        assert!(warnings.contains("others: distance, magicpoints;"), "{warnings}");
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

/// Shell scripts that submit the file through each kind of pipe.
pub(super) const PIPES: [&str; 4] = [
    r#"cat "$FILE" | "$PROGRAM" run - "$@""#,
    r#"cat "$FILE" | "$PROGRAM" run /dev/stdin "$@""#,
    r#""$PROGRAM" run <(cat "$FILE") "$@""#,
    r#"mkfifo "$FILE.pipe" && { cat "$FILE" > "$FILE.pipe" & } && "$PROGRAM" run "$FILE.pipe" "$@""#,
];

fn from_a_pipe(folder: &Path, weather: &Path) {
    let job = Job::with_weather(weather);
    let file = job.path("rides.json");
    fs::copy(folder.join("rides.json"), &file).expect("copied");
    for script in PIPES {
        all_of(&job.run_by(script, &file), 12);
    }
}

/// The second run says that its dataset is from the first, and how the weather differs now; the third joins it again.
fn corrected_weather(folder: &Path, weather: &Path) {
    let mut job = Job::with_weather(&folder.join("broken"));
    job.keeps_store = true;
    let first = job.run_file(&folder.join("rides.json.gz"));
    assert_eq!((first.count("received"), first.with_weather()), (160, 0), "{first:?}");
    job.weather = weather.to_owned();
    let second = job.run_file(&folder.join("rides.json.gz"));
    let earlier = &second.json["batches"][0]["earlier"];
    assert_eq!((&earlier["without_weather"], &earlier["revision"]), (&160.into(), &1.into()), "{second:?}");
    assert!(earlier["looked_up_again"]["would_have_weather"].as_u64() > Some(0), "{second:?}");
    let third = job.option("--refresh").run_file(&folder.join("rides.json.gz"));
    let refreshed = &third.json["batches"][0]["earlier"]["refreshed"];
    assert_eq!((&refreshed["revision"], &refreshed["gained"]), (&2.into(), &160.into()), "{third:?}");
    assert_eq!(third.with_weather(), 160, "{third:?}");
}

/// Folder, and the function that runs it, for cases that need more than one file.
type Special = (&'static str, fn(&Path, &Path));

const SPECIAL: [Special; 2] = [("10-from-a-pipe", from_a_pipe), ("15-weather-mended-afterwards", corrected_weather)];

/// The folder of the cases; `None`, with a line on standard error, when it does not exist.
pub(super) fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    if folder.exists() {
        return Some(folder);
    }
    pipeline_tests::print_uncaptured(format_args!("not run: there are no cases at {}", folder.display()));
    None
}

/// Runs every folder, except those of [`served::CASES`], which the test there runs.
#[test]
fn every_shared_case_has_its_expected_outcome() {
    let Some(folder) = folder() else { return };
    let weather = folder.join("weather");
    // Not a case: the weather of the other cases.
    let mut known = BTreeSet::from(["weather"]);
    known.extend(served::CASES);
    for (case, file, check) in CASES {
        known.insert(case);
        let own_weather = folder.join(case).join("weather");
        let weather = if own_weather.exists() { &own_weather } else { &weather };
        let input = folder.join(case).join(file);
        if input.exists() {
            check(&Job::with_weather(weather).run_file(&input));
        }
    }
    for (case, run) in SPECIAL {
        known.insert(case);
        let input = folder.join(case);
        if input.exists() {
            run(&input, &weather);
        }
    }
    let there = fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry"));
    for entry in there.filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().expect("UTF-8");
        assert!(known.contains(name.as_str()), "no row for the case {name}");
    }
}
