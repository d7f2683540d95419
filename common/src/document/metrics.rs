//! `models/<model>/<id>/metrics.json`: how good a model is and where its rides came from, without its coefficients.

use crate::{
    dataset::Manifest,
    model::{Metrics, TrainingCounts},
    ride::Counts,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How good a model is and where its rides came from, without its coefficients: `models/<model>/<model_id>/metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MetricsFile {
    /// Model family, for example `service-request`.
    pub model: String,
    /// Id of the version, 16 hex digits.
    pub model_id: String,
    /// Probability, 0 to 1, from which on a ride counts as a service request.
    pub threshold: f64,
    /// How the rides were used.
    pub counts: TrainingCounts,
    /// Where the rides came from.
    pub data: DataSummary,
    /// On the rides trained on.
    pub train: Metrics,
    /// On the held-out rides; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
}

/// Where the rides of a model came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DataSummary {
    /// Number of batches.
    pub batches: u64,
    /// Rides in the batches.
    pub received: u64,
    /// Rides in the datasets.
    pub accepted: u64,
    /// Rides that are in no dataset, by reason.
    pub rejected_by_reason: Counts,
    /// Rides of the datasets without weather, by reason.
    pub without_weather: Counts,
    /// Rides by station and month.
    pub coverage: Vec<Coverage>,
}

/// Rides of one station in one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Coverage {
    /// GHCN-Daily station id; empty for rides without weather.
    pub station: String,
    /// `YYYY-MM`.
    pub month: String,
    /// Number of rides.
    pub rides: u64,
}

impl DataSummary {
    /// Summarises these datasets; `coverage` counts their rides by station and month.
    pub fn of(manifests: &[Manifest], coverage: &BTreeMap<(String, String), u64>) -> Self {
        let mut summary = Self { batches: manifests.len() as u64, ..Self::default() };
        for manifest in manifests {
            summary.received += manifest.received;
            summary.accepted += manifest.accepted;
            let all = [
                (&mut summary.rejected_by_reason, &manifest.rejected_by_reason),
                (&mut summary.without_weather, &manifest.without_weather),
            ];
            for (sum, counts) in all {
                for (reason, count) in counts {
                    *sum.entry(reason.clone()).or_default() += count;
                }
            }
        }
        let counted = coverage.iter().map(|((station, month), rides)| Coverage {
            station: station.clone(),
            month: month.clone(),
            rides: *rides,
        });
        summary.coverage = counted.collect();
        summary
    }
}
