//! `models/<model>/{champion,challenger}.json`: names that move, for versions that do not.

use serde::{Deserialize, Serialize};

/// Name of the alias' schema.
pub const ALIAS_SCHEMA: &str = "model-alias.v1";

/// Versions an alias remembers beside the one it names. Those before are in the objects of their own that every generation has.
pub const HISTORY_MAX: usize = 50;

/// Which version of a model has a name, since when, by whom and why, and which had it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// [`ALIAS_SCHEMA`].
    pub schema: String,
    /// The name.
    pub alias: AliasName,
    /// Model family.
    pub model: String,
    /// The version.
    pub model_id: String,
    /// Path of its artefact.
    pub object: String,
    /// SHA-256 of the artefact's bytes, 64 hex digits.
    pub sha256: String,
    /// Who gave it the name: a worker and its version, or a person.
    pub by: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// Why, in words.
    pub why: String,
    /// How many versions had the name up to this one: its place in the line, from 1.
    pub generation: u64,
    /// Versions that had the name before it, oldest first; [`HISTORY_MAX`] at most.
    pub history: Vec<Past>,
}

/// A name of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AliasName {
    /// The scorers answer with it.
    Champion,
    /// Was not promoted, or not yet; scorers let it answer the same requests unheard. Stands for nothing when it is the champion.
    Challenger,
}

impl AliasName {
    /// As in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Champion => "champion",
            Self::Challenger => "challenger",
        }
    }
}

/// A version that had a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The version.
    pub model_id: String,
    /// SHA-256 of its artefact.
    pub sha256: String,
    /// Who gave it the name.
    pub by: String,
    /// When.
    pub at: String,
    /// Why.
    pub why: String,
}

impl Alias {
    /// Whether the version has the name or had it, as far as is remembered.
    pub fn named(&self, model_id: &str) -> bool {
        self.model_id == model_id || self.history.iter().any(|past| past.model_id == model_id)
    }
}
