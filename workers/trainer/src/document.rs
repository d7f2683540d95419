//! Stored documents that the trainer writes beside a model; depends on no other folder.

pub mod breeds;
pub mod delayed_labels;
pub mod json;
pub mod metrics;
pub mod verdict;
