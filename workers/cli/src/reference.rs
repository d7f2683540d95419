//! `config reference`: every setting there is, with its unit, range and default.

use crate::{Failed, Session, arguments::ConfigCommand};
use common::runtime::config::{
    BrokerSettings, ENVIRONMENT_PREFIX, LogSettings, RunSettings, SECTIONS, Settings, StoreSettings,
};
use gateway::settings::{Entry, REFERENCE as GATEWAY};
use serde::Serialize;
use serde_json::Value;

/// One setting.
#[derive(Debug, Clone, Serialize)]
struct Setting {
    section: &'static str,
    key: &'static str,
    /// Unit of a number, type or form of anything else.
    unit: &'static str,
    /// Least and largest value of a number, where both are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<(u64, u64)>,
    /// `null` where there is none.
    default: Value,
    meaning: &'static str,
}

const fn text(key: &'static str, unit: &'static str, meaning: &'static str) -> Entry {
    Entry { key, unit, range: None, meaning }
}

const fn number(key: &'static str, unit: &'static str, min: u64, max: u64, meaning: &'static str) -> Entry {
    Entry { key, unit, range: Some((min, max)), meaning }
}

const BROKER: &[Entry] = &[
    text("url", "amqp://user@host:5672/vhost", "where RabbitMQ is; amqps:// for TLS, %2f for the vhost /"),
    text("password_file", "path", "a file that holds the password of the user in url; read at every connect"),
    text(
        "ca_file",
        "path",
        "certificates (PEM) of the authorities that may have signed the broker's; without it the public ones",
    ),
    text("client_certificate_file", "path", "own certificate (PEM) with its chain, for a broker that asks for one"),
    text("client_key_file", "path", "its private key (PEM)"),
    text(
        "declare",
        "auto | always | never",
        "whether to declare missing exchanges and queues; auto: where the user may",
    ),
    text(
        "namespace",
        "text",
        "prefix of every exchange and queue, so that fleets can share a vhost; at most 64 of A-Z a-z 0-9 - _ .",
    ),
    number("connect_timeout_ms", "milliseconds", 100, 600_000, "deadline for connecting"),
    number(
        "confirm_timeout_ms",
        "milliseconds",
        100,
        3_600_000,
        "deadline for each answer of the broker, publisher confirms included; paused during an alarm",
    ),
    number(
        "give_up_after_ms",
        "milliseconds",
        0,
        86_400_000,
        "how long a process tries to reach a broker that is down before it ends",
    ),
    text(
        "management_url",
        "http://host:15672",
        "RabbitMQ's management API, for doctor and drain; by default on the broker's host",
    ),
];
const STORE: &[Entry] = &[
    text("url", "path or file:///…", "the object store: a folder that all workers of a fleet share"),
    text(
        "fsync",
        "true | false",
        "whether a write is on the disk before it counts: survives a power failure, at the price of speed",
    ),
];
const RUN: &[Entry] = &[
    number("concurrency", "messages", 1, 1_000, "handled at the same time; each worker has its own default"),
    number("prefetch", "messages", 1, 10_000, "held at most, concurrency or more; each worker has its own default"),
    number(
        "drain_deadline_ms",
        "milliseconds",
        0,
        3_600_000,
        "how long running handlers may take to finish after a shutdown signal",
    ),
    number(
        "handle_timeout_ms",
        "milliseconds",
        1_000,
        1_500_000,
        "how long one handler may take; below RabbitMQ's consumer_timeout",
    ),
    number(
        "patience_ms",
        "milliseconds",
        0,
        3_600_000,
        "how long run and ingest wait without progress before they name the cause",
    ),
];
const LOG: &[Entry] = &[
    text("level", "as in RUST_LOG", "what is logged: info, debug, common=debug,info; RUST_LOG wins"),
    text("format", "auto | human | json", "auto: for people on a terminal, JSON otherwise"),
];
const SPLITTER: &[Entry] = &[
    number("chunk_size", "rides", 1, 10_000, "in one chunk; a batch keeps the size it was first split with"),
    text("decompressed_bytes_max", "bytes, 1 or more", "size a compressed batch may expand to"),
    number(
        "expansion_max",
        "times",
        1,
        1_000_000,
        "how many times its size a compressed batch may expand to, from 16 MiB on",
    ),
    number("read_buffer_bytes", "bytes", 4_096, 8_388_608, "read and parsed at once"),
];
const WEATHER: &[Entry] = &[
    text(
        "source",
        "path or URL",
        "a folder or bucket in the layout of NOAA's (csv/by_station/<ID>.csv), or the NCEI access service",
    ),
    text("stations", "path or URL", "ghcnd-stations.txt, plain or gzip; by default the one in the source"),
    text("max_station_km", "kilometres, above 0", "how far a ride's station may be"),
    number("requests_per_second", "requests", 1, 1_000, "to the service per second; a folder has no limit"),
    number("request_timeout_ms", "milliseconds", 1, 600_000, "the longest silence of the service"),
    text("settled_days", "days", "after its end from which on a year's weather is final and cached in the store"),
    number(
        "unusable_patience_ms",
        "milliseconds",
        0,
        86_400_000,
        "how long a service may answer with texts that are not weather before the message is a dead letter",
    ),
    text("contact", "URL or mail address", "for the operators of the service, sent with the User-Agent"),
];
const MERGER: &[Entry] = &[
    text(
        "part_bytes_max",
        "bytes, 1 or more",
        "size of one dataset file; all mergers of a fleet must agree, the dataset depends on it",
    ),
    number("read_ahead", "chunks", 1, 256, "staged chunks read ahead of the one being joined"),
    number("probes_max", "chunks", 1, 256, "looked for at the same time"),
    text("upload_bytes", "bytes, 1 or more", "of one request of an upload; S3 takes no less than 5 MiB"),
    text(
        "known_bytes_max",
        "bytes",
        "spent on remembering which chunks are staged; with less, the store is asked more often",
    ),
];
const TRAINER: &[Entry] = &[
    text("features", "all | mileage | weather", "which features a model is made of"),
    text(
        "alpha",
        "numbers, rising",
        "L2 penalty on standardised coefficients; of several, cross-validation takes the best",
    ),
    number("folds", "folds", 2, 20, "of the cross-validation"),
    text(
        "threshold",
        "number or criterion",
        "probability from which on the decision is service: a number, accuracy, f1, fbeta, precision_at_recall, recall_at_precision or cost",
    ),
    text("beta", "number above 0", "for fbeta: how many times as much recall counts as precision"),
    text("recall_min", "share", "for precision_at_recall: above 0, at most 1"),
    text("precision_min", "share", "for recall_at_precision: above 0, at most 1"),
    text("cost_false_positive", "number above 0", "for cost: of a service prepared in vain"),
    text("cost_false_negative", "number above 0", "for cost: of a service that was not prepared"),
    text("rides_min", "rides, 10 or more", "fewer labelled rides with weather are refused"),
    text("rides_max", "rides", "more labelled rides with weather are refused; each takes up to 100 bytes of memory"),
    text(
        "breed_rides_min",
        "rides, 10 or more, or 0",
        "to train on, from which on a breed has its own model; 0: none has",
    ),
    text("promotion", "by_rule | always | by_hand", "which new models become champion"),
    text("promotion_metric", "log_loss | brier | roc_auc", "what the rule compares"),
    text(
        "promotion_margin",
        "number, 0 or more",
        "by how much a new model may be worse than the champion on the same held-out rides",
    ),
    text("promotion_rides_min", "rides", "held out, below which models are not compared and the champion stays"),
    number(
        "hold_ms_max",
        "milliseconds",
        100,
        1_140_000,
        "how long a message is held; a longer training goes on without it, and it comes again",
    ),
];
const SCORER: &[Entry] = &[
    text("model", "name", "model family whose champion is served"),
    number("rides_max", "rides", 1, 100_000, "in one request"),
    number("breed_models_max", "models", 1, 1_000_000, "of breeds in memory, beside the global one"),
    number(
        "breed_wait_ms",
        "milliseconds",
        0,
        60_000,
        "how long a request waits for a breed's model that is not in memory; then the global model answers",
    ),
    number(
        "follow_ms",
        "milliseconds",
        10,
        3_600_000,
        "within which a change of champion is followed without an event",
    ),
    text("shadow", "true | false", "whether a challenger scores in shadow: evaluated on live requests, never returned"),
    number(
        "served_write_ms",
        "milliseconds",
        0,
        3_600_000,
        "how long serving statistics are kept before they are written; 0: neither kept nor written",
    ),
    number(
        "scored_rides_max",
        "rides",
        0,
        10_000_000,
        "of a day whose id and probability are written, for delayed labels; 0: none",
    ),
];

