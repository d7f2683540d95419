//! Trains the model that says how likely a ride is to end in a service request.
//!
//! ```text
//! dataset-ready ─▶ manifests of all datasets ─▶ model id
//!                                                 │ known? ──────────────────────────────┐
//!                        load   files ─▶ rows     │                                      │
//!                               train / held out  ▼                                      ▼
//!                        train  linfa ─▶ Newton ─▶ Fit ─▶ metrics ─▶ model.json ─▶ champion ─▶ model-promoted
//!                               └─ refusal ─▶ rejected.json ─▶ model-rejected
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`rows`] | dataset bytes to rows; pure |
//! | [`train`] | rows to coefficients; pure |
//! | [`metrics`] | predictions to quality; pure |
//! | [`curves`] | predictions to ROC and calibration curves; pure |
//! | [`load`] | streams the datasets out of the store |
//! | [`registry`] | which version is the champion |
//!
//! A model is a pure function of its dataset manifests and settings, and so is its id: a set of datasets that a model or a
//! refusal is there for is not trained on again, however many events say that they are ready. Two processes that come to
//! the same set at the same time both train on it, and write the same bytes.

pub mod curves;
pub mod load;
pub mod metrics;
pub mod registry;
pub mod rows;
pub mod train;

use common::{
    contract::{
        dataset::{MANIFEST_SCHEMA, Manifest},
        envelope::Envelope,
        features::FEATURE_COUNT,
        layout,
        message::{DatasetReady, ModelPromoted, ModelRejected},
        model::{Champion, MODEL_SCHEMA, Metrics, Model, TrainedOn, TrainingCounts, TrainingSettings},
        outcome::{Failure, Outputs},
    },
    runtime::{
        Worker,
        config::{self, Problem},
        host::offload,
        store::{self, Store},
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use load::Loaded;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{num::NonZero, sync::Arc};
use tokio::sync::{Mutex, OwnedMutexGuard};
use train::{Fit, FitError};

/// Manifests asked of the store at once.
const MANIFESTS_AT_ONCE: usize = 16;

/// The section `[trainer]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// L2 penalty; see [`TrainingSettings::alpha`].
    pub alpha: f64,
    /// Probability from which on the decision is service.
    pub threshold: f64,
    /// Fewer rides with a label and weather than this are refused.
    pub rides_min: u64,
    /// More rides with a label and weather than this are refused. Each takes 50 bytes of memory, and up to 25 more while
    /// the model is judged; where there is more than one dataset, 20 to 40 more while they are loaded. So 4,000,000 take
    /// 300 to 360 MB.
    pub rides_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let TrainingSettings { alpha, threshold, rides_min } = TrainingSettings::default();
        Self { alpha, threshold, rides_min, rides_max: 4_000_000 }
    }
}

impl config::Settings for Settings {
    const SECTION: &'static str = "trainer";

    fn check(&self) -> Result<(), Problem> {
        if !(self.alpha.is_finite() && self.alpha >= 0.0) {
            return Err(Problem::new("alpha", self.alpha, "a number not below 0, e.g. 1"));
        }
        if !(self.threshold > 0.0 && self.threshold < 1.0) {
            return Err(Problem::new("threshold", self.threshold, "a probability between 0 and 1, e.g. 0.5"));
        }
        if self.rides_min < 10 {
            return Err(Problem::new("rides_min", self.rides_min, "at least 10 rides, e.g. 100"));
        }
        if self.rides_max < self.rides_min {
            return Err(Problem::new("rides_max", self.rides_max, "at least rides_min, e.g. 4000000"));
        }
        Ok(())
    }
}

/// Why no model comes of the present datasets. The champion, if there is one, stays.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// There are rides with a label, but none of them has weather.
    #[error("none of {labelled} labelled rides has weather")]
    NoWeather {
        /// Rides with a label.
        labelled: u64,
    },
    /// Too little to learn from.
    #[error("{trainable} rides have a label and weather ({rides} rides in all): expected at least {rides_min}")]
    TooFewRides {
        /// Rides with a label and weather, each counted once.
        trainable: u64,
        /// Rides of all datasets.
        rides: u64,
        /// From the settings.
        rides_min: u64,
    },
    /// More than the memory this process may use.
    #[error(
        "{trainable} rides have a label and weather: at most {rides_max} fit (trainer.rides_max; up to 90 bytes each)"
    )]
    TooManyRides {
        /// Rides with a label and weather, duplicates included.
        trainable: u64,
        /// From the settings.
        rides_max: u64,
    },
    /// See [`FitError`].
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A held-out ride is so far from the others that its prediction is no number.
    #[error("the metrics of the model are no numbers: a held-out ride has values too large to compute with")]
    MetricsOutOfRange,
}

