//! Serving statistics: counts of what was scored, shadow scoring, and a sample of scored rides, written to the object store.
//!
//! Depends on `score` and `serve`.

pub(crate) mod counts;
mod sample;
