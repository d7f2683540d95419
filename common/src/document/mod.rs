//! The documents that the fleet stores as JSON or CSV: one module per document.
//!
//! Depends on `features`, `reading` and `ride`.

mod breeds;
pub mod dataset;
mod delayed_labels;
mod metrics;
pub mod model;
pub mod served;
mod upload;
mod verdict;
pub mod waiting;

pub use breeds::{BREEDS_SCHEMA, BreedSummary, Breeds, BreedsHeldOut};
pub use delayed_labels::DelayedLabelMetrics;
pub use metrics::{Coverage, DataSummary, MetricsFile};
pub use upload::{IdempotencyRecord, Upload};
pub use verdict::{BY_HAND_ONLY, CHAMPION_ALREADY, Comparison, Metric, Promotion, Rule, Verdict};
