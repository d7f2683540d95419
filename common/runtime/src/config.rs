//! Configuration: defaults, then a TOML file, then `WILDRYDES__SECTION__KEY` environment variables, then flags.
//!
//! Every section is a plain struct with a default; it is read once at start, checked, and an error names the key, the
//! value and what would be right.

mod broker;

pub use broker::{AmqpUrl, BrokerSettings, Declare, refuse_visible_password};

use config::{Environment, File, FileFormat};
use records::StoreSettings;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt, path::Path};

/// Prefix of the environment variables.
pub const ENVIRONMENT_PREFIX: &str = "WILDRYDES";
/// Every section there is.
pub const SECTIONS: [&str; 10] =
    ["broker", "store", "run", "log", "splitter", "weather", "merger", "trainer", "scorer", "gateway"];

/// One section of the configuration. A missing section, and a missing key in it, takes its default; an unknown key is an
/// error (`#[serde(default, deny_unknown_fields)]` on the struct).
pub trait Settings: DeserializeOwned + Serialize + Default + Send + 'static {
    /// Name of the section: `[splitter]` in the file, `WILDRYDES__SPLITTER__…` in the environment.
    const SECTION: &'static str;

    /// What the types of the fields alone cannot say.
    ///
    /// # Errors
    /// The key, its value and what would be right.
    fn check(&self) -> Result<(), Problem> {
        Ok(())
    }
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: expected {expected}")]
pub struct Problem {
    /// Key within its section.
    pub key: &'static str,
    /// As given.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

impl Problem {
    /// A problem with `key`.
    pub fn new(key: &'static str, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { key, value: value.to_string(), expected: expected.into() }
    }

    /// A problem unless `value` lies within `range`.
    ///
    /// # Errors
    /// The problem.
    pub fn unless_within<T: PartialOrd + fmt::Display>(
        key: &'static str,
        value: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        Err(Self::new(key, value, format!("{} to {}", range.start(), range.end())))
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that is there, but wrong.
    #[error(
        "configuration: {section}.{problem}. It can be set as {key} = … under [{section}] in the file, as \
         {ENVIRONMENT_PREFIX}__{}__{} in the environment, or with --set {section}.{key}=…",
        .section.to_uppercase(), .key.to_uppercase()
    )]
    Value {
        /// Section.
        section: &'static str,
        /// Key.
        key: &'static str,
        /// What is wrong.
        problem: Problem,
    },
    /// A value of another type, or an unknown key.
    #[error("configuration: in [{section}]: {why}")]
    Shape {
        /// Section.
        section: &'static str,
        /// As the reader says it.
        why: String,
    },
    /// A section nobody reads.
    #[error("configuration: there is no section {section:?}; there are {}", SECTIONS.join(", "))]
    UnknownSection {
        /// As given.
        section: String,
    },
    /// The file cannot be read, or is no TOML.
    #[error("configuration: {0}")]
    Source(String),
}

/// All of the configuration, its layers merged.
#[derive(Debug, Clone)]
pub struct Configuration(config::Config);

impl Configuration {
    /// Merges the layers. `overrides` are `section.key` and value, the strongest layer.
    ///
    /// # Errors
    /// An unreadable file, an unknown section.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let source = |error: config::ConfigError| ConfigError::Source(error.to_string());
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Source(format!("{}: {error}", path.display())))?;
            // Parsed by itself first: an error of the merged configuration shows the line, which may hold a password.
            let parsed = config::Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build();
            if let Err(error) = parsed {
                return Err(ConfigError::Source(format!(
                    "{}: {}",
                    path.display(),
                    without_excerpt(&error.to_string())
                )));
            }
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        let environment =
            Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator("__").separator("__").try_parsing(true);
        builder = builder.add_source(environment);
        for (key, value) in overrides {
            builder = builder.set_override(key, parsed(value)).map_err(source)?;
        }
        let merged = builder.build().map_err(source)?;
        let table = merged.clone().try_deserialize::<std::collections::BTreeMap<String, config::Value>>();
        let unknown = table.map_err(source)?.into_keys().find(|section| !SECTIONS.contains(&section.as_str()));
        match unknown {
            Some(section) => Err(ConfigError::UnknownSection { section }),
            None => Ok(Self(merged)),
        }
    }

    /// Whether a layer sets this key.
    pub fn sets(&self, key: &str) -> bool {
        self.0.get::<config::Value>(key).is_ok()
    }

    /// Reads and checks one section.
    ///
    /// # Errors
    /// [`ConfigError::Value`] and [`ConfigError::Shape`].
    pub fn section<S: Settings>(&self) -> Result<S, ConfigError> {
        let section = S::SECTION;
        let settings = match self.0.get::<config::Value>(section) {
            Ok(table) => {
                let given = table.clone();
                let settings = serde_path_to_error::deserialize::<_, S>(table).map_err(|error| {
                    let key = error.path().to_string();
                    let why = told(section, &error.into_inner().to_string());
                    let why = if key == "." { why } else { format!("{section}.{key}: {why}") };
                    ConfigError::Shape { section, why }
                })?;
                unchanged(section, given, &settings)?;
                settings
            }
            Err(config::ConfigError::NotFound(_)) => S::default(),
            Err(error) => return Err(ConfigError::Shape { section, why: told(section, &error.to_string()) }),
        };
        settings.check().map_err(|problem| ConfigError::Value { section, key: problem.key, problem })?;
        Ok(settings)
    }
}

