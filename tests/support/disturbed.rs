//! A batch in progress in a fleet of processes during a fault, and the checks afterwards.

use crate::{
    processes::{Fleet, Input, dataset_sha256, json_output},
    service::Service,
    wait::SOON,
};
use common::topology::PROCESSES;
use runtime::config::BrokerSettings;
use serde_json::Value;
use std::{
    ffi::OsStr,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// Sizes and durations of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rides of the batch.
    pub rides: u64,
    /// Rides per message: the smaller, the longer the batch is in progress.
    pub chunk_size: u32,
    /// Duration of an outage.
    pub away: Duration,
    /// Number of times that a repeatable fault occurs within a batch.
    pub times: usize,
    /// Timeout of every wait.
    pub patience: Duration,
    /// The service that has the fleet's store; `None`: the store is a folder.
    pub service: Option<&'static Service>,
}

impl Plan {
    /// A run of some ten seconds on two cores.
    pub fn short() -> Self {
        Self { rides: 20_000, chunk_size: 20, away: Duration::from_secs(5), times: 2, patience: SOON, service: None }
    }

    /// Number of chunks of the batch, plus or minus one for rejected rides.
    pub fn chunks(&self) -> usize {
        usize::try_from(self.rides / u64::from(self.chunk_size)).expect("a count")
    }
}

/// Observations of a run.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Number of faults while the batch was in progress.
    pub times: usize,
    /// Time from the submission to the dataset.
    pub took: Duration,
    /// Redeliveries by the broker.
    pub redelivered: usize,
    /// Other observations, as text.
    pub notes: String,
}

/// A submitted batch.
pub struct Disturbed {
    /// The fleet, one process of each worker.
    pub fleet: Fleet,
    /// The rides and their weather.
    pub input: Input,
    /// The batch's id.
    pub batch_id: String,
    plan: Plan,
    undisturbed: Value,
    started: Instant,
    struck: usize,
}

impl Disturbed {
    /// Starts a fleet and submits a batch.
    pub fn begin(plan: &Plan, broker: BrokerSettings) -> Self {
        let input = Input::of(plan.rides);
        let weather = input.weather.clone();
        Self::begin_with(plan, broker, input, &[], weather.as_os_str(), &[])
    }

    /// The same, without some of the workers, with another weather source, and with environment variables.
    pub fn begin_with(
        plan: &Plan,
        broker: BrokerSettings,
        input: Input,
        absent: &[&str],
        weather: &OsStr,
        environment: &[(&str, &str)],
    ) -> Self {
        let undisturbed = input.run(&[]);
        let workers: Vec<&str> = PROCESSES.into_iter().filter(|name| !absent.contains(name)).collect();
        let chunk_size = plan.chunk_size.to_string();
        let chunks = [("WILDRYDES__SPLITTER__CHUNK_SIZE", chunk_size.as_str())];
        let url = plan.service.map(Service::new_url).unwrap_or_default();
        let store = plan.service.map(|service| service.of_fleet(&url)).unwrap_or_default();
        let environment = [&chunks, &store[..], environment].concat();
        let patient = BrokerSettings {
            give_up_after_ms: u64::try_from(plan.patience.as_millis()).expect("milliseconds"),
            ..broker
        };
        let mut fleet = Fleet::start_on(patient, &workers, 1, weather, &environment);
        fleet.patience = plan.patience;
        let started = Instant::now();
        let submitted = json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides));
        let batch_id = submitted["batch_id"].as_str().expect("a batch id").to_owned();
        Self { fleet, input, batch_id, plan: plan.clone(), undisturbed, started, struck: 0 }
    }

    /// Waits until the merger has this share of the batch's chunks, from 0 to 1.
    pub fn until(&self, share: f64) {
        let chunks = (self.plan.chunks() as f64 * share) as usize;
        let there = || self.fleet.staged_chunks(&self.batch_id) >= chunks.max(1) || self.is_ready();
        self.fleet.wait_for("progress", |_| there());
    }

    /// Returns whether the dataset is complete.
    pub fn is_ready(&self) -> bool {
        self.fleet.is_ready(&self.batch_id)
    }

    /// Counts a fault. Panics if the batch is complete already.
    pub fn count_fault(&mut self) {
        assert!(!self.is_ready(), "the fault came too late: the dataset was complete");
        self.struck += 1;
    }

    /// Report of the undisturbed run.
    pub fn undisturbed(&self) -> &Value {
        &self.undisturbed
    }

    /// Waits for the dataset. Returns the time since the submission.
    pub fn await_dataset(&self) -> Duration {
        self.fleet.wait_for("the dataset", |_| self.is_ready());
        self.started.elapsed()
    }

    /// Waits until these workers are idle: nothing ready in their queues, and nothing handled for some time.
    pub async fn settled(&self, workers: &[&str]) {
        const QUIET: Duration = Duration::from_secs(1);
        let (mut before, mut since) = (None, Instant::now());
        self.fleet
            .until(&format!("{workers:?} to be idle"), async || {
                let mut ready = 0;
                for name in workers {
                    ready += self.fleet.depth(name).await.messages;
                }
                let done: usize = workers.iter().map(|name| self.fleet.done(name)).sum();
                if ready > 0 || before.replace(done) != Some(done) {
                    since = Instant::now();
                }
                (since.elapsed() >= QUIET, (ready, done))
            })
            .await;
    }

    /// Submits the batch by a background process, which follows it to the dataset.
    pub fn ingest_in_background(&self) -> Child {
        let mut ingest = self.fleet.wildrydes();
        ingest.arg("ingest").arg(&self.input.rides).arg("--json");
        ingest.stdin(Stdio::null()).stdout(Stdio::piped());
        ingest.stderr(Stdio::piped()).spawn().expect("the command starts")
    }

    /// Checks that dataset and model are those of the undisturbed run, also after the batch is published once more, and that
    /// every queue, retry queue and dead-letter queue is empty.
    pub async fn end(self, notes: impl Into<String>) -> Observed {
        let took = self.await_dataset();
        let again = json_output(self.fleet.wildrydes().arg("ingest").arg(&self.input.rides));
        assert_eq!(dataset_sha256(&again), dataset_sha256(&self.undisturbed));
        assert_eq!(again["batches"][0]["manifest"], self.undisturbed["batches"][0]["manifest"]);
        assert_eq!(self.fleet.champion()["model_id"], self.undisturbed["model"]["model_id"]);
        self.fleet.wait_for("an empty staging area", |_| self.fleet.staged_chunks(&self.batch_id) == 0);
        let redelivered = self.fleet.redelivered();
        let (fleet, times) = (self.fleet, self.struck);
        fleet.finish().await;
        Observed { times, took, redelivered, notes: notes.into() }
    }
}
