//! `models/<model>/{champion,challenger}.json`: names that move, for versions that do not.

use serde::{Deserialize, Serialize};

/// Name of the alias' schema.
pub const ALIAS_SCHEMA: &str = "model-alias.v1";

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
    /// Versions that had the name before it, oldest first.
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
    /// How many versions had the name up to this one: its place in the line, from 1.
    pub fn generation(&self) -> usize {
        self.history.len() + 1
    }

    /// Whether this stood in the line of `later` before it: what a delayed writer or reader may still see.
    pub fn is_before(&self, later: &Self) -> bool {
        later.history.get(self.history.len()).is_some_and(|past| past.model_id == self.model_id)
    }

    /// Whether the version has the name or ever had it.
    pub fn ever_named(&self, model_id: &str) -> bool {
        self.model_id == model_id || self.history.iter().any(|past| past.model_id == model_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_before_another_only_in_its_own_line() {
        let named = |line: &[&str]| {
            let (model_id, history) = line.split_last().unwrap();
            let past = |id: &&str| Past {
                model_id: (*id).to_owned(),
                sha256: String::new(),
                by: String::new(),
                at: String::new(),
                why: String::new(),
            };
            Alias {
                schema: ALIAS_SCHEMA.to_owned(),
                alias: AliasName::Champion,
                model: "m".to_owned(),
                model_id: (*model_id).to_owned(),
                object: String::new(),
                sha256: String::new(),
                by: String::new(),
                at: String::new(),
                why: String::new(),
                history: history.iter().map(past).collect(),
            }
        };
        let served = named(&["a", "b", "a", "c"]);
        for (line, before) in [
            (&["a"][..], true),
            (&["a", "b"], true),
            (&["a", "b", "a"], true),
            (&["a", "b", "a", "c"], false),
            (&["a", "b", "a", "c", "b"], false),
            (&["x"], false),
        ] {
            assert_eq!(named(line).is_before(&served), before, "{line:?}");
        }
        assert!(served.ever_named("b") && served.ever_named("c") && !served.ever_named("x"));
        assert_eq!(served.generation(), 4);
    }
}
