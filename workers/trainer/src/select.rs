//! Penalty and threshold are chosen among the rides to train on; pure, depends on [`data::rows`](crate::data::rows) and
//! [`fit`](crate::fit) only.

mod cross_validation;
mod model;
mod threshold;

pub use cross_validation::{CrossValidation, best, cross_validate};
pub(crate) use model::SelectedModel;
pub use threshold::threshold;
