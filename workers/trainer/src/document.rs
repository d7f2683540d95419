//! Stored documents that the trainer writes beside a model; depends on no other folder.

mod breeds;
mod delayed_labels;
mod json;
mod metrics;
mod verdict;

pub use breeds::{BREEDS_SCHEMA, BreedSummary, Breeds, BreedsHeldOut};
pub use delayed_labels::DelayedLabelMetrics;
pub(crate) use json::{pretty, unreadable_as_missing};
pub use metrics::{Coverage, DataSummary, MetricsFile};
pub use verdict::{BY_HAND_ONLY, CHAMPION_ALREADY, Comparison, Metric, Promotion, Rule, Verdict};