/// The entries of a section and its default values, in the order of [`SECTIONS`].
fn sections() -> [(&'static str, &'static [Entry], Value); SECTIONS.len()] {
    fn default<S: Settings>() -> Value {
        serde_json::to_value(S::default()).unwrap_or_default()
    }
    [
        (BrokerSettings::SECTION, BROKER, default::<BrokerSettings>()),
        (StoreSettings::SECTION, STORE, default::<StoreSettings>()),
        (RunSettings::SECTION, RUN, default::<RunSettings>()),
        (LogSettings::SECTION, LOG, default::<LogSettings>()),
        (splitter::Settings::SECTION, SPLITTER, default::<splitter::Settings>()),
        (weather_fetcher::Settings::SECTION, WEATHER, default::<weather_fetcher::Settings>()),
        (merger::Settings::SECTION, MERGER, default::<merger::Settings>()),
        (trainer::settings::Settings::SECTION, TRAINER, default::<trainer::settings::Settings>()),
        (scorer::Settings::SECTION, SCORER, default::<scorer::Settings>()),
        (gateway::settings::Settings::SECTION, &GATEWAY, default::<gateway::settings::Settings>()),
    ]
}

/// Every setting, section by section.
fn settings() -> Vec<Setting> {
    let of = |(section, entries, defaults): (&'static str, &'static [Entry], Value)| {
        entries.iter().map(move |&Entry { key, unit, range, meaning }| {
            let default = defaults[key].clone();
            Setting { section, key, unit, range, default, meaning }
        })
    };
    sections().into_iter().flat_map(of).collect()
}

