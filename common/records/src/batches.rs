//! The batches: their claims, their other records, and what became of them.
//!
//! ```text
//! claim     binds a batch id to its bytes, once                 uses records, datasets and the batch log
//! records   reads claim, upload, manifest and progress          uses state, datasets and staging
//! state     derives the state from them and a dead letter       pure
//! ```

mod claim;
mod records;
mod state;

pub use claim::{Raw, claim};
pub use records::{Records, claimed_ids, is_complete, read, read_claim};
pub use state::{Letter, State};
