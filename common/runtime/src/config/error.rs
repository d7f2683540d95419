//! Errors of the configuration.

use super::problem::Problem;
use common::topology::process;

/// Prefix of the environment variables.
pub const ENVIRONMENT_PREFIX: &str = "WILDRYDES";
/// Names of all sections.
pub const SECTIONS: [&str; 11] = [
    "broker",
    "store",
    "run",
    "log",
    "telemetry",
    process::SPLITTER.section,
    process::WEATHER_FETCHER.section,
    process::MERGER.section,
    process::TRAINER.section,
    process::SCORER.section,
    process::GATEWAY.section,
];

/// Why the configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is out of range or inconsistent.
    #[error(
        "configuration: {section}.{problem}. It can be set as {key} = … under [{section}] in the file, as \
         {ENVIRONMENT_PREFIX}__{}__{} in the environment, or with --set {section}.{key}=…",
        .section.to_uppercase(), .key.to_uppercase()
    )]
    Value {
        /// Name of the section.
        section: &'static str,
        /// Key within the section.
        key: &'static str,
        /// The value and the expected value.
        problem: Problem,
    },
    /// A value has the wrong type, or a key is unknown.
    #[error("configuration: in [{section}]: {why}")]
    Shape {
        /// Name of the section.
        section: &'static str,
        /// The deserialiser's message.
        why: String,
    },
    /// The section is unknown.
    #[error("configuration: there is no section {section:?}; there are {}", SECTIONS.join(", "))]
    UnknownSection {
        /// Name of the section.
        section: String,
    },
    /// The file cannot be read, or is not TOML.
    #[error("configuration: {0}")]
    Source(String),
}