const TOO_MANY_RIDES: &str = "too_many_rides";

impl Refusal {
    /// Stable code, as in [`ModelRejected::reason`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoWeather { .. } => "no_weather",
            Self::TooFewRides { .. } => "too_few_rides",
            Self::TooManyRides { .. } => TOO_MANY_RIDES,
            Self::Fit(FitError::OneClassOnly { .. }) => "one_class_only",
            Self::Fit(FitError::NotConverged { .. }) => "not_converged",
            Self::Fit(FitError::OutOfRange(_)) | Self::MetricsOutOfRange => "feature_out_of_range",
        }
    }
}

/// `models/<model>/<id>/metrics.json`: the report on a model for tools that want no coefficients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Model family.
    pub model: String,
    /// The model.
    pub model_id: String,
    /// Probability from which on the decision is service.
    pub threshold: f64,
    /// How many rides went where.
    pub counts: TrainingCounts,
    /// On the rides it was trained on.
    pub train: Metrics,
    /// On the rides held out; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
}

/// The right to train.
type Turn = OwnedMutexGuard<()>;

/// Computes away from the broker's heartbeats, holding the `turn` to the end of it: a handler that is given up ends its
/// own share, but not the computation, and the next training must not begin beside it.
async fn in_turn<T: Send + 'static>(turn: &Arc<Turn>, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let turn = Arc::clone(turn);
    let holding = move || {
        let done = work();
        drop(turn);
        done
    };
    offload(holding).await
}

/// The worker: trains on every complete dataset each time one more is.
pub struct Trainer {
    settings: Settings,
    store: Store,
    threads: usize,
    /// One training at a time: it uses every core, and memory for all rides. Who waited mostly finds the work done.
    turn: Arc<Mutex<()>>,
}

impl Trainer {
    /// A trainer with checked settings on this store.
    pub fn new(settings: Settings, store: Store) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { settings, store, threads, turn: Arc::default() }
    }

    fn training_settings(&self) -> TrainingSettings {
        let Settings { alpha, threshold, rides_min, .. } = self.settings;
        TrainingSettings { alpha, threshold, rides_min }
    }

    async fn train(&self, plan: &Plan, announced: &str, turn: &Arc<Turn>) -> Result<Result<Model, Refusal>, Failure> {
        if let Some(model) = known_model(&self.store, plan).await? {
            return Ok(Ok(model));
        }
        let loaded = load::load(&self.store, &plan.manifests, announced, self.threads).await?;
        let (plan_of_model, threads) = (plan.clone(), self.threads);
        let trained = in_turn(turn, move || build(&plan_of_model, loaded, threads)).await?;
        if let Ok(model) = &trained {
            write_model(&self.store, model).await?;
        }
        Ok(trained)
    }

    async fn refuse(&self, plan: &Plan, refusal: &Refusal) -> Result<ModelRejected, Failure> {
        let rejected = ModelRejected {
            model: plan.model.clone(),
            model_id: plan.model_id.clone(),
            reason: refusal.reason().to_owned(),
            why: refusal.to_string(),
        };
        tracing::warn!(model_id = %rejected.model_id, reason = %rejected.reason, why = %rejected.why, "no model");
        let path = layout::model_rejected(&plan.model, &plan.model_id);
        store::write(&self.store, &path, pretty(&rejected)?).await?;
        Ok(rejected)
    }
}

impl Worker for Trainer {
    const NAME: &'static str = "trainer";
    /// One training uses every core, and memory for all rides.
    const CONCURRENCY: u16 = 1;
    /// A delivery that only waits for a long training would age towards the broker's `consumer_timeout`.
    const PREFETCH: u16 = 1;
    type In = DatasetReady;

