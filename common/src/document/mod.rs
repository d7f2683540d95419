//! The documents that the fleet stores as JSON or CSV: one module per document.
//!
//! The table `documents!` below names the schema of each document and, for a document that is stored beside each version of a
//! model, its file. `records::layout` knows the other paths. Depends on `features`, `reading`, `ride` and `message`.

use crate::{
    message::ModelRejected,
    schema::{Described, described},
};
use dataset::{Claim, Manifest};
use model::{Alias, Model};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use served::Served;
use std::fmt::Debug;
use waiting::Waiting;

mod breeds;
pub mod dataset;
mod delayed_labels;
mod metrics;
pub mod model;
mod refresh;
mod rejected_ride;
pub mod served;
mod upload;
mod verdict;
pub mod waiting;
mod weather_warnings;

pub use breeds::{BreedSummary, Breeds, BreedsHeldOut};
pub use delayed_labels::DelayedLabelMetrics;
pub use metrics::{Coverage, DataSummary, MetricsFile};
pub use refresh::{RefreshAttempt, RefreshOutcome};
pub use rejected_ride::RejectedRide;
pub use upload::{IdempotencyRecord, Upload};
pub use verdict::{BY_HAND_ONLY, CHAMPION_ALREADY, Comparison, Metric, Promotion, Rule, Verdict};
pub use weather_warnings::{WARNING_SAMPLES_MAX, WeatherWarning, WeatherWarnings};

/// A document that is stored once beside each version of a model.
pub trait VersionDocument: Serialize + DeserializeOwned {
    /// Name of its file in the folder of the version.
    const FILE: &'static str;
}

/// Declares each document in one row: its type, its schema, and the file of a [`VersionDocument`].
macro_rules! documents {
    ($($document:ty = $origin:ident $name:literal $(beside a version as $file:literal)?;)*) => {
        described! { $($document = $origin $name,)* }

        $($(impl VersionDocument for $document {
            const FILE: &'static str = $file;
        })?)*

        /// Visits the type of every document.
        pub fn each(visitor: &mut impl DocumentVisitor) {
            $(visitor.document::<$document>();)*
        }
    };
}

documents! {
    Claim = written "claim.v1";
    Upload = generated "upload.v1";
    IdempotencyRecord = generated "idempotency.v1";
    RefreshAttempt = generated "refresh.v1";
    RefreshOutcome = generated "refresh-outcome.v1";
    RejectedRide<'static, Value> = generated "rejected-ride.v1";
    Manifest = written "dataset-manifest.v1";
    Model = written "model.v1";
    Alias = written "model-alias.v1";
    MetricsFile = generated "metrics.v1" beside a version as "metrics.json";
    Breeds = generated "breeds.v1" beside a version as "breeds.json";
    Verdict = generated "verdict.v1" beside a version as "verdict.json";
    DelayedLabelMetrics = generated "delayed-labels.v1" beside a version as "realised.json";
    Served = written "served.v1";
    Waiting = written "waiting.v1";
    WeatherWarnings = written "weather-warnings.v1";
}

/// A refused training has no version: this message is the only object in its folder.
impl VersionDocument for ModelRejected {
    const FILE: &'static str = "rejected.json";
}

/// A visitor of the type of every document.
pub trait DocumentVisitor {
    /// Called once for each type.
    fn document<D: Described + Serialize + DeserializeOwned + Debug + PartialEq>(&mut self);
}
