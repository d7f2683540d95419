//! A field that breaks the contract of its message.

use crate::text::shorten;
use std::fmt;

/// A field that breaks the contract of its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", at(path))]
pub struct Violation {
    /// As in `rides[3].latitude`; empty where there are no fields, because it is no JSON.
    pub path: String,
    /// In words.
    pub why: String,
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("at {path}: ") }
}

impl Violation {
    /// A violation at `path`. Both may quote what came, which may be of any length and hold anything: of either only so
    /// much is kept as a person reads.
    pub fn new(path: impl Into<String>, why: impl fmt::Display) -> Self {
        let legible = |text: &str, bytes_max| shorten(text, bytes_max).replace(char::is_control, "\u{FFFD}");
        Self {
            path: legible(&path.into(), VIOLATION_BYTES_MAX / 3),
            why: legible(&why.to_string(), VIOLATION_BYTES_MAX),
        }
    }
}

/// Bytes kept of [`Violation::why`], and of its path a third of that.
const VIOLATION_BYTES_MAX: usize = 300;
