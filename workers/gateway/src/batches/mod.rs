//! Batches: takes uploads in, begins refreshes, and derives the state of a batch from the object store and the dead letters.
//!
//! Depends on `http`, `link` and `app`.

pub(crate) mod dead_letters;
pub(crate) mod refreshes;
pub(crate) mod state;
pub(crate) mod uploads;
