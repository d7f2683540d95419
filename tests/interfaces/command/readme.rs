//! Tests of the README's commands that need no broker, as copied after a fresh clone.

use super::failed;
use pipeline_tests::processes::{Input, succeed, wildrydes};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const README: &str = include_str!("../../../README.md");
/// The README calls the command through cargo or by its name.
const THROUGH_CARGO: &str = "cargo run --release --";

/// The part that needs no broker.
fn first_use() -> &'static str {
    let (before, _) = README.split_once("\n## The fleet on RabbitMQ").expect("the section on the fleet");
    before
}

/// The blocks of a language, in order.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opened = format!("```{language}\n");
    text.split(opened.as_str()).skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0)).collect()
}

/// The commands, without those that serve until Ctrl-C, that test, or that need a challenger.
fn commands() -> Vec<String> {
    let lines = blocks(first_use(), "sh").into_iter().flat_map(str::lines);
    let is_taken = |line: &&str| {
        let is_ours = line.starts_with(THROUGH_CARGO) || line.starts_with("wildrydes ");
        is_ours && !line.contains("--serve") && !line.contains("challenger")
    };
    lines.filter(is_taken).map(|line| line.replace(THROUGH_CARGO, "wildrydes")).collect()
}

/// A shell in `folder` that finds the command, with the demo's weather instead of NOAA's over the network.
fn shell(folder: &Path, command: &str) -> Command {
    let built = wildrydes();
    let binaries = Path::new(built.get_program()).parent().expect("a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([binaries].into_iter().chain(std::env::split_paths(&path))).expect("a path");
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(folder).env("PATH", path).env("CARGO", "cargo");
    for (name, value) in built.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("WILDRYDES__WEATHER__SOURCE", "wildrydes-demo/input/weather");
    shell
}

/// Rides of the demo under other keys, as the README's examples of mapping have them.
fn rides_of_others(folder: &Path) {
    let demo: PathBuf = folder.join("wildrydes-demo/input/rides-20000-seed-42.json");
    let demo: Value = serde_json::from_slice(&fs::read(demo).expect("the demo's rides")).expect("JSON");
    let rides = &demo["travel_data"].as_array().expect("rides")[..400];
    let trip = |ride: &Value| {
        let mut trip = ride.clone();
        let members = trip.as_object_mut().expect("an object");
        members.remove("ride_id");
        for (field, key) in [("Latitude", "lat"), ("Longitude", "lng"), ("Distance", "km")] {
            if let Some(value) = members.remove(field) {
                members.insert(key.to_owned(), value);
            }
        }
        trip
    };
    let trips: Vec<Value> = rides.iter().map(trip).collect();
    fs::write(folder.join("trips.json"), json!(trips).to_string()).expect("written");
    let nested = json!({ "data": { "items": rides } });
    fs::write(folder.join("answer.json"), nested.to_string()).expect("written");
}

/// The demo prints what the README shows, and each command after it succeeds.
#[test]
fn every_command_of_the_readme_works_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let commands = commands();
    assert!(commands.len() >= 13, "{commands:?}");
    let (demo, others) = commands.split_first().unwrap();
    let printed = succeed(&mut shell(folder.path(), demo));
    let message = blocks(first_use(), "text").into_iter().find(|block| block.starts_with("Rides\n")).expect("the demo");
    for (message, printed) in message.lines().zip(printed.trim().lines()) {
        match message.strip_suffix('…') {
            Some(beginning) => assert!(printed.starts_with(beginning), "{printed} is not {message}"),
            None => assert_eq!(printed, message),
        }
    }
    assert_eq!(message.lines().count(), printed.trim().lines().count());
    let next = message.lines().last().unwrap().replace(THROUGH_CARGO, "wildrydes");
    let scored = succeed(&mut shell(folder.path(), &next));
    let log_odds = scored.lines().filter_map(|line| line.split_whitespace().last()?.parse::<f64>().ok());
    assert!(log_odds.filter(|log_odds| log_odds.abs() >= 0.1).count() >= 3, "it has something to explain\n{scored}");
    rides_of_others(folder.path());
    for command in others {
        succeed(&mut shell(folder.path(), command));
    }
}

