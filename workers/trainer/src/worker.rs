//! The worker: trains on all complete datasets whenever a dataset becomes ready.

use crate::{
    artefact::{self, Refusal, TOO_MANY_RIDES},
    data::{Plan, ScoredRides, load},
    fit::{Cancel, FitError},
    release::{
        breeds, delayed_labels, known_decision,
        publication::{Release, TrainedRelease, cancelled},
    },
    settings::Settings,
};
use common::{
    envelope::Envelope,
    message::{DatasetReady, ModelRejected},
    outcome::{Failure, Outgoing, Outputs},
    topology::process::TRAINER,
};
use records::{
    layout, registry,
    store::{Store, unreadable_as_missing},
};
use runtime::{
    Worker,
    host::{self, offload},
    metrics::metrics,
    trace::{self, Causes, TraceContext},
};
use std::{num::NonZero, sync::Arc, time::Duration};
use tokio::{sync::Mutex, task::JoinHandle, time::Instant};
use tracing::Instrument;

/// Trains on all complete datasets.
pub struct Trainer {
    shared: Arc<Shared>,
    /// The running training: one at a time, since it uses every core, and memory for all rides. It continues after its message was held
    /// for `hold_ms_max`, and ends with the worker.
    running: Mutex<Option<Running>>,
}

struct Shared {
    settings: Settings,
    store: Store,
    /// Maximum number of blocks to parse at once.
    threads: usize,
    cancel: Cancel,
    /// The newest announcements of datasets, for the links of a training's span.
    announcements: Causes,
    /// Id of the newest model and the span of its training.
    newest: parking_lot::Mutex<Option<(String, TraceContext)>>,
}

struct Running {
    ready: DatasetReady,
    /// The spans of the delivery that started it.
    spans: Vec<TraceContext>,
    task: JoinHandle<Result<Vec<Outgoing>, Failure>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trainer {
    /// Creates a trainer; `settings` must have passed their check.
    pub fn new(settings: Settings, store: Store) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { shared: Arc::new(Shared::new(settings, store, threads)), running: Mutex::default() }
    }

    /// Trains as if a `dataset-ready` had arrived, unless the same datasets were trained on before; returns the messages about the result.
    ///
    /// # Errors
    /// Fails if the store cannot be reached or a dataset is broken.
    pub async fn retrain(&self) -> Result<Vec<Outgoing>, Failure> {
        let plan = Plan::read(&self.shared.store, self.shared.settings.training(), "").await?;
        self.shared.train(&plan, "").await
    }

    async fn train(&self, ready: DatasetReady) -> Result<Outputs, Failure> {
        let mut slot = self.running.lock().await;
        if let Some(running) = slot.as_mut() {
            // Started by an earlier delivery, of this message or of another one; that one gets its result when it is delivered again.
            let joined = (&mut running.task).await;
            let same = running.ready == ready;
            let spans = std::mem::take(&mut running.spans);
            *slot = None;
            let result = result_of(joined);
            if same {
                trace::link(spans);
                return Ok(Outputs::all(result?));
            }
        }
        let shared = Arc::clone(&self.shared);
        let announced = ready.clone();
        let training = trace::inherited(async move { shared.handle(&announced).await });
        let task = tokio::spawn(training.in_current_span());
        let running = slot.insert(Running { ready, spans: trace::current(), task });
        let joined = (&mut running.task).await;
        *slot = None;
        Ok(Outputs::all(result_of(joined)?))
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

/// Returns the result of a training, or resumes its panic. Empty the slot first: a task must not be awaited twice.
fn result_of(joined: Result<Result<Vec<Outgoing>, Failure>, tokio::task::JoinError>) -> Result<Vec<Outgoing>, Failure> {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(cancelled()),
    })
}

impl Shared {
    fn new(settings: Settings, store: Store, threads: usize) -> Self {
        let (announcements, newest) = (Causes::default(), parking_lot::Mutex::default());
        Self { settings, store, threads, cancel: Cancel::default(), announcements, newest }
    }

