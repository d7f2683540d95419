//! Why a document is no batch, and where.

use common::text::is_invisible;
use std::fmt;

/// Bytes that are shown of what was found at a place.
pub(super) const SNIPPET_BYTES: usize = 24;

/// Why a document is no batch, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}{snippet} at byte {offset} (line {line}, column {column})")]
pub struct Refusal {
    /// Stable: `empty`, `not_a_batch`, `invalid_json`, `cut_short`, `ride_too_large`.
    pub code: &'static str,
    /// What was expected there, or what is wrong and what to do about it.
    pub why: String,
    /// What was found there.
    pub snippet: Snippet,
    /// From the start of the document, decompressed.
    pub offset: u64,
    /// From 1.
    pub line: u64,
    /// In bytes, from 1.
    pub column: u64,
}

/// What stands at the place of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snippet {
    /// Not looked at yet: the bytes there may still have to come.
    Unread,
    /// The first bytes, with unprintable characters replaced.
    Text(String),
    /// Nothing more.
    End,
    /// The reason already says what was found.
    InWords,
}

impl Snippet {
    /// The beginning of `bytes`, up to the end of the line.
    pub(super) fn at(bytes: &[u8]) -> Self {
        let Some(first) = bytes.first() else { return Self::End };
        let line = bytes.split(|byte| *byte == b'\n').next().filter(|line| !line.is_empty());
        let start = line.unwrap_or(std::slice::from_ref(first));
        let start = start.get(..SNIPPET_BYTES).unwrap_or(start);
        // A character may be cut at the end of what is shown.
        let whole = match std::str::from_utf8(start) {
            Err(error) if error.error_len().is_none() => start.get(..error.valid_up_to()).unwrap_or_default(),
            _ => start,
        };
        Self::Text(String::from_utf8_lossy(whole).trim_end().chars().map(printable).collect())
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) if !text.is_empty() => write!(f, ", found `{text}`,"),
            Self::End => f.write_str(", found the end of the document,"),
            Self::Text(_) | Self::Unread | Self::InWords => f.write_str(","),
        }
    }
}

/// A character in place of one that a terminal would not show.
pub(super) fn printable(c: char) -> char {
    if c.is_control() || is_invisible(c) { '\u{FFFD}' } else { c }
}