    async fn handle(&self, envelope: Envelope<DatasetReady>) -> Result<Outputs, Failure> {
        let turn: Arc<Turn> = Arc::new(Arc::clone(&self.turn).lock_owned().await);
        let announced = envelope.payload.batch_id.as_str();
        let plan = Plan::read(&self.store, self.training_settings(), announced).await?;
        plan.check_has(&envelope.payload)?;

        let trainable = plan.trainable();
        if trainable > self.settings.rides_max {
            let refusal = Refusal::TooManyRides { trainable, rides_max: self.settings.rides_max };
            return Outputs::one(&self.refuse(&plan, &refusal).await?);
        }
        if let Some(rejected) = known_refusal(&self.store, &plan).await? {
            return Outputs::one(&rejected);
        }
        match self.train(&plan, announced, &turn).await? {
            Ok(model) => Outputs::one(&announcement(champion::promote(&self.store, &model).await?)),
            Err(refusal) => Outputs::one(&self.refuse(&plan, &refusal).await?),
        }
    }
}

/// What is to be trained on, and the id that follows from it.
#[derive(Debug, Clone)]
struct Plan {
    model: String,
    model_id: String,
    settings: TrainingSettings,
    /// By rising batch id, as `datasets`.
    manifests: Vec<Manifest>,
    datasets: Vec<TrainedOn>,
}

impl Plan {
    /// Every dataset that has its manifest by now.
    async fn read(store: &Store, settings: TrainingSettings, announced: &str) -> Result<Self, Failure> {
        let listing =
            store.list_with_delimiter(Some(&Path::from(layout::DATASET))).await.map_err(store::outage)?.common_prefixes;
        let batch_ids: Vec<String> = listing.iter().filter_map(|prefix| prefix.filename().map(str::to_owned)).collect();
        let mut found: Vec<(Manifest, TrainedOn)> = stream::iter(batch_ids)
            .map(|batch_id| async move {
                let read = read_manifest(store, &batch_id).await;
                read.map_err(|failure| load::passes_unless_announced(failure, &batch_id, announced))
            })
            .buffer_unordered(MANIFESTS_AT_ONCE)
            .try_filter_map(async |manifest| Ok(manifest))
            .try_collect()
            .await?;
        found.sort_by(|(a, _), (b, _)| a.batch_id.cmp(&b.batch_id));
        let (manifests, datasets): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let model = layout::GLOBAL_MODEL.to_owned();
        let model_id = model_id(&model, &settings, &datasets)?;
        Ok(Self { model, model_id, settings, manifests, datasets })
    }

    fn check_has(&self, ready: &DatasetReady) -> Result<(), Failure> {
        match self.datasets.iter().find(|dataset| dataset.batch_id == ready.batch_id) {
            Some(dataset) if dataset.manifest_sha256 == ready.manifest_sha256 => Ok(()),
            Some(dataset) => {
                let why = format!(
                    "the manifest of {} has SHA-256 {}; it was announced with {}",
                    ready.batch_id, dataset.manifest_sha256, ready.manifest_sha256
                );
                Err(Failure::permanent("dataset_changed", why))
            }
            None => Err(Failure::transient(format!("{} is not there", ready.manifest))),
        }
    }

    fn trainable(&self) -> u64 {
        self.manifests.iter().fold(0, |sum, manifest| sum.saturating_add(manifest.trainable))
    }
}

async fn read_manifest(store: &Store, batch_id: &str) -> Result<Option<(Manifest, TrainedOn)>, Failure> {
    let path = layout::manifest(batch_id);
    let Some(bytes) = store::read(store, &path).await? else { return Ok(None) };
    let broken = |why: String| Failure::permanent("broken_dataset", format!("{path}: {why}"));
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    if manifest.schema != MANIFEST_SCHEMA {
        return Err(broken(format!("its schema is {}; this trainer reads {MANIFEST_SCHEMA}", manifest.schema)));
    }
    if manifest.batch_id != batch_id {
        return Err(broken(format!("it is the manifest of {}", manifest.batch_id)));
    }
    let own = layout::dataset(batch_id);
    if let Some(file) = manifest.files.iter().find(|file| !layout::is_below(&own, &file.path)) {
        return Err(broken(format!("it names {:?}, which is not below {own}/", file.path)));
    }
    let manifest_sha256 = hex::encode(Sha256::digest(&bytes));
    Ok(Some((manifest, TrainedOn { batch_id: batch_id.to_owned(), manifest_sha256 })))
}

