//! Rides become coefficients: the scaler, Newton's method and its linear algebra; pure, depends on [`data::rows`](crate::data::rows)
//! only.

mod blocks;
mod cancel;
mod error;
mod logistic;
mod loss;
mod matrix;
mod newton;
mod scaler;

pub(crate) use blocks::over_blocks;
pub use cancel::Cancel;
pub use error::FitError;
pub(crate) use logistic::fit_scaled;
pub use logistic::{Fit, PriorMean, Recipe, fit};
pub use loss::{log_loss, softplus};
pub(crate) use matrix::inverse;
#[cfg(test)]
pub(crate) use matrix::padded;
pub use matrix::{Features, Matrix, PARAMETERS, Vector};
pub(crate) use newton::Problem;
pub use scaler::Scaler;
