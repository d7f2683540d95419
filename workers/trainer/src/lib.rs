//! Trains the model that says how likely a ride is to end in a service request.
//!
//! ```text
//! dataset-ready ─▶ manifests of all datasets ─▶ model id
//!                                                 │ decided? ───────────────────────────────┐
//!                 load     files ─▶ rows          │                                         │
//!                             train / held out    ▼                                         ▼
//!                 build    cross-validation ─▶ linfa ─▶ Newton ─▶ evidence, metrics ─▶ model.json
//!                 breeds      └─ one more per breed, drawn to it             │
//!                 release  judged against the champion ─▶ champion or challenger ─▶ model-promoted / -rejected
//!                             └─ refusal ─▶ rejected.json ─▶ model-rejected
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`settings`] | the section `[trainer]` |
//! | [`plan`] | what is to be trained on, and the id that follows |
//! | [`rows`] | dataset bytes to rows; pure |
//! | [`load`] | streams the datasets out of the store |
//! | `cache` | parsed datasets, so that only the files of new ones are read |
//! | [`train`], [`newton`] | rows to coefficients; pure |
//! | [`select`] | penalty and threshold by cross-validation; pure |
//! | [`inference`], [`bootstrap`] | how sure all that is; pure |
//! | [`odds`] | odds ratios in words; pure |
//! | [`metrics`], [`curves`], [`histogram`] | predictions to quality and pictures; pure |
//! | [`build`] | all of it to one artefact; pure |
//! | [`breeds`] | one model per breed; pure |
//! | [`promote`] | whether a new model becomes champion; pure |
//! | [`registry`] | names for versions: champion, challenger |
//! | [`release`] | writes, judges and names |
//! | [`realised`] | what became of rides that were scored |
//! | [`report`] | the page to look at; pure |
//!
//! A model is a pure function of its dataset manifests and settings, and so is its id: a set of datasets that a model or a
//! refusal is there for is not trained on again, however many events say that they are ready. Two processes that come to
//! the same set at the same time both train on it, and write the same bytes.

pub mod bootstrap;
pub mod breeds;
pub mod build;
mod cache;
mod collinear;
pub mod curves;
pub mod histogram;
pub mod inference;
pub mod load;
pub mod metrics;
pub mod newton;
pub mod odds;
pub mod plan;
pub mod promote;
pub mod realised;
pub mod registry;
pub mod release;
pub mod report;
pub mod rows;
pub mod select;
pub mod settings;
pub mod train;

pub use settings::Settings;

use build::{Refusal, TOO_MANY_RIDES};
use common::{
    envelope::Envelope,
    message::{DatasetReady, ModelRejected},
    outcome::{Failure, Outgoing, Outputs},
};
use newton::Cancel;
use plan::Plan;
use realised::Scored;
use records::{
    layout,
    store::{self, Store},
};
use registry::readable;
use release::{Release, Trained, cancelled, decided, pretty};
use runtime::{Worker, host::offload};
use std::{num::NonZero, sync::Arc, time::Duration};
use tokio::{sync::Mutex, task::JoinHandle, time::Instant};
use tracing::Instrument;
use train::FitError;

/// The worker: trains on every complete dataset each time one more is.
pub struct Trainer {
    shared: Arc<Shared>,
    /// The training that is under way: one at a time, since it uses every core, and memory for all rides. It goes on when the
    /// message it began with is put aside, and ends with the worker.
    under_way: Mutex<Option<UnderWay>>,
}

struct Shared {
    settings: Settings,
    store: Store,
    threads: usize,
    cancel: Cancel,
}

struct UnderWay {
    ready: DatasetReady,
    task: JoinHandle<Result<Vec<Outgoing>, Failure>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trainer {
    /// A trainer with checked settings on this store.
    pub fn new(settings: Settings, store: Store) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let shared = Shared { settings, store, threads, cancel: Cancel::default() };
        Self { shared: Arc::new(shared), under_way: Mutex::default() }
    }

    /// Trains on every complete dataset, unless that was done, and says what came of it: what a `dataset-ready` does, without one.
    ///
    /// # Errors
    /// When the store is away or a dataset is broken.
    pub async fn retrain(&self) -> Result<Vec<Outgoing>, Failure> {
        let plan = Plan::read(&self.shared.store, self.shared.settings.training(), "").await?;
        self.shared.train(&plan, "").await
    }

    async fn trained(&self, ready: DatasetReady) -> Result<Outputs, Failure> {
        let mut slot = self.under_way.lock().await;
        if let Some(running) = slot.as_mut() {
            // Begun with a message that was put aside. It may be this one again; if not, that one will learn what came of it.
            let ended = (&mut running.task).await;
            let same = running.ready == ready;
            *slot = None;
            let done = joined(ended);
            if same {
                return Ok(Outputs::all(done?));
            }
        }
        let shared = Arc::clone(&self.shared);
        let announced = ready.clone();
        let task = tokio::spawn(async move { shared.handle(&announced).await }.in_current_span());
        let running = slot.insert(UnderWay { ready, task });
        let ended = (&mut running.task).await;
        *slot = None;
        Ok(Outputs::all(joined(ended)?))
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

/// What came of a training; a panic in it is one in the handler. The slot is to be free by then: a task is awaited once.
fn joined(ended: Result<Result<Vec<Outgoing>, Failure>, tokio::task::JoinError>) -> Result<Vec<Outgoing>, Failure> {
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(cancelled()),
    })
}