/// The reader makes whole numbers of fractions (1.5 becomes 1) and of truth values (true becomes 1): refused, since nobody
/// means that.
fn unchanged<S: Settings>(section: &'static str, given: config::Value, read: &S) -> Result<(), ConfigError> {
    let (Ok(given), Ok(serde_json::Value::Object(read))) = (given.into_table(), serde_json::to_value(read)) else {
        return Ok(());
    };
    for (key, value) in given {
        let number = read.get(&key).filter(|read| read.is_u64() || read.is_i64()).and_then(serde_json::Value::as_f64);
        let Some(number) = number else { continue };
        let same = match &value.kind {
            config::ValueKind::Float(given) => *given == number,
            config::ValueKind::String(given) => given.trim().parse::<f64>().is_ok_and(|given| given == number),
            config::ValueKind::Boolean(_) => false,
            _ => true,
        };
        if !same {
            let variable = format!("{ENVIRONMENT_PREFIX}__{}__{}", section.to_uppercase(), key.to_uppercase());
            let why =
                format!("{section}.{key} = {value} ({variable}): expected a whole number, e.g. {}", number.max(1.0));
            return Err(ConfigError::Shape { section, why });
        }
    }
    Ok(())
}

/// A complaint as it may be told: of the broker's section without the text it quotes, which may be an address with its
/// password in the wrong place.
fn told(section: &str, why: &str) -> String {
    if section != BrokerSettings::SECTION {
        return why.to_owned();
    }
    const QUOTES: &str = "string \"";
    let Some((before, rest)) = why.split_once(QUOTES) else { return why.to_owned() };
    let after = rest.rsplit_once('"').map_or("", |(_, after)| after);
    format!("{before}a text{after}")
}

/// A TOML error without the line it quotes: where and why, not what stands there.
fn without_excerpt(error: &str) -> String {
    let quoted = |line: &&str| {
        line.trim_start()
            .split_once('|')
            .is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok() || number.trim().is_empty())
    };
    error.lines().filter(|line| !quoted(line)).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// `--set` gives text: numbers and truth values are read as such.
fn parsed(text: &str) -> config::Value {
    if let Ok(value) = text.parse::<i64>() {
        return value.into();
    }
    if let Ok(value) = text.parse::<f64>() {
        return value.into();
    }
    match text {
        "true" => true.into(),
        "false" => false.into(),
        other => other.into(),
    }
}

impl Settings for StoreSettings {
    const SECTION: &'static str = "store";
}

/// Below RabbitMQ's `consumer_timeout`, with time to publish what came of it.
const HANDLE_TIMEOUT_MS_MAX: u64 = 25 * 60 * 1_000;

/// `[run]`: the loop around a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Messages handled at the same time; each worker has its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// Deliveries held at most; each worker has its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u16>,
    /// How long running handlers may take to finish once a shutdown was asked for.
    pub drain_deadline_ms: u64,
    /// How long one handler may take, 25 minutes at most: RabbitMQ's `consumer_timeout` of 30 minutes ends a consumer that
    /// holds a message for longer, and counts it as one that somebody died on.
    pub handle_timeout_ms: u64,
    /// How long `wildrydes run` and `wildrydes ingest` wait without progress before they name the cause, one hour at most; 0 names
    /// it at once.
    pub patience_ms: u64,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            concurrency: None,
            prefetch: None,
            drain_deadline_ms: 20_000,
            handle_timeout_ms: 20 * 60 * 1_000,
            patience_ms: 10_000,
        }
    }
}

impl Settings for RunSettings {
    const SECTION: &'static str = "run";

