//! Aliases of model versions, `models/<model>/{champion,challenger}.json`. An alias moves from version to version;
//! versions never change.

use serde::{Deserialize, Serialize};

/// Maximum length of [`Alias::history`]. Each older generation remains in an object of its own.
pub const HISTORY_MAX: usize = 50;

/// The model version that an alias points to, and the versions before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// Name of its schema.
    pub schema: String,
    /// Name of the alias.
    pub alias: AliasName,
    /// Model family, for example `service-request`.
    pub model: String,
    /// Id of the version, 16 hex digits.
    pub model_id: String,
    /// Path of the version's artefact in the object store.
    pub object: String,
    /// SHA-256 of the artefact's bytes, 64 hex digits.
    pub sha256: String,
    /// Who moved the alias: a worker and its version, or a person.
    pub by: String,
    /// When the alias was moved, RFC 3339 in UTC.
    pub at: String,
    /// Why the alias was moved, in words.
    pub why: String,
    /// Number of this generation, from 1; grows by 1 whenever the alias moves.
    pub generation: u64,
    /// Previous versions, oldest first; at most [`HISTORY_MAX`].
    pub history: Vec<Past>,
}

/// Name of an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AliasName {
    /// The version whose scores the scorers return.
    Champion,
    /// A version that is not promoted. Scored in shadow: evaluated on live requests, never returned. Without effect if
    /// it is also the champion.
    Challenger,
}

impl AliasName {
    /// Returns the name as it appears in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Champion => "champion",
            Self::Challenger => "challenger",
        }
    }
}

/// A version that an alias pointed to before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Id of the version, 16 hex digits.
    pub model_id: String,
    /// SHA-256 of the artefact's bytes, 64 hex digits.
    pub sha256: String,
    /// Who moved the alias to it.
    pub by: String,
    /// When the alias was moved to it, RFC 3339 in UTC.
    pub at: String,
    /// Why the alias was moved to it, in words.
    pub why: String,
}

impl Alias {
    /// Returns whether the alias points to the version, or did so according to its history.
    pub fn named(&self, model_id: &str) -> bool {
        self.model_id == model_id || self.history.iter().any(|past| past.model_id == model_id)
    }
}
