//! `report.html`: a model to look at, one page that needs nothing but itself: no script, no font, no other file.
//!
//! | file | what |
//! |---|---|
//! | `page` | from top to bottom: head, summary, data, what it was made of |
//! | `effects`, `quality`, `rivals` | the sections between |
//! | `words` | what may be said of a model, and no more |
//! | `charts`, `coverage` | figures to marks on axes |
//! | `plot` | marks on axes to SVG |
//! | `parts`, `figures`, `style` | what all are put together of |
//!
//! Everything is pure: the same model gives the same bytes.

mod charts;
mod coverage;
mod effects;
mod figures;
mod page;
mod parts;
mod plot;
mod quality;
mod rivals;
mod style;
mod words;

use crate::{breeds::Breeds, promote::Verdict};
use common::{dataset::Manifest, model::Model, ride::Counts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the rides of a model came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSummary {
    /// Batches.
    pub batches: u64,
    /// Rides handed in.
    pub received: u64,
    /// … of which are in the datasets.
    pub accepted: u64,
    /// The others, by reason.
    pub rejected_by_reason: Counts,
    /// Rides of the datasets without weather, by reason.
    pub without_weather: Counts,
    /// Rides by station and month; the station is empty where none had weather for the ride.
    pub coverage: Vec<Coverage>,
}

/// Rides of one station in one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// GHCN-Daily station id; empty: no weather.
    pub station: String,
    /// `YYYY-MM`.
    pub month: String,
    /// Rides.
    pub rides: u64,
}

impl DataSummary {
    /// Of these datasets, and the rides found in them by station and month.
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

/// How a version did on rides that came with a label after it had scored them: `models/<model>/<id>/realised.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Realised {
    /// The version that scored.
    pub model_id: String,
    /// What it had said against what was.
    pub metrics: common::model::Metrics,
}

/// What a page shows.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The model.
    pub model: &'a Model,
    /// Where its rides came from.
    pub data: &'a DataSummary,
    /// The models of breeds beside it.
    pub breeds: Option<&'a Breeds>,
    /// Whether it became champion.
    pub verdict: Option<&'a Verdict>,
    /// How versions did in service.
    pub realised: &'a [Realised],
}

impl Page<'_> {
    /// The whole page.
    pub fn html(&self) -> String {
        self.markup().into_string()
    }
}

#[cfg(test)]
pub(crate) mod tests;
