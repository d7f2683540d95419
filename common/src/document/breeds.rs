//! `models/<model>/<id>/breeds.json`: the breed models of a release.

use crate::model::{Candidate, Interval};
use serde::{Deserialize, Serialize};

/// The breed models of a release, `models/<model>/<model_id>/breeds.json`, and how good they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Breeds {
    /// Name of its schema.
    pub schema: String,
    /// Precision, in standardised units, of the prior around the global model.
    #[serde(rename = "pull")]
    pub pooling_strength: f64,
    /// Every strength that was tried, with the mean log-loss over the rides of all these breeds.
    pub candidates: Vec<Candidate>,
    /// On the held-out rides of all these breeds; absent if there are none.
    pub held_out: Option<BreedsHeldOut>,
    /// Sorted by name.
    pub breeds: Vec<BreedSummary>,
}

/// Partially pooled breed models against the global model and against separate models, on held-out rides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BreedsHeldOut {
    /// Number of held-out rides.
    pub rides: u64,
    /// Mean log-loss of the breed models.
    pub pooled: f64,
    /// Mean log-loss of the global model.
    pub global: f64,
    /// Mean log-loss of separate models, each trained on the rides of its breed only, with the penalty of the global model;
    /// absent if one of them cannot be trained.
    pub separate: Option<f64>,
    /// How much smaller the log-loss of the breed models is than that of the global model; above 0 is better.
    pub over_global: Interval,
    /// How much smaller it is than that of separate models; absent as for `separate`.
    pub over_separate: Option<Interval>,
}

/// The model of one breed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BreedSummary {
    /// Name, in lower case and without surrounding blanks.
    pub breed: String,
    /// Model family, for example `service-request--qilin`.
    pub model: String,
    /// Id of the version, 16 hex digits.
    pub model_id: String,
    /// Rides trained on.
    pub train: u64,
    /// Rides trained on that ended in a service request.
    pub train_service: u64,
    /// Rides held out.
    pub test: u64,
    /// Mean log-loss of the breed model on the held-out rides; absent if there are none.
    pub log_loss: Option<f64>,
    /// Mean log-loss of the global model on the held-out rides; absent if there are none.
    pub global_log_loss: Option<f64>,
}
