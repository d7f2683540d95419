//! The documents that the fleet stores as JSON or CSV: one module per document.
//!
//! Depends on `features`, `reading` and `ride`.

pub mod dataset;
pub mod model;
pub mod served;
pub mod waiting;
