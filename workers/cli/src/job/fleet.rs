//! Runs all workers in one process, on either broker.

use crate::session::{Failed, Session};
use records::Store;
use runtime::{
    Broker, Shutdown, Worker,
    config::{BrokerSettings, RunSettings},
    health::Health,
    process::run_options,
    worker::{RunError, RunOptions, run},
};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Running workers.
pub(crate) struct Fleet {
    workers: JoinSet<Result<(), RunError>>,
    shutdown: Shutdown,
}

impl Fleet {
    /// Starts one worker of each kind, configured by the session. With a `health`, the workers report to it, and follow `wildrydes pause`.
    pub(crate) fn start(
        session: &Session,
        broker: Arc<dyn Broker>,
        store: Store,
        shutdown: Shutdown,
        health: Option<Health>,
    ) -> Result<Self, Failed> {
        let (run_settings, broker_settings) = (session.section()?, session.section()?);
        let mut fleet = Self { workers: JoinSet::new(), shutdown };
        let context = WorkerContext { broker, run_settings, broker_settings, health, store: store.clone() };
        fleet.add(splitter::Splitter::new(session.section()?, store.clone()), &context);
        let fetcher = weather_fetcher::WeatherFetcher::new(session.section()?, store.clone());
        let fetcher = fetcher.map_err(Failed::Misused)?;
        let lookup = fetcher.lookup();
        fleet.add(fetcher, &context);
        fleet.add(lookup, &context);
        fleet.add(merger::Merger::new(session.section()?, store.clone()), &context);
        fleet.add(trainer::Trainer::new(session.section()?, store.clone()), &context);
        fleet.add(scorer::Scorer::new(session.section()?, store), &context);
        Ok(fleet)
    }

    fn add<W: Worker>(&mut self, worker: W, context: &WorkerContext) {
        let options = run_options::<W>(&context.run_settings, &context.broker_settings, &context.store);
        let (health, waiting) = (context.health.clone(), Some(context.store.clone()));
        let control = health.is_some().then(|| context.store.clone());
        let options = RunOptions { control, waiting, health, ..options };
        self.workers.spawn(run(Arc::new(worker), Arc::clone(&context.broker), options, self.shutdown.clone()));
    }

    /// Waits until all workers have ended, after a shutdown or a failure. The first failure shuts the others down.
    pub(crate) async fn finished(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        while let Some(ended) = self.workers.join_next().await {
            let ended = ended.map_err(anyhow::Error::from).and_then(|result| result.map_err(anyhow::Error::from));
            if first.is_ok() && ended.is_err() {
                first = ended;
                self.shutdown.cancel();
            }
        }
        first
    }

    /// Waits until a worker fails; never returns otherwise.
    pub(crate) async fn failure(&mut self) -> anyhow::Error {
        loop {
            match self.workers.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error.into(),
                Some(Err(error)) => return error.into(),
                None => std::future::pending().await,
            }
        }
    }

    /// Shuts all workers down and waits until they have ended.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.finished().await
    }
}

/// What all workers of a fleet share.
struct WorkerContext {
    broker: Arc<dyn Broker>,
    run_settings: RunSettings,
    broker_settings: BrokerSettings,
    health: Option<Health>,
    store: Store,
}
