//! The refusal of a document, with its position.

use common::text::printable;
use std::fmt;

/// Maximum length of the excerpt in a refusal, bytes.
pub(super) const SNIPPET_BYTES: usize = 24;

/// Why a document is not a batch, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}{snippet} at byte {offset} (line {line}, column {column})")]
pub struct Refusal {
    /// Stable code: `empty`, `not_a_batch`, `invalid_json`, `cut_short`, `ride_too_large`.
    pub code: &'static str,
    /// What is expected, or what is wrong and what to do.
    pub why: String,
    /// The content at the position.
    pub snippet: Snippet,
    /// Offset in the decompressed document, bytes.
    pub offset: u64,
    /// Line number from 1.
    pub line: u64,
    /// Column in bytes, from 1.
    pub column: u64,
}

/// The content at the position of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snippet {
    /// Not read yet: its bytes may not have arrived.
    Unread,
    /// The first bytes, with unprintable characters replaced.
    Text(String),
    /// The end of the document.
    End,
    /// The reason already describes the content.
    InWords,
}

impl Snippet {
    /// Returns the beginning of `bytes`, up to the end of the line.
    pub(super) fn at(bytes: &[u8]) -> Self {
        let Some(first) = bytes.first() else { return Self::End };
        let line = bytes.split(|byte| *byte == b'\n').next().filter(|line| !line.is_empty());
        let start = line.unwrap_or(std::slice::from_ref(first));
        let start = start.get(..SNIPPET_BYTES).unwrap_or(start);
        // The last character of the excerpt may be incomplete.
        let whole = match std::str::from_utf8(start) {
            Err(error) if error.error_len().is_none() => start.get(..error.valid_up_to()).unwrap_or_default(),
            _ => start,
        };
        Self::Text(printable(String::from_utf8_lossy(whole).trim_end()))
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
