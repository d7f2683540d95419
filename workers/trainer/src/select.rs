//! Penalty and threshold are chosen among the rides to train on; pure, depends on [`data::rows`](crate::data::rows) and
//! [`fit`](crate::fit) only.

pub mod cross_validation;
pub mod model;
pub mod threshold;