    async fn handle(&self, ready: &DatasetReady) -> Result<Vec<Outgoing>, Failure> {
        self.announcements.note();
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
        if let Some(messages) = known_decision(&self.store, &plan.model, &plan.model_id, rule).await? {
            self.link_training(&plan.model_id);
            return Ok(messages);
        }
        self.announcements.link();
        *self.newest.lock() = trace::current().first().map(|training| (plan.model_id.clone(), *training));
        registry::complete_release(&self.store, &plan.model, host::now()).await?;
        let started = Instant::now();
        let scored = ScoredRides::read(&self.store).await?;
        let scored_after = started.elapsed();
        let mut data = load(&self.store, plan, announced, &scored, self.threads, self.settings.cache).await?;
        let loaded_after = started.elapsed();
        let datasets: Vec<&str> = plan.manifests.iter().map(|manifest| manifest.batch_id.as_str()).collect();
        let labels = std::mem::take(&mut data.delayed_labels);
        let delayed_labels = delayed_labels::evaluate(&self.store, &scored, &datasets, labels).await?;
        drop(scored);
        let evaluated_after = started.elapsed();
        let (plan_of_model, cancel) = (plan.clone(), self.cancel.clone());
        let trained = offload(move || -> Result<TrainedRelease, Refusal> {
            let global = artefact::build(&plan_of_model, &data, &cancel)?;
            let breeds = breeds::train(&plan_of_model, &global, &data, &cancel)?;
            Ok(TrainedRelease { global, breeds, data })
        })
        .await?;
        tracing::info!(
            datasets = plan.manifests.len(),
            scored_seconds = scored_after.as_secs_f64(),
            load_seconds = (loaded_after - scored_after).as_secs_f64(),
            fit_seconds = (started.elapsed() - evaluated_after).as_secs_f64(),
            "time taken so far"
        );
        let release = Release { store: &self.store, plan, rule, cancel: &self.cancel };
        metrics().trained(started.elapsed());
        match trained {
            Ok(trained) => release.run(trained, &delayed_labels).await,
            Err(Refusal::Fit(FitError::Cancelled)) => Err(cancelled()),
            Err(refusal) => self.refuse(plan, &refusal).await,
        }
    }

    /// Links the span of an announcement to that of the training that its dataset was already a part of.
    fn link_training(&self, model_id: &str) {
        if let Some((newest, training)) = &*self.newest.lock()
            && newest == model_id
        {
            trace::link([*training]);
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
        registry::write(&self.store, &plan.model, &plan.model_id, &rejected).await?;
        metrics().verdict("refused");
        Ok(vec![Outgoing::message(&rejected)?])
    }
}

impl Worker for Trainer {
    const NAME: &'static str = TRAINER.name;
    /// A training uses every core, and memory for all rides.
    const CONCURRENCY: u16 = 1;
    /// A delivery that waits for another training would run into the broker's `consumer_timeout`.
    const PREFETCH: u16 = 1;
    type In = DatasetReady;

    async fn handle(&self, envelope: Envelope<DatasetReady>) -> Result<Outputs, Failure> {
        let hold = Duration::from_millis(self.shared.settings.hold_ms_max);
        let trained = tokio::time::timeout(hold, self.train(envelope.payload)).await;
        trained
            .unwrap_or_else(|_| Err(Failure::outage("training", "it is still running; the message is delivered again")))
    }

    fn stopping(&self) {
        self.shared.cancel.cancel();
    }

    /// Repairs the alias of the champion, which a late write may have set back to an older version, and completes its release.
    async fn tend(&self) -> Result<(), Failure> {
        registry::complete_release(&self.shared.store, layout::GLOBAL_MODEL, host::now()).await
    }
}

/// Reads the refusal of these datasets, if there is one. A refusal because of `rides_max`, which is not part of the id, no longer holds:
/// the caller has checked the present limit.
async fn known_refusal(store: &Store, plan: &Plan) -> Result<Option<ModelRejected>, Failure> {
    let rejected = registry::read::<ModelRejected>(store, &plan.model, &plan.model_id).await;
    let rejected = unreadable_as_missing(rejected)?;
    Ok(rejected.filter(|rejected| rejected.reason != TOO_MANY_RIDES))
}

#[cfg(test)]
mod tests;
