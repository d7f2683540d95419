//! The documents that the fleet stores as JSON or CSV: one module per document.
//!
//! Depends on `features`, `reading` and `ride`.

mod breeds;
pub mod dataset;
mod delayed_labels;
mod metrics;
pub mod model;
mod rejected_ride;
pub mod served;
mod upload;
mod verdict;
pub mod waiting;
mod weather_warnings;

pub use breeds::{BreedSummary, Breeds, BreedsHeldOut};
pub use delayed_labels::DelayedLabelMetrics;
pub use metrics::{Coverage, DataSummary, MetricsFile};
pub use rejected_ride::RejectedRide;
pub use upload::{IdempotencyRecord, Upload};
pub use verdict::{BY_HAND_ONLY, CHAMPION_ALREADY, Comparison, Metric, Promotion, Rule, Verdict};
pub use weather_warnings::{WARNING_SAMPLES_MAX, WeatherWarning, WeatherWarnings};
