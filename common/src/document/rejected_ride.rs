//! `rejected/<batch_id>.ndjson`: the rides of a batch that are in no dataset.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A rejected ride, one line of `rejected/<batch_id>.ndjson`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RejectedRide<'a, R> {
    /// Position of the ride in the batch, from 0.
    pub index: u64,
    /// The field that is missing or invalid; absent if the reason concerns the ride as a whole.
    pub field: Option<Cow<'a, str>>,
    /// Stable code of the reason, for example `missing_latitude`.
    pub reason: Cow<'a, str>,
    /// The ride as received, without its line breaks. A text if it is not JSON, or not JSON that every parser can read; of a ride
    /// that is too large, its beginning.
    pub ride: R,
}
