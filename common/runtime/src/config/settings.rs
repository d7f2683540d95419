//! The trait of a configuration section.

use super::{problem::Problem, reference::Entry};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

/// A section of the configuration. Missing sections and keys take their defaults; an unknown key is an error
/// (`#[serde(default, deny_unknown_fields)]` on the struct).
pub trait Settings: DeserializeOwned + Serialize + Default + Send + 'static {
    /// Name of the section: `[splitter]` in the file, `WILDRYDES__SPLITTER__…` in the environment.
    const SECTION: &'static str;

    /// Every setting, in the order of the struct.
    const REFERENCE: &'static [Entry];

    /// Checks the rules that neither the types of the fields nor the ranges of the reference express.
    ///
    /// # Errors
    /// As [`Self::check`].
    fn check_rules(&self) -> Result<(), Problem> {
        Ok(())
    }

    /// Checks the ranges of all settings, and the further rules.
    ///
    /// # Errors
    /// Fails with the key, its value and the expected value.
    fn check(&self) -> Result<(), Problem> {
        let values = serde_json::to_value(self).unwrap_or_default();
        Self::REFERENCE.iter().try_for_each(|entry| entry.check(&values))?;
        self.check_rules()
    }
}

/// Reads a list, or a text separated by commas, as in environment variables and `--set`.
///
/// # Errors
/// Fails on another type.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Listed {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Listed::deserialize(deserializer)? {
        Listed::List(list) => list,
        Listed::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    })
}
