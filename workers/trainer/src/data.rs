//! Datasets become rides to train on: planned, read from the store or the cache, parsed, and matched with earlier scores; depends on no
//! other folder.

mod cache;
mod load;
mod plan;
pub mod rows;
mod scored;

pub use load::{TrainingData, load};
pub use plan::Plan;
pub use scored::{DelayedLabel, ScoredRides};