/// `score` names the units it read the weather in when none were given, and only then.
#[test]
fn score_names_the_units_that_were_not_given() {
    let folder = tempfile::tempdir().unwrap();
    let score = "wildrydes score --distance 30 --healthpoints 300 --magicpoints 300 --tmin 180 --tmax 270 --prcp 0";
    let words = failed(&mut shell(folder.path(), score), 4);
    assert!(words.contains("18 to 27 °C, 0 mm") && words.contains("--units celsius"), "{words}");
    let words = failed(&mut shell(folder.path(), &format!("{score} --units celsius")), 4);
    assert!(!words.contains("NOAA's tenths"), "{words}");
}

/// Every setting is printed for people and for programs. What is printed for people is a configuration that changes nothing, as it
/// is and with every default uncommented.
#[test]
fn the_reference_of_the_configuration_is_a_configuration() {
    let input = Input::of(12);
    let folder = input.folder();
    let run = |command: &str| succeed(&mut shell(folder, command));
    run("wildrydes config reference > wildrydes.toml && wildrydes --config wildrydes.toml status");
    let reference = fs::read_to_string(folder.join("wildrydes.toml")).unwrap();
    assert!(reference.lines().all(|line| line.is_empty() || line.starts_with(['#', '['])), "{reference}");
    let settings: Value = serde_json::from_str(&run("wildrydes config reference --json")).unwrap();
    let (mut uncommented, mut defaults) = (reference.clone(), 0);
    for setting in settings.as_array().unwrap() {
        let (key, kind, default) = (setting["key"].as_str().unwrap(), &setting["type"], &setting["default"]);
        assert!(kind.is_string() && setting["unit"].is_string() && setting["meaning"].is_string(), "{setting}");
        let is_number = kind == "integer" || kind == "number";
        assert_eq!(setting.get("range").is_some(), is_number, "{setting}");
        // A default with a password is not printed.
        if !default.is_null() && !default.as_str().is_some_and(|text| text.contains('…')) {
            let line = format!("\n#{key} = {default}\n");
            assert!(reference.contains(&line), "{line} is missing\n{reference}");
            uncommented = uncommented.replace(&line, &format!("\n{key} = {default}\n"));
            defaults += 1;
        }
    }
    assert!(defaults >= 50, "{defaults}");
    fs::write(folder.join("uncommented.toml"), uncommented).unwrap();
    let manifests = ["", "--config wildrydes.toml", "--config uncommented.toml"].map(|config| {
        let store = format!("store{}", config.replace("--config ", "-"));
        let mut command =
            shell(folder, &format!("wildrydes {config} run \"$RIDES\" --weather \"$WEATHER\" --store {store}"));
        let words = failed(command.env("RIDES", &input.rides).env("WEATHER", &input.weather), 4);
        let dataset = fs::read_dir(folder.join(&store).join("dataset")).unwrap_or_else(|_| panic!("{words}"));
        let batch = dataset.map(|batch| batch.unwrap().path()).next().unwrap();
        fs::read_to_string(batch.join("manifest.json")).unwrap()
    });
    assert!(manifests[0] == manifests[1] && manifests[0] == manifests[2], "{manifests:?}");
    let settings: Value = serde_json::from_str(&run("wildrydes config reference weather --json")).unwrap();
    let patience =
        settings.as_array().unwrap().iter().find(|setting| setting["key"] == "unusable_patience_ms").unwrap();
    assert_eq!(
        [&patience["section"], &patience["type"], &patience["unit"], &patience["range"]],
        ["weather", "integer", "milliseconds", "0 to 86400000"]
    );
    let words = failed(&mut shell(folder, "wildrydes config reference wether"), 2);
    assert!(words.contains("wether") && words.contains("weather"), "{words}");
}
