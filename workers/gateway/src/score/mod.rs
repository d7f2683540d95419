//! Scores: reads the bodies of score requests, asks the scorers and weather-fetchers, builds the answers.
//!
//! Depends on `http`, `link`, `metrics` and `app`.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod coalesce;
pub(crate) mod json;
mod members;
pub(crate) mod scoring;
pub(crate) mod tensors;