/// `config`
pub(crate) fn config(session: &Session, command: &ConfigCommand) -> Result<(), Failed> {
    let ConfigCommand::Reference { section } = command;
    if let Some(section) = section
        && !SECTIONS.contains(&section.as_str())
    {
        let why = format!("no section {section:?}: expected one of {}", SECTIONS.join(", "));
        return Err(Failed::Misused(anyhow::anyhow!(why)));
    }
    let mut settings = settings();
    settings.retain(|setting| section.as_ref().is_none_or(|section| section == setting.section));
    if session.shared.json {
        println!("{}", serde_json::to_string_pretty(&settings)?);
    } else {
        print!("{}", as_toml(&settings));
    }
    Ok(())
}

/// A configuration file that says nothing but the defaults.
fn as_toml(settings: &[Setting]) -> String {
    let mut text = format!(
        "# Every setting with its default. Each is also an environment variable, {ENVIRONMENT_PREFIX}__SECTION__KEY, and an\n\
         # option, --set section.key=value, which wins over the variable, which wins over the file (--config FILE).\n"
    );
    let mut section = "";
    for setting in settings {
        if setting.section != section {
            section = setting.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let range = setting.range.map_or(String::new(), |(min, max)| format!(", {min} to {max}"));
        text.push_str(&format!("# {} ({}{range})\n", setting.meaning, setting.unit));
        match &setting.default {
            Value::Null => text.push_str(&format!("# {} = \n", setting.key)),
            // Printed without its password, which a file of defaults must not replace.
            Value::String(hidden) if hidden.contains('…') => {
                text.push_str(&format!("# {} = {hidden:?}\n", setting.key))
            }
            default => text.push_str(&format!("{} = {default}\n", setting.key)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::runtime::config::Configuration;
    use std::collections::BTreeSet;

    /// Every key that a section takes: serde names them when it meets one that it does not know.
    fn keys_of<S: Settings>() -> BTreeSet<String> {
        let stranger = serde_json::from_str::<S>(r#"{"no such key": 0}"#).err().expect("refused").to_string();
        let (_, expected) = stranger.split_once("expected").expect("the known keys");
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_setting_is_listed_and_no_other() {
        let known = [
            keys_of::<BrokerSettings>(),
            keys_of::<StoreSettings>(),
            keys_of::<RunSettings>(),
            keys_of::<LogSettings>(),
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

    fn refused<S: Settings>(key: &str, value: u64) -> bool {
        let mut overrides = vec![(format!("{}.{key}", S::SECTION), value.to_string())];
        overrides.push(("gateway.auth".to_owned(), "off".to_owned()));
        Configuration::load(None, &overrides).and_then(|configuration| configuration.section::<S>()).is_err()
    }

    /// The ranges are those that are checked: just outside is refused, the ends are taken.
    #[test]
    fn every_range_is_the_one_that_is_checked() {
        for Setting { section, key, range, .. } in settings() {
            let Some((min, max)) = range else { continue };
            let refused = |value| match section {
                "broker" => refused::<BrokerSettings>(key, value),
                "run" => refused::<RunSettings>(key, value),
                "splitter" => refused::<splitter::Settings>(key, value),
                "weather" => refused::<weather_fetcher::Settings>(key, value),
                "merger" => refused::<merger::Settings>(key, value),
                "trainer" => refused::<trainer::settings::Settings>(key, value),
                "scorer" => refused::<scorer::Settings>(key, value),
                "gateway" => refused::<gateway::settings::Settings>(key, value),
                other => panic!("no ranges are known of {other}"),
            };
            assert!(!refused(min) && !refused(max), "{section}.{key}: {min} and {max} are refused");
            assert!(refused(max + 1), "{section}.{key}: {} is taken", max + 1);
            assert!(min == 0 || refused(min - 1), "{section}.{key}: {} is taken", min.saturating_sub(1));
        }
    }

    /// What is printed is a configuration file that changes nothing.
    #[test]
    fn the_reference_is_a_configuration_of_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wildrydes.toml");
        std::fs::write(&file, as_toml(&settings())).unwrap();
        let read = Configuration::load(Some(&file), &[]).unwrap();
        assert_eq!(read.section::<splitter::Settings>().unwrap(), splitter::Settings::default());
        assert_eq!(read.section::<weather_fetcher::Settings>().unwrap(), weather_fetcher::Settings::default());
        let run = read.section::<RunSettings>().unwrap();
        assert_eq!(run.patience_ms, RunSettings::default().patience_ms);
    }
}
