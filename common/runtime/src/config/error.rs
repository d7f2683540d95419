//! Why a configuration cannot be used.

use super::settings::Problem;

/// Prefix of the environment variables.
pub const ENVIRONMENT_PREFIX: &str = "WILDRYDES";
/// Every section there is.
pub const SECTIONS: [&str; 10] =
    ["broker", "store", "run", "log", "splitter", "weather", "merger", "trainer", "scorer", "gateway"];

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
