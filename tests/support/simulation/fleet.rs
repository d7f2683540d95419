//! Simulated processes: each runs a worker in the real loop until it dies at some step, and is then restarted.

use super::{
    SIMULATED_PANIC,
    broker::SimulatedBroker,
    sabotage::{CountingMerger, Forgetful, Impatient, Mislabelling, Sabotage, Sweeping, Trusting},
    store::SimulatedStore,
    weather::{SimulatedWeather, URL},
    world::{BrokerIs, Fault, Point, Process, World},
};
use common::{
    envelope::{Envelope, Properties},
    message::Undecodable,
    outcome::{Failure, Outgoing, Outputs},
    topology::queue,
};
use futures::future::{BoxFuture, FutureExt};
use records::Store;
use runtime::{
    Shutdown, Worker,
    process::both,
    worker::{RunError, RunOptions, run},
};
use std::{sync::Arc, time::Duration};

/// Minimum number of rides for a model; an input has either more or hardly any.
const RIDES_MIN: u64 = 20;

/// Starts every process, and the faults of the broker itself.
pub fn start(world: &Arc<World>) -> Shutdown {
    let shutdown = Shutdown::new();
    let plan = &world.plan;
    let chunk_size = plan.chunk_size;
    for (&kind, &copies) in &plan.processes {
        for copy in 0..copies {
            let place = Place { world: Arc::clone(world), kind, copy, shutdown: shutdown.clone() };
            match (kind, world.sabotage) {
                (queue::SPLITTER, _) => place.supervise(move |process| {
                    // An older and a newer version may split differently.
                    let chunk_size = if process.newer { chunk_size + 2 } else { chunk_size };
                    let settings = splitter::Settings { chunk_size, ..splitter::Settings::default() };
                    splitter::Splitter::new(settings, store(process))
                }),
                (queue::WEATHER_FETCHER, Some(Sabotage::OutageSpendsAttempts)) => place.supervise_both(|process| {
                    let fetcher = weather_fetcher(process);
                    let lookup = fetcher.lookup();
                    (Impatient(fetcher), lookup)
                }),
                (queue::WEATHER_FETCHER, Some(Sabotage::OldWeather)) => place.supervise_both(|process| {
                    let fetcher = weather_fetcher(process);
                    let lookup = fetcher.lookup();
                    (Forgetful(fetcher), lookup)
                }),
                (queue::WEATHER_FETCHER, _) => place.supervise_both(|process| {
                    let fetcher = weather_fetcher(process);
                    let lookup = fetcher.lookup();
                    (fetcher, lookup)
                }),
                (queue::MERGER, Some(Sabotage::CountChunks)) => {
                    place.supervise(|process| CountingMerger::new(store(process)));
                }
                (queue::MERGER, Some(Sabotage::ProvenanceIgnored)) => {
                    place.supervise(|process| Trusting(merger(process)));
                }
                (queue::MERGER, Some(Sabotage::SweepInProgress)) => {
                    place.supervise(|process| Sweeping { inner: merger(process), store: store(process) });
                }
                (queue::MERGER, _) => place.supervise(merger),
                (queue::TRAINER, _) => place.supervise(|process| {
                    let promotion = process.world.plan.promotion();
                    let settings =
                        trainer::Settings { rides_min: RIDES_MIN, promotion, ..trainer::Settings::default() };
                    trainer::Trainer::new(settings, store(process))
                }),
                (queue::SCORER, Some(Sabotage::MixAnswers)) => {
                    place.supervise(|process| Mislabelling::new(scorer(process)));
                }
                (queue::SCORER, _) => place.supervise(scorer),
                // Other workers are not simulated.
                _ => {}
            }
        }
    }
    tokio::spawn(disturb_broker(Arc::clone(world)));
    shutdown
}

fn store(process: &Arc<Process>) -> Store {
    Arc::new(SimulatedStore::new(process))
}

fn merger(process: &Arc<Process>) -> merger::Merger {
    // Several dataset files, each uploaded in pieces.
    let settings =
        merger::Settings { part_bytes_max: 16_000, upload_bytes: 4_000, probes_max: 4, ..merger::Settings::default() };
    merger::Merger::new(settings, store(process))
}

fn scorer(process: &Arc<Process>) -> scorer::Scorer {
    scorer::Scorer::new(scorer::Settings::default(), store(process))
}

fn weather_fetcher(process: &Arc<Process>) -> weather_fetcher::WeatherFetcher {
    let settings = weather_fetcher::Settings {
        source: URL.to_owned(),
        // The rate limiter uses real time.
        requests_per_second: 1_000,
        ..weather_fetcher::Settings::default()
    };
    let http = Box::new(SimulatedWeather(Arc::clone(process)));
    weather_fetcher::WeatherFetcher::over(http, settings, store(process)).expect("settings that can be used")
}

/// One process slot.
struct Place {
    world: Arc<World>,
    kind: &'static str,
    copy: usize,
    shutdown: Shutdown,
}

