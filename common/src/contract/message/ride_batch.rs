//! `ride-batch.v1`: rides as a publisher hands them in.

use super::{Kind, Message, Violation};
use crate::contract::{
    layout,
    reading::{Mapping, Reading, RidesAt},
    topology,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A batch of rides, inline while it is small, else a reference into the object store (claim check).
///
/// This type is what *publishers* write. The splitter reads more than this: see `schemas/README.md` for the raw
/// documents it takes as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct RideBatch {
    /// Chosen by the publisher, else derived from the batch's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// Where it came from, for people: a file name, a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How the rides are to be read, where the default does not fit the document.
    #[serde(flatten)]
    pub reading: Reading,
    /// The rides, or where they are.
    #[serde(flatten)]
    pub content: BatchContent,
}

/// Where the rides of a batch are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BatchContent {
    /// In the message itself.
    Inline {
        /// As they come: validated one by one by the splitter, not here.
        rides: Vec<Value>,
    },
    /// In the object store.
    Reference {
        /// Path in the store, below `raw/`.
        object: String,
        /// SHA-256 of the object's bytes, 64 hex digits.
        sha256: String,
    },
}

#[derive(Deserialize)]
struct Wire {
    batch_id: Option<String>,
    source: Option<String>,
    rides_at: Option<RidesAt>,
    map: Option<Mapping>,
    rides: Option<Vec<Value>>,
    object: Option<String>,
    sha256: Option<String>,
}

impl TryFrom<Wire> for RideBatch {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        let content = match (wire.rides, wire.object, wire.sha256) {
            (Some(rides), None, None) => BatchContent::Inline { rides },
            (None, Some(object), Some(sha256)) => BatchContent::Reference { object, sha256 },
            _ => return Err("expected either rides, or object and sha256"),
        };
        if wire.rides_at.is_some() && matches!(content, BatchContent::Inline { .. }) {
            return Err("expected rides_at beside object alone: inline, the rides are at `rides`");
        }
        let reading = Reading { rides_at: wire.rides_at, map: wire.map.unwrap_or_default() };
        Ok(Self { batch_id: wire.batch_id, source: wire.source, reading, content })
    }
}

impl Message for RideBatch {
    const KIND: Kind = Kind { name: "ride-batch", major: 1 };
    const EXCHANGE: &'static str = topology::INGEST;

    fn message_id(&self) -> String {
        let name = match (&self.batch_id, &self.content) {
            (Some(batch_id), _) => batch_id.clone(),
            (None, BatchContent::Reference { sha256, .. }) => self.reading.batch_id(sha256),
            (None, BatchContent::Inline { rides }) => {
                let bytes = serde_json::to_vec(rides).unwrap_or_default();
                format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes))
            }
        };
        format!("{name}/ride-batch")
    }

    fn batch_id(&self) -> Option<&str> {
        self.batch_id.as_deref()
    }

    fn check(&self) -> Result<(), Violation> {
        if let Some(batch_id) = &self.batch_id {
            check_batch_id("batch_id", batch_id)?;
        }
        if let BatchContent::Reference { object, sha256 } = &self.content {
            check_sha256("sha256", sha256)?;
            check_object("object", object)?;
        }
        Ok(())
    }
}

/// A batch id is part of object names: 1 to 64 of `A-Z a-z 0-9 _ -`.
///
/// # Errors
/// A violation at `path`.
pub fn check_batch_id(path: &str, batch_id: &str) -> Result<(), Violation> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&batch_id.len()) && batch_id.bytes().all(fits) {
        Ok(())
    } else {
        Err(Violation::new(path, "expected 1 to 64 of A-Z a-z 0-9 _ -"))
    }
}

/// A SHA-256 is 64 lower-case hex digits, so that two of them can be compared as texts.
///
/// # Errors
/// A violation at `path`.
pub fn check_sha256(path: &str, sha256: &str) -> Result<(), Violation> {
    check_hex(path, sha256, 64)
}

/// Checks that `text` has exactly `digits` lower-case hex digits.
pub(super) fn check_hex(path: &str, text: &str, digits: usize) -> Result<(), Violation> {
    if text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err(Violation::new(path, format!("expected {digits} lower-case hex digits")))
    }
}

/// Publishers name objects, so a name must not lead out of what is theirs: a plain path below `raw/`.
///
/// # Errors
/// A violation at `path`.
pub fn check_object(path: &str, object: &str) -> Result<(), Violation> {
    check_below(layout::RAW, path, object)
}

/// A path in the object store stays below `prefix`: see [`layout::is_below`].
///
/// # Errors
/// A violation at `path`.
pub fn check_below(prefix: &str, path: &str, object: &str) -> Result<(), Violation> {
    if layout::is_below(prefix, object) {
        return Ok(());
    }
    let why = format!("expected a path below {prefix}/ without empty or dotted parts, \\, % and control characters");
    Err(Violation::new(path, why))
}
