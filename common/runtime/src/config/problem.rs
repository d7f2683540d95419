//! An invalid value of a setting.

use std::fmt;

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
}
