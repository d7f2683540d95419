//! `ride-chunk.v1`: some of a batch's accepted rides, in the order of the batch.

use super::{Kind, Message, Violation, object, ride_batch::check_batch_id};
use crate::contract::{ride::Ride, topology};
use serde::{Deserialize, Serialize};

/// One piece of a batch. All but the last chunk of a batch hold the same number of rides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RideChunk {
    /// The batch.
    pub batch_id: String,
    /// Position of this chunk in the batch, from 0.
    pub chunk: u32,
    /// Validated rides.
    #[serde(deserialize_with = "object::list")]
    pub rides: Vec<Ride>,
}

impl Message for RideChunk {
    const KIND: Kind = Kind { name: "ride-chunk", major: 1 };
    const EXCHANGE: &'static str = topology::WORK;

    fn message_id(&self) -> String {
        format!("{}/ride-chunk/{}", self.batch_id, self.chunk)
    }

    fn batch_id(&self) -> Option<&str> {
        Some(&self.batch_id)
    }

    fn check(&self) -> Result<(), Violation> {
        check_batch_id("batch_id", &self.batch_id)
    }
}