    fn check(&self) -> Result<(), Problem> {
        Problem::unless_within("concurrency", self.concurrency.unwrap_or(1), 1..=1_000)?;
        let at_least = self.concurrency.unwrap_or(1);
        Problem::unless_within("prefetch", self.prefetch.unwrap_or(at_least), at_least..=10_000)?;
        Problem::unless_within("drain_deadline_ms", self.drain_deadline_ms, 0..=3_600_000)?;
        Problem::unless_within("handle_timeout_ms", self.handle_timeout_ms, 1_000..=HANDLE_TIMEOUT_MS_MAX)?;
        Problem::unless_within("patience_ms", self.patience_ms, 0..=3_600_000)
    }
}

/// `[log]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// As in `RUST_LOG`, which wins: `info`, `debug`, `common=debug,info`. Libraries log at `info` at most.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Settings for LogSettings {
    const SECTION: &'static str = "log";
}

/// For options like `--set section.key=value`.
///
/// # Errors
/// When there is no `=`, or no section.
pub fn parse_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err(format!("{text:?}: expected section.key=value, as in splitter.chunk_size=500")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(pairs: &[(&str, &str)]) -> Result<Configuration, ConfigError> {
        let overrides: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Configuration::load(None, &overrides)
    }

    #[test]
    fn defaults_hold_and_overrides_win() {
        let configuration = load(&[("broker.confirm_timeout_ms", "500")]).unwrap();
        let broker: BrokerSettings = configuration.section().unwrap();
        assert_eq!((broker.confirm_timeout_ms, broker.connect_timeout_ms), (500, 10_000));
        assert_eq!(configuration.section::<RunSettings>().unwrap().drain_deadline_ms, 20_000);
    }

    #[test]
    fn a_broken_file_is_named_with_the_place_and_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.toml");
        std::fs::write(&path, "[run]\n[broker]\nurl = \"amqp://u:hunter2@h/%2f\n").unwrap();
        let told = Configuration::load(Some(&path), &[]).unwrap_err().to_string();
        assert!(told.contains("broken.toml") && told.contains("line 3") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_file_is_read_below_the_overrides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.toml");
        std::fs::write(&path, "[run]\nconcurrency = 3\nprefetch = 9\n[store]\nurl = \"/tmp/x\"\n").unwrap();
        let overrides = [("run.prefetch".to_owned(), "7".to_owned())];
        let configuration = Configuration::load(Some(&path), &overrides).unwrap();
        let run: RunSettings = configuration.section().unwrap();
        assert_eq!((run.concurrency, run.prefetch), (Some(3), Some(7)));
    }

    #[test]
    fn a_whole_number_is_not_made_of_anything_else() {
        for wrong in ["1.5", "-0.5", "true", "1e-3"] {
            for key in ["run.prefetch", "broker.confirm_timeout_ms"] {
                let configuration = load(&[(key, wrong)]).unwrap();
                let told = match key {
                    "run.prefetch" => configuration.section::<RunSettings>().map(drop),
                    _ => configuration.section::<BrokerSettings>().map(drop),
                };
                let told = told.expect_err(wrong).to_string();
                assert!(told.contains(key) && told.contains("a whole number"), "{wrong}: {told}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.toml");
        std::fs::write(&path, "[run]\nprefetch = 2.5\n").unwrap();
        let told = Configuration::load(Some(&path), &[]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(told.contains("run.prefetch = 2.5") && told.contains("WILDRYDES__RUN__PREFETCH"), "{told}");
        assert_eq!(load(&[("run.prefetch", "9")]).unwrap().section::<RunSettings>().unwrap().prefetch, Some(9));
    }

    #[test]
    fn errors_name_key_value_and_what_would_be_right() {
        let told = load(&[("run.prefetch", "0")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        for part in ["run.prefetch = 0", "1 to 10000", "WILDRYDES__RUN__PREFETCH", "--set run.prefetch"] {
            assert!(told.contains(part), "{told}");
        }
        let told = load(&[("run.prefech", "1")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(told.contains("prefech") && told.contains("prefetch"), "{told}");
        let told = load(&[("runn.prefetch", "1")]).unwrap_err().to_string();
        assert!(told.contains("runn") && told.contains("weather"), "{told}");
        let told = load(&[("run.prefetch", "many")]).unwrap().section::<RunSettings>().unwrap_err().to_string();
        assert!(told.contains("many") && told.contains("prefetch"), "{told}");
        let told = load(&[("broker", "amqp://u:hunter2@h")]).unwrap().section::<BrokerSettings>();
        let told = told.unwrap_err().to_string();
        assert!(told.contains("[broker]") && !told.contains("hunter2"), "{told}");
    }
}
