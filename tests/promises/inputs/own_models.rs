//! Tests of what the summary of a run says about its model.

use super::{Job, Outcome, STATION, STATION_HEADING, write};
use pipeline_tests::processes::{output, wildrydes};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Rides of each model.
const RIDES: u64 = 160;

/// Rides whose numbers are independent of each other, changed by `change`.
fn rides(change: impl Fn(u64, &mut Value)) -> String {
    let ride = |n: u64| {
        let spread = |factor: u64, limit: u64| ((n * factor) % limit) as f64;
        let mut ride = json!({
            "statustime": format!("2018-04-{:02} {:02}:00:00", 1 + (n * 7) % 30, n % 24), "latitude": 40.75, "longitude": -73.95,
            "distance": 20.0 + spread(13, 31) / 2.0, "healthpoints": 250.0 + spread(29, 83), "magicpoints": 260.0 + spread(47, 71),
            "fieldservice": (n * 31) % 7 % 2,
        });
        change(n, &mut ride);
        ride.to_string()
    };
    (0..RIDES).map(ride).collect::<Vec<_>>().join("\n")
}

/// Weather of April 2018 in which no element follows from another.
fn weather() -> String {
    let mut text = STATION_HEADING.to_owned();
    for day in 1..=30 {
        for (element, value) in [("TMIN", 50 + day * 7 % 31), ("TMAX", 150 + day * 17 % 37), ("PRCP", 3 * (day % 4))] {
            writeln!(text, "{STATION},201804{day:02},{element},{value},,,W,").expect("a text");
        }
    }
    text
}

/// The outcome of a run, and the summary that a person reads of the same run.
fn run(rides: &str) -> (Outcome, String) {
    let job = Job::new();
    write(&job.station_file(), weather());
    let outcome = job.run("rides.ndjson", rides);
    let mut summary = wildrydes();
    summary.arg("run").arg(job.path("rides.ndjson")).arg("--weather").arg(&job.weather);
    let ended = output(summary.arg("--store").arg(job.path("another")));
    (outcome, String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// The summary has every warning of the model, and no absurd odds ratios.
fn check_summary(outcome: &Outcome, summary: &str) {
    let warnings = outcome.json["model"]["warnings"].as_array().unwrap_or_else(|| panic!("no model: {outcome:?}"));
    for warning in warnings {
        let why = warning["why"].as_str().expect("words");
        assert!(summary.contains(&format!("Caution: {why}.")), "{why} is missing:\n{summary}");
    }
    for odds in
        summary.lines().filter_map(|line| line.split("× ").nth(1)?.split_whitespace().next()?.parse::<f64>().ok())
    {
        assert!((0.001..=1000.0).contains(&odds), "{odds}:\n{summary}");
    }
}

#[test]
fn features_that_separate_the_rides_are_named_in_the_summary() {
    for (feature, limit) in [("distance", 27.4), ("healthpoints", 291.0)] {
        let rides = rides(|_, ride| {
            ride["fieldservice"] = json!(ride[feature].as_f64() > Some(limit));
        });
        let (outcome, summary) = run(&rides);
        check_summary(&outcome, &summary);
        assert!(summary.contains("separate rides with a service request from those without"), "{feature}:\n{summary}");
    }
}

#[test]
fn exactly_the_features_that_are_combinations_of_each_other_are_named() {
    let number = |ride: &Value, name: &str| ride[name].as_f64().expect("a number");
    let healthpoints = rides(|_, ride| ride["healthpoints"] = json!(3.0 * number(ride, "distance") + 7.0));
    let all_three = rides(|_, ride| {
        ride["magicpoints"] = json!(number(ride, "distance") - 2.0 * number(ride, "healthpoints"));
    });
    for (rides, names) in
        [(healthpoints, "others: distance, healthpoints;"), (all_three, "others: distance, healthpoints, magicpoints;")]
    {
        let (outcome, summary) = run(&rides);
        check_summary(&outcome, &summary);
        assert!(summary.contains(names), "{names} is missing:\n{summary}");
    }
    let (outcome, summary) = run(&rides(|_, _| {}));
    check_summary(&outcome, &summary);
    assert!(!summary.contains("combination of the others"), "{summary}");
}
