//! Datasets become rides to train on: planned, read from the store or the cache, parsed, and matched with earlier scores; depends on no
//! other folder.

mod cache;
pub mod load;
pub mod plan;
pub mod rows;
pub mod scored;
