//! What a section of the configuration is.

use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

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
