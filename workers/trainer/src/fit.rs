//! Rides become coefficients: the scaler, Newton's method and its linear algebra; pure, depends on [`data::rows`](crate::data::rows)
//! only.

pub mod blocks;
pub mod cancel;
pub mod error;
pub mod logistic;
pub mod loss;
pub mod matrix;
pub mod newton;
pub mod scaler;
