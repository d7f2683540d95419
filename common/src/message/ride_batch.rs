//! `ride-batch.v1`: a batch of rides from a publisher.

use crate::{
    message::{
        check::{check_batch_id, check_object, check_sha256},
        decode::Message,
        object,
        refresh::{self, Refresh},
        violation::Violation,
    },
    reading::{Mapping, Reading, RidesAt},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A batch of rides: inline if it is small, else a reference into the object store (claim check).
///
/// This type is the form that *publishers* write. The splitter also accepts raw documents; see `schemas/README.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct RideBatch {
    /// Batch id; absent: derived from the batch's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// Origin of the batch, for people: a file name, a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How to read the rides, if the default does not fit the document.
    #[serde(flatten)]
    pub reading: Reading,
    /// The attempt to join the batch again; `None` for a batch that is submitted. Beside a reference only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// The rides, or a reference to them.
    #[serde(flatten)]
    pub content: BatchContent,
}

/// The rides of a batch, or a reference to them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BatchContent {
    /// The rides are in the message.
    Inline {
        /// Unvalidated rides; the splitter validates them one by one.
        rides: Vec<Value>,
    },
    /// The rides are in the object store.
    Reference {
        /// Path in the object store, below `raw/`.
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
    #[serde(default, deserialize_with = "object::optional")]
    refresh: Option<Refresh>,
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
        if wire.refresh.is_some() && matches!(content, BatchContent::Inline { .. }) {
            return Err("expected refresh beside object alone: only a stored batch is joined again");
        }
        let reading = Reading { rides_at: wire.rides_at, map: wire.map.unwrap_or_default() };
        Ok(Self { batch_id: wire.batch_id, source: wire.source, reading, refresh: wire.refresh, content })
    }
}

impl Message for RideBatch {
    fn message_id(&self) -> String {
        let name = match (&self.batch_id, &self.content) {
            (Some(batch_id), _) => batch_id.clone(),
            (None, BatchContent::Reference { sha256, .. }) => self.reading.batch_id(sha256),
            (None, BatchContent::Inline { rides }) => {
                let bytes = serde_json::to_vec(rides).unwrap_or_default();
                format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes))
            }
        };
        format!("{}/ride-batch", refresh::prefix(&name, self.refresh))
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
