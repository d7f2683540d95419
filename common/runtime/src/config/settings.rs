//! The trait of a configuration section.

use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// A section of the configuration. Missing sections and keys take their defaults; an unknown key is an error
/// (`#[serde(default, deny_unknown_fields)]` on the struct).
pub trait Settings: DeserializeOwned + Serialize + Default + Send + 'static {
    /// Name of the section: `[splitter]` in the file, `WILDRYDES__SPLITTER__…` in the environment.
    const SECTION: &'static str;

    /// Checks the rules that the types of the fields do not express.
    ///
    /// # Errors
    /// Fails with the key, its value and the expected value.
    fn check(&self) -> Result<(), Problem> {
        Ok(())
    }
}

/// An invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: expected {expected}")]
pub struct Problem {
    /// Key within the section.
    pub key: &'static str,
    /// The value as configured.
    pub value: String,
    /// The expected value, in words.
    pub expected: String,
}

impl Problem {
    /// Returns a problem with `key`.
    pub fn new(key: &'static str, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { key, value: value.to_string(), expected: expected.into() }
    }

    /// Checks that `value` is within `range`.
    ///
    /// # Errors
    /// Fails with a problem that names the range.
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