impl Shared {
    async fn handle(&self, ready: &DatasetReady) -> Result<Vec<Outgoing>, Failure> {
        let announced = ready.batch_id.as_str();
        let plan = Plan::read(&self.store, self.settings.training(), announced).await?;
        plan.check_has(ready)?;
        self.train(&plan, announced).await
    }

    async fn train(&self, plan: &Plan, announced: &str) -> Result<Vec<Outgoing>, Failure> {
        let (trainable, rides_max) = (plan.trainable(), self.settings.rides_max);
        if trainable > rides_max {
            return self.refuse(plan, &Refusal::TooManyRides { trainable, rides_max }).await;
        }
        if let Some(rejected) = known_refusal(&self.store, plan).await? {
            return Ok(vec![Outgoing::message(&rejected)?]);
        }
        let rule = self.settings.rule();
        if let Some(messages) = decided(&self.store, &plan.model, &plan.model_id, rule).await? {
            return Ok(messages);
        }
        release::finish(&self.store, &plan.model).await?;
        let started = Instant::now();
        let scored = Scored::read(&self.store).await?;
        let scored_after = started.elapsed();
        let mut loaded = load::load(&self.store, plan, announced, &scored, self.threads, self.settings.cache).await?;
        let loaded_after = started.elapsed();
        let datasets: Vec<&str> = plan.manifests.iter().map(|manifest| manifest.batch_id.as_str()).collect();
        let realised = scored.judge(&self.store, &datasets, std::mem::take(&mut loaded.outcomes)).await?;
        drop(scored);
        let judged_after = started.elapsed();
        let (plan_of_model, threads, cancel) = (plan.clone(), self.threads, self.cancel.clone());
        let trained = offload(move || -> Result<Trained, Refusal> {
            let built = build::build(&plan_of_model, &loaded, threads, &cancel)?;
            let rides = (&loaded.train, &loaded.test);
            let breeds = breeds::train(&plan_of_model, &built, rides, &loaded.breeds, threads, &cancel)?;
            Ok(Trained { built, breeds, loaded })
        })
        .await?;
        tracing::info!(
            datasets = plan.manifests.len(),
            scored_seconds = scored_after.as_secs_f64(),
            load_seconds = (loaded_after - scored_after).as_secs_f64(),
            fit_seconds = (started.elapsed() - judged_after).as_secs_f64(),
            "time taken so far"
        );
        let release = Release { store: &self.store, plan, rule, threads: self.threads, cancel: &self.cancel };
        match trained {
            Ok(trained) => release.run(trained, &realised).await,
            Err(Refusal::Fit(FitError::Cancelled)) => Err(cancelled()),
            Err(refusal) => self.refuse(plan, &refusal).await,
        }
    }

    async fn refuse(&self, plan: &Plan, refusal: &Refusal) -> Result<Vec<Outgoing>, Failure> {
        let rejected = ModelRejected {
            model: plan.model.clone(),
            model_id: plan.model_id.clone(),
            reason: refusal.reason().to_owned(),
            why: refusal.to_string(),
            object: None,
        };
        tracing::warn!(model_id = %rejected.model_id, reason = %rejected.reason, why = %rejected.why, "no model");
        let path = layout::model_rejected(&plan.model, &plan.model_id);
        store::write(&self.store, &path, pretty(&rejected)?).await?;
        Ok(vec![Outgoing::message(&rejected)?])
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
        let hold = Duration::from_millis(self.shared.settings.hold_ms_max);
        let trained = tokio::time::timeout(hold, self.trained(envelope.payload)).await;
        trained.unwrap_or_else(|_| Err(Failure::outage("training", "it is still under way; the message comes again")))
    }

    fn stopping(&self) {
        self.shared.cancel.cancel();
    }

    /// Repairs the alias of the champion: a late write may have set it back to an older version.
    async fn tend(&self) -> Result<(), Failure> {
        release::finish(&self.shared.store, layout::GLOBAL_MODEL).await
    }
}

/// A refusal for want of memory is no longer known: `rides_max`, which is no part of the id, allows these rides by now.
async fn known_refusal(store: &Store, plan: &Plan) -> Result<Option<ModelRejected>, Failure> {
    let path = layout::model_rejected(&plan.model, &plan.model_id);
    let known: Option<ModelRejected> = readable(store::read_json(store, &path).await)?;
    Ok(known.filter(|rejected| rejected.reason != TOO_MANY_RIDES))
}

#[cfg(test)]
mod tests;
