//! `refreshes/<batch_id>/…`: the attempts to join a batch again, and their outcomes.

use crate::message::Refresh;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// One attempt to join a batch again with the weather as of now, `refreshes/<batch_id>/<attempt>.json`. Created once, before
/// the attempt is published. The next attempt begins after this one has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(example = example_of_attempt()))]
pub struct RefreshAttempt {
    /// Name of this schema.
    pub schema: String,
    /// Batch id.
    pub batch_id: String,
    /// Number of the attempt, from 1, and when it was requested.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "RefreshForm"))]
    pub refresh: Refresh,
    /// Number of the newest revision when the attempt began, from 1. The result is compared with it.
    pub base: NonZeroU32,
    /// Who requested the attempt, for people.
    pub by: String,
}

/// The outcome of an attempt, `refreshes/<batch_id>/<attempt>.outcome.json`. Created once, when all chunks of the attempt are
/// joined. If weather changed, the attempt has ended when the manifest of its revision exists; otherwise, when the outcome exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(example = example_of_outcome()))]
pub struct RefreshOutcome {
    /// Name of this schema.
    pub schema: String,
    /// Batch id.
    pub batch_id: String,
    /// Number of the attempt, from 1.
    pub attempt: NonZeroU32,
    /// Number of the revision with the result: one more than the base of the attempt if anything changed, else the base.
    pub revision: NonZeroU32,
    /// Rides without weather in the base, and with weather in the result.
    pub gained: u64,
    /// Rides with other weather in the result than in the base.
    pub altered: u64,
    /// Rides with weather in the base, and without in the result.
    pub lost: u64,
    /// Rides of the result whose weather is still expected.
    pub not_yet_published: u64,
    /// Id of the splitting whose chunks make the result.
    pub split_id: String,
    /// SHA-256 of the rows of the result, 64 hex digits.
    pub rows_sha256: String,
}

impl RefreshOutcome {
    /// Returns whether the weather of any ride changed.
    pub fn is_changed(&self) -> bool {
        self.gained + self.altered + self.lost > 0
    }
}

/// The JSON form of [`Refresh`].
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[allow(dead_code)]
struct RefreshForm {
    /// Number of the attempt among those of its batch, from 1.
    attempt: NonZeroU32,
    /// When the refresh was requested, RFC 3339 in UTC.
    #[schemars(extend("pattern" = ASKED_AT))]
    asked_at: String,
}

#[cfg(test)]
const ASKED_AT: &str =
    "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z$";

#[cfg(test)]
fn example_of_attempt() -> serde_json::Value {
    serde_json::json!({
        "schema": "refresh.v1", "batch_id": "37ff6dae69ee24f1", "attempt": 1, "asked_at": "2026-11-30T06:00:00Z", "base": 1,
        "by": "wildrydes refresh",
    })
}

#[cfg(test)]
fn example_of_outcome() -> serde_json::Value {
    serde_json::json!({
        "schema": "refresh-outcome.v1", "batch_id": "37ff6dae69ee24f1", "attempt": 1, "revision": 2, "gained": 123,
        "altered": 4, "lost": 0, "not_yet_published": 12, "split_id": "r1-37ff6dae69ee24f1-0123456789abcdef",
        "rows_sha256": "47d44ac1b8e2".repeat(5) + "0123",
    })
}
