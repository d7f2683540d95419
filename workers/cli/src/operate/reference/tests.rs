use super::*;
use runtime::config::{Configuration, reference::Kind};
use std::collections::BTreeSet;

/// Returns every key that a section accepts: serde lists them in its error about an unknown key.
fn keys_of<S: Settings>() -> BTreeSet<String> {
    let error = serde_json::from_str::<S>(r#"{"no such key": 0}"#).err().expect("refused").to_string();
    let (_, expected) = error.split_once("expected").expect("the known keys");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_setting_is_listed_and_no_other() {
    let known = [
        keys_of::<BrokerSettings>(),
        keys_of::<StoreSettings>(),
        keys_of::<RunSettings>(),
        keys_of::<LogSettings>(),
        keys_of::<TelemetrySettings>(),
        keys_of::<splitter::Settings>(),
        keys_of::<weather_fetcher::Settings>(),
        keys_of::<merger::Settings>(),
        keys_of::<trainer::settings::Settings>(),
        keys_of::<scorer::Settings>(),
        keys_of::<gateway::settings::Settings>(),
    ];
    for ((section, entries, _), (known, name)) in sections().into_iter().zip(known.into_iter().zip(SECTIONS)) {
        assert_eq!(section, name);
        let listed: BTreeSet<String> = entries.iter().map(|entry| entry.key.to_owned()).collect();
        assert_eq!(listed.len(), entries.len(), "{section}: a key twice");
        assert_eq!(listed, known, "{section}");
    }
}

/// A number of bytes or rides beyond every limit.
const LARGE: u64 = 1 << 41;

/// Returns whether a section with this value of one key is refused.
fn refused<S: Settings>(key: &str, value: &str) -> bool {
    let mut overrides = vec![(format!("{}.{key}", S::SECTION), value.to_owned())];
    // Each value is valid by itself; these settings are also checked against another setting.
    overrides.push(("gateway.auth".to_owned(), "off".to_owned()));
    match key {
        "rides_min" => overrides.push(("trainer.rides_max".to_owned(), LARGE.to_string())),
        "rides_max" => overrides.push(("trainer.rides_min".to_owned(), "10".to_owned())),
        _ => {}
    }
    Configuration::load(None, &overrides).and_then(|configuration| configuration.section::<S>()).is_err()
}

fn is_refused(section: &str, key: &str, value: &str) -> bool {
    match section {
        "broker" => refused::<BrokerSettings>(key, value),
        "store" => refused::<StoreSettings>(key, value),
        "run" => refused::<RunSettings>(key, value),
        "log" => refused::<LogSettings>(key, value),
        "telemetry" => refused::<TelemetrySettings>(key, value),
        "splitter" => refused::<splitter::Settings>(key, value),
        "weather" => refused::<weather_fetcher::Settings>(key, value),
        "merger" => refused::<merger::Settings>(key, value),
        "trainer" => refused::<trainer::settings::Settings>(key, value),
        "scorer" => refused::<scorer::Settings>(key, value),
        "gateway" => refused::<gateway::settings::Settings>(key, value),
        other => panic!("no section {other}"),
    }
}

/// Returns the values at the ends of the range, and those just beyond.
fn ends(kind: Kind) -> (Vec<String>, Vec<String>) {
    let below = |min: u64| min.checked_sub(1).map_or("-1".to_owned(), |below| below.to_string());
    match kind {
        Kind::Integer(min, Some(max)) => {
            (vec![min.to_string(), max.to_string()], vec![below(min), (max + 1).to_string(), "1.5".to_owned()])
        }
        Kind::Integer(min, None) => (vec![min.to_string(), LARGE.to_string()], vec![below(min)]),
        Kind::ZeroOrIntegerFrom(min) => {
            (vec!["0".to_owned(), min.to_string(), LARGE.to_string()], vec!["1".to_owned(), below(min)])
        }
        Kind::NumberFrom(min) => (vec![min.to_string()], vec![(min - 1e-6).to_string()]),
        Kind::NumberAbove(above, max) => {
            let valid = [Some(above + 1e-6), max].into_iter().flatten();
            let invalid = [Some(above), max.map(|max| max + 1e-6)].into_iter().flatten();
            (valid.map(|value| value.to_string()).collect(), invalid.map(|value| value.to_string()).collect())
        }
        Kind::Flag => (vec!["true".to_owned(), "false".to_owned()], vec!["perhaps".to_owned()]),
        Kind::Text | Kind::List | Kind::NumberOrText => (Vec::new(), Vec::new()),
    }
}

#[test]
fn ends_of_every_printed_range_are_accepted_and_values_beyond_are_refused() {
    for (section, entries, _) in sections() {
        for Entry { key, kind, .. } in entries {
            let (valid, invalid) = ends(*kind);
            for value in valid {
                assert!(!is_refused(section, key, &value), "{section}.{key}: {value} is refused");
            }
            for value in invalid {
                assert!(is_refused(section, key, &value), "{section}.{key}: {value} is accepted");
            }
        }
    }
}

#[test]
fn defaults_have_the_printed_type_and_only_numbers_have_a_range() {
    for Setting { section, key, kind, range, default, unit, meaning } in settings() {
        let fits = match kind {
            "string" => default.is_string() || default.is_null(),
            "boolean" => default.is_boolean(),
            "integer" => default.is_u64() || default.is_null(),
            "number" => default.is_number(),
            "array" => default.is_array() || default.is_null(),
            "number or string" => default.is_number() || default.is_string(),
            other => panic!("{section}.{key}: {other}"),
        };
        assert!(fits, "{section}.{key}: {default} is not of the type {kind}");
        assert_eq!(range.is_some(), matches!(kind, "integer" | "number"), "{section}.{key}");
        assert!(!unit.is_empty() && !meaning.is_empty(), "{section}.{key}");
    }
}

#[test]
fn lists_and_mixed_settings_are_checked_as_their_unit_states() {
    for (key, value, is_valid) in [
        ("alpha", "0", true),
        ("alpha", "0.1,1", true),
        ("alpha", "1,0.1", false),
        ("alpha", "-0.1", false),
        ("threshold", "0.000001", true),
        ("threshold", "0", false),
        ("threshold", "1", false),
        ("threshold", "cost", true),
        ("threshold", "profit", false),
    ] {
        assert_eq!(!is_refused("trainer", key, value), is_valid, "{key} = {value}");
    }
}

/// The printed file sets nothing. An uncommented line sets its default.
#[test]
fn reference_is_a_configuration_that_changes_nothing() {
    fn same<S: Settings>(read: &Configuration) {
        let section = read.section::<S>().unwrap_or_else(|error| panic!("{}: {error}", S::SECTION));
        assert_eq!(serde_json::to_value(section).unwrap(), default::<S>());
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wildrydes.toml");
    let text = as_toml(&settings());
    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && !line.ends_with('=');
    let is_inert = |line: &str| line.is_empty() || line.starts_with(['#', '[']);
    assert!(text.lines().all(is_inert), "{text}");
    assert!(!text.contains("guest:guest"), "the password is not printed");
    let is_printed = |default: &Value| !default.is_null() && !default.as_str().is_some_and(|text| text.contains('…'));
    let printed = settings().iter().filter(|setting| is_printed(&setting.default)).count();
    assert_eq!(text.lines().filter(is_setting).count(), printed);

    let uncommented: Vec<&str> = text.lines().map(|line| if is_setting(&line) { &line[1..] } else { line }).collect();
    for (is_set, text) in [(false, text.clone()), (true, uncommented.join("\n"))] {
        std::fs::write(&file, text).unwrap();
        let read = Configuration::load(Some(&file), &[]).unwrap();
        for Setting { section, key, default, .. } in settings() {
            let expected = is_set && is_printed(&default);
            assert_eq!(read.sets(&format!("{section}.{key}")), expected, "{section}.{key}");
        }
        same::<BrokerSettings>(&read);
        same::<StoreSettings>(&read);
        same::<RunSettings>(&read);
        same::<LogSettings>(&read);
        same::<TelemetrySettings>(&read);
        same::<splitter::Settings>(&read);
        same::<weather_fetcher::Settings>(&read);
        same::<merger::Settings>(&read);
        same::<trainer::settings::Settings>(&read);
        same::<scorer::Settings>(&read);
        // Without a key, the default authentication accepts nobody, so the gateway would not start.
        let open = [("gateway.auth".to_owned(), "off".to_owned())];
        let read = Configuration::load(Some(&file), &open).unwrap().section::<gateway::settings::Settings>().unwrap();
        let expected = gateway::settings::Settings { auth: read.auth, ..Default::default() };
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::to_value(expected).unwrap());
    }
}
