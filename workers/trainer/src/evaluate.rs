//! Predictions become metrics, curves, intervals and evidence; pure, depends on [`data::rows`](crate::data::rows) and
//! [`fit`](crate::fit) only.

pub mod bootstrap;
mod collinear;
pub mod curves;
pub mod histogram;
pub mod inference;
pub mod metrics;