/// The first 16 hex digits of a SHA-256 over everything a model follows from.
fn model_id(model: &str, settings: &TrainingSettings, datasets: &[TrainedOn]) -> Result<String, Failure> {
    let settings = serde_json::to_string(settings).map_err(|error| Failure::permanent("unencodable", error))?;
    let mut sha256 = Sha256::new();
    for line in [MODEL_SCHEMA, model, &settings] {
        sha256.update(format!("{line}\n"));
    }
    for TrainedOn { batch_id, manifest_sha256 } in datasets {
        sha256.update(format!("{batch_id} {manifest_sha256}\n"));
    }
    let mut id = hex::encode(sha256.finalize());
    id.truncate(16);
    Ok(id)
}

fn build(plan: &Plan, loaded: Loaded, threads: usize) -> Result<Model, Refusal> {
    let Loaded { train: rides, test, counts } = loaded;
    let trainable = counts.train + counts.test;
    let rides_min = plan.settings.rides_min;
    if trainable == 0 && counts.without_weather > 0 {
        return Err(Refusal::NoWeather { labelled: counts.without_weather });
    }
    if trainable < rides_min || rides.is_empty() {
        return Err(Refusal::TooFewRides { trainable, rides: counts.rides, rides_min });
    }
    let Fit { intercept, intercept_standardised, coefficients, gradient_norm } =
        train::fit(&rides, plan.settings.alpha, threads)?;
    let threshold = plan.settings.threshold;
    let per_unit: Vec<f64> = coefficients.iter().map(|coefficient| coefficient.per_unit).collect();
    let log_odds = |row: &[f64; FEATURE_COUNT]| intercept + per_unit.iter().zip(row).map(|(c, x)| c * x).sum::<f64>();
    let quality = |rides: &rows::Rides| {
        let predictions = rides.features.iter().map(log_odds).zip(rides.service.iter().copied());
        metrics::evaluate(predictions, threshold)
    };
    let (of_train, of_test) = (quality(&rides), quality(&test));
    let finite = |metrics: &Metrics| metrics.log_loss.is_finite() && metrics.brier.is_finite();
    let of_train = of_train.filter(finite).ok_or(Refusal::MetricsOutOfRange)?;
    if of_test.as_ref().is_some_and(|metrics| !finite(metrics)) {
        return Err(Refusal::MetricsOutOfRange);
    }
    Ok(Model {
        schema: MODEL_SCHEMA.to_owned(),
        model: plan.model.clone(),
        model_id: plan.model_id.clone(),
        trainer: env!("CARGO_PKG_VERSION").to_owned(),
        settings: plan.settings.clone(),
        datasets: plan.datasets.clone(),
        counts,
        intercept,
        intercept_standardised,
        coefficients,
        threshold,
        gradient_norm,
        train: of_train,
        test: of_test,
    })
}

/// `model.json` is written last: where it is, the model is complete.
async fn write_model(store: &Store, model: &Model) -> Result<(), Failure> {
    let report = Report {
        model: model.model.clone(),
        model_id: model.model_id.clone(),
        threshold: model.threshold,
        counts: model.counts,
        train: model.train.clone(),
        test: model.test.clone(),
    };
    store::write(store, &layout::metrics(&model.model, &model.model_id), pretty(&report)?).await?;
    store::write(store, &layout::model(&model.model, &model.model_id), pretty(model)?).await?;
    tracing::info!(
        model_id = %model.model_id, rides = model.counts.train, log_loss = model.train.log_loss,
        test_roc_auc = model.test.as_ref().and_then(|metrics| metrics.roc_auc), "trained"
    );
    Ok(())
}

async fn known_model(store: &Store, plan: &Plan) -> Result<Option<Model>, Failure> {
    champion::readable(store::read_json(store, &layout::model(&plan.model, &plan.model_id)).await)
}

/// A refusal for want of memory is no longer known: `rides_max`, which is no part of the id, allows these rides by now.
async fn known_refusal(store: &Store, plan: &Plan) -> Result<Option<ModelRejected>, Failure> {
    let path = layout::model_rejected(&plan.model, &plan.model_id);
    let known: Option<ModelRejected> = champion::readable(store::read_json(store, &path).await)?;
    Ok(known.filter(|rejected| rejected.reason != TOO_MANY_RIDES))
}

fn announcement(champion: Champion) -> ModelPromoted {
    ModelPromoted {
        model: champion.model,
        model_id: champion.model_id,
        object: champion.object,
        previous_model_id: champion.history.last().cloned(),
    }
}

fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| Failure::permanent("unencodable", error))?;
    json.push(b'\n');
    Ok(json)
}

#[cfg(test)]
mod tests;