impl Place {
    fn supervise<W: Worker>(self, make: impl Fn(&Arc<Process>) -> W + Send + 'static) {
        self.supervise_lives(move |life| life.run(make(&life.process)));
    }

    /// Two workers in one process, which end together.
    fn supervise_both<A: Worker, B: Worker>(self, make: impl Fn(&Arc<Process>) -> (A, B) + Send + 'static) {
        self.supervise_lives(move |life| {
            let (first, second) = make(&life.process);
            let (first, second) = (life.run(first), life.run(second));
            let stop = life.stop.clone();
            async move { both(first, second, &stop).await }.boxed()
        });
    }

    fn supervise_lives(self, begin: impl Fn(&Life) -> Ending + Send + 'static) {
        tokio::spawn(async move {
            for life in 1.. {
                let name = format!("{}.{}#{life}", self.kind, self.copy);
                let newer = self.world.plan.newer_versions && self.copy % 2 == 1;
                let process = Process::new(&self.world, self.kind, name, newer);
                let stop = Shutdown::new();
                let running = begin(&Life { process: Arc::clone(&process), stop: stop.clone() });
                let rollout = process.happens(Fault::Rollout);
                let until_stopped = self.world.moment(Duration::from_secs(60));
                let ask_to_stop = async {
                    if rollout {
                        tokio::time::sleep(until_stopped).await;
                        process.tell("✗ Rollout: asked to end");
                        stop.cancel();
                    }
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => return,
                    () = process.died() => {}
                    () = ask_to_stop => {}
                    ended = running => match ended {
                        Ok(()) => process.tell("ended"),
                        Err(why) => process.tell(format_args!("ended: {why}")),
                    },
                }
                tokio::time::sleep(self.world.moment(Duration::from_secs(5))).await;
            }
        });
    }
}

type Ending = BoxFuture<'static, Result<(), RunError>>;

/// One life of a process, from its start to its death.
struct Life {
    process: Arc<Process>,
    stop: Shutdown,
}

impl Life {
    /// One of its workers, over its own connection.
    fn run<W: Worker>(&self, worker: W) -> Ending {
        let concurrency = if W::CONCURRENCY == 1 { 1 } else { self.process.world.plan.concurrency };
        let options = RunOptions {
            concurrency: concurrency.into(),
            prefetch: concurrency * 2,
            give_up_after: Duration::from_secs(60),
            ..RunOptions::default()
        };
        let worker = Arc::new(Shaken { inner: worker, process: Arc::clone(&self.process) });
        run(worker, Arc::new(SimulatedBroker(Arc::clone(&self.process))), options, self.stop.clone()).boxed()
    }
}

/// A worker whose process may die before and after its handler, and whose handler may panic.
struct Shaken<W> {
    inner: W,
    process: Arc<Process>,
}

impl<W: Worker> Worker for Shaken<W> {
    const NAME: &'static str = W::NAME;
    type In = W::In;
    const CONCURRENCY: u16 = W::CONCURRENCY;
    const PREFETCH: u16 = W::PREFETCH;

    async fn handle(&self, envelope: Envelope<Self::In>) -> Result<Outputs, Failure> {
        let what = envelope.properties.message_id.clone().unwrap_or_default();
        self.process.step(Point::BeforeHandle, &what).await;
        self.process.see_claim(None);
        // An event has no further attempt: it would become a dead letter of a scorer, which no promise covers.
        if !what.ends_with("/model-promoted") && self.process.happens(Fault::Panic) {
            self.process.tell(format_args!("✗ Panic {what}"));
            std::panic::panic_any(format!("{SIMULATED_PANIC} {what}"));
        }
        let handled = self.inner.handle(envelope).await;
        self.process.step(Point::AfterHandle, &what).await;
        handled
    }

    async fn connected(&self) -> Result<(), Failure> {
        self.inner.connected().await
    }

    async fn tend(&self) -> Result<(), Failure> {
        self.inner.tend().await
    }

    fn answer_undecodable(&self, properties: &Properties, why: &Undecodable) -> Option<Outgoing> {
        self.inner.answer_undecodable(properties, why)
    }

    fn answer_failure(&self, properties: &Properties, failure: &Failure) -> Option<Outgoing> {
        self.inner.answer_failure(properties, failure)
    }
}

/// The broker goes away and returns, or accepts no publishes for some time.
async fn disturb_broker(world: Arc<World>) {
    while !world.is_calm() {
        tokio::time::sleep(world.moment(Duration::from_secs(30))).await;
        for (fault, is) in [(Fault::BrokerRestart, BrokerIs::Down), (Fault::Blocked, BrokerIs::Blocked)] {
            if world.happens(fault, "broker") {
                world.set_broker(is);
                tokio::time::sleep(world.moment(Duration::from_secs(120))).await;
                world.set_broker(BrokerIs::Up);
            }
        }
    }
}
