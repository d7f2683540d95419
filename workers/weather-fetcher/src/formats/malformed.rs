//! The error of a text that is not weather: where the fault is, and what would be right.

use common::text::shorten;
use std::fmt;

/// Maximum length of the explanation, bytes.
const WHY_BYTES_MAX: usize = 400;

/// A fault in a text: where it is, and what is expected there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Malformed {
    /// Line number from 1; 0 for the text as a whole.
    pub line: u64,
    /// Name of the column; empty for the line as a whole.
    pub column: &'static str,
    /// The actual and the expected content.
    pub why: String,
}

impl Malformed {
    /// A fault at `line` and `column`.
    pub fn new(line: u64, column: &'static str, why: impl fmt::Display) -> Self {
        // The message of a parser may quote the whole text.
        Self { line, column, why: shorten(&why.to_string(), WHY_BYTES_MAX).into_owned() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}", self.line)?;
            f.write_str(if self.column.is_empty() { ": " } else { ", " })?;
        }
        if !self.column.is_empty() {
            write!(f, "column {}: ", self.column)?;
        }
        f.write_str(&self.why)
    }
}
