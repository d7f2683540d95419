//! Merges the layers of the configuration and reads its sections.

use super::{
    broker::BrokerSettings,
    error::{ConfigError, ENVIRONMENT_PREFIX, SECTIONS},
    settings::Settings,
};
use config::{Environment, File, FileFormat};
use std::path::Path;

/// The configuration with all layers merged.
#[derive(Debug, Clone)]
pub struct Configuration(config::Config);

impl Configuration {
    /// Merges the layers. `overrides` are pairs of `section.key` and value; they take precedence over all other layers.
    ///
    /// # Errors
    /// Fails on an unreadable file and on an unknown section.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let source = |error: config::ConfigError| ConfigError::Source(error.to_string());
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Source(format!("{}: {error}", path.display())))?;
            // Parsed separately first: an error of the merged configuration quotes the line, which may contain a
            // password.
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

    /// Returns whether a layer sets this key.
    pub fn sets(&self, key: &str) -> bool {
        self.0.get::<config::Value>(key).is_ok()
    }

    /// Reads and checks one section.
    ///
    /// # Errors
    /// Fails with [`ConfigError::Value`] or [`ConfigError::Shape`].
    pub fn section<S: Settings>(&self) -> Result<S, ConfigError> {
        let section = S::SECTION;
        let settings = match self.0.get::<config::Value>(section) {
            Ok(table) => {
                let raw = table.clone();
                let settings = serde_path_to_error::deserialize::<_, S>(table).map_err(|error| {
                    let key = error.path().to_string();
                    let why = without_secrets(section, &error.into_inner().to_string());
                    let why = if key == "." { why } else { format!("{section}.{key}: {why}") };
                    ConfigError::Shape { section, why }
                })?;
                refuse_conversions(section, raw, &settings)?;
                settings
            }
            Err(config::ConfigError::NotFound(_)) => S::default(),
            Err(error) => {
                return Err(ConfigError::Shape { section, why: without_secrets(section, &error.to_string()) });
            }
        };
        settings.check().map_err(|problem| ConfigError::Value { section, key: problem.key, problem })?;
        Ok(settings)
    }
}

/// Refuses fractions and truth values for whole numbers. The `config` crate would silently convert 1.5 and true to 1.
fn refuse_conversions<S: Settings>(section: &'static str, raw: config::Value, read: &S) -> Result<(), ConfigError> {
    let (Ok(raw), Ok(serde_json::Value::Object(read))) = (raw.into_table(), serde_json::to_value(read)) else {
        return Ok(());
    };
    for (key, value) in raw {
        let number = read.get(&key).filter(|read| read.is_u64() || read.is_i64()).and_then(serde_json::Value::as_f64);
        let Some(number) = number else { continue };
        let same = match &value.kind {
            config::ValueKind::Float(fraction) => *fraction == number,
            config::ValueKind::String(text) => text.trim().parse::<f64>().is_ok_and(|parsed| parsed == number),
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

/// Returns an error message without quoted text if it concerns the broker's section, where the text may contain a
/// password.
fn without_secrets(section: &str, why: &str) -> String {
    if section != BrokerSettings::SECTION {
        return why.to_owned();
    }
    const QUOTES: &str = "string \"";
    let Some((before, rest)) = why.split_once(QUOTES) else { return why.to_owned() };
    let after = rest.rsplit_once('"').map_or("", |(_, after)| after);
    format!("{before}a text{after}")
}

/// Returns a TOML error without the line that it quotes.
fn without_excerpt(error: &str) -> String {
    let quoted = |line: &&str| {
        line.trim_start()
            .split_once('|')
            .is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok() || number.trim().is_empty())
    };
    error.lines().filter(|line| !quoted(line)).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Parses a value of `--set` as a number or truth value if possible, else as text.
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

/// Parses the argument of `--set section.key=value`.
///
/// # Errors
/// Fails if `=` or the section is missing.
pub fn parse_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err(format!("{text:?}: expected section.key=value, as in splitter.chunk_size=500")),
    }
}
