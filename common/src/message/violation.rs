//! The report of a field that breaks the contract of its message.

use crate::text::shorten_printable;
use std::fmt;

/// A field that breaks the contract of its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", at(path))]
pub struct Violation {
    /// Path of the field, for example `rides[3].latitude`; empty if the body is not JSON.
    pub path: String,
    /// What was expected, in words.
    pub why: String,
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("at {path}: ") }
}

impl Violation {
    /// Returns a violation at `path`. Shortens both texts and makes them printable, because they may quote input of any length
    /// and content.
    pub fn new(path: impl Into<String>, why: impl fmt::Display) -> Self {
        Self {
            path: shorten_printable(&path.into(), VIOLATION_BYTES_MAX / 3),
            why: shorten_printable(&why.to_string(), VIOLATION_BYTES_MAX),
        }
    }
}

/// Maximum size in bytes of [`Violation::why`]; that of the path is a third of it.
const VIOLATION_BYTES_MAX: usize = 300;
