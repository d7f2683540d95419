//! A batch on its way through a fleet of processes while something goes wrong, and what must be true afterwards.

use crate::processes::{Fleet, Input, SOON, dataset_sha256, told};
use common::topology::PROCESSES;
use runtime::config::BrokerSettings;
use serde_json::Value;
use std::{
    ffi::OsStr,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// How large, and how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rides of the batch.
    pub rides: u64,
    /// Rides a message: the smaller, the longer the batch is on its way.
    pub chunk_size: u32,
    /// How long what goes away stays away.
    pub away: Duration,
    /// How often what can be repeated within a batch is repeated.
    pub times: usize,
    /// How long to wait for anything before it counts as failed.
    pub patience: Duration,
}

impl Plan {
    /// Some ten seconds on two cores.
    pub fn short() -> Self {
        Self { rides: 20_000, chunk_size: 20, away: Duration::from_secs(5), times: 2, patience: SOON }
    }

    /// How many chunks the batch makes, one more or less for rejected rides.
    pub fn chunks(&self) -> usize {
        usize::try_from(self.rides / u64::from(self.chunk_size)).expect("a count")
    }
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Observed {
    /// How often the fault struck while the batch was on its way.
    pub times: usize,
    /// From handing in to the dataset.
    pub took: Duration,
    /// Deliveries that the broker made again.
    pub redelivered: usize,
    /// What else there is to say.
    pub notes: String,
}

/// A batch that was handed in.
pub struct Disturbed {
    /// Its fleet, one process of each worker.
    pub fleet: Fleet,
    /// The rides and their weather.
    pub input: Input,
    /// Its id.
    pub batch_id: String,
    plan: Plan,
    undisturbed: Value,
    started: Instant,
    struck: usize,
}

impl Disturbed {
    /// Starts a fleet and hands a batch in.
    pub fn begin(plan: &Plan, broker: BrokerSettings) -> Self {
        let input = Input::of(plan.rides);
        let weather = input.weather.clone();
        Self::begin_with(plan, broker, input, &[], weather.as_os_str(), &[])
    }

    /// The same, without some of the workers, with weather from elsewhere, and with environment variables.
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
        let environment = [&[("WILDRYDES__SPLITTER__CHUNK_SIZE", chunk_size.as_str())], environment].concat();
        let patient = BrokerSettings {
            give_up_after_ms: u64::try_from(plan.patience.as_millis()).expect("milliseconds"),
            ..broker
        };
        let mut fleet = Fleet::start_on(patient, &workers, 1, weather, &environment);
        fleet.patience = plan.patience;
        let started = Instant::now();
        let submitted = told(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides));
        let batch_id = submitted["batch_id"].as_str().expect("a batch id").to_owned();
        Self { fleet, input, batch_id, plan: plan.clone(), undisturbed, started, struck: 0 }
    }

    /// Waits until the merger has so much of the batch, from 0 to 1.
    pub fn until(&self, share: f64) {
        let chunks = (self.plan.chunks() as f64 * share) as usize;
        let there = || self.fleet.staged_chunks(&self.batch_id) >= chunks.max(1) || self.is_ready();
        self.fleet.wait_for("progress", |_| there());
    }

    /// Whether the dataset is complete.
    pub fn is_ready(&self) -> bool {
        self.fleet.is_ready(&self.batch_id)
    }

    /// To be called once the fault has struck: the batch must still have been on its way.
    pub fn struck(&mut self) {
        assert!(!self.is_ready(), "the fault came too late: the dataset was complete");
        self.struck += 1;
    }

    /// What the undisturbed run told.
    pub fn undisturbed(&self) -> &Value {
        &self.undisturbed
    }

    /// Waits for the dataset; how long it took from the beginning.
    pub fn await_dataset(&self) -> Duration {
        self.fleet.wait_for("the dataset", |_| self.is_ready());
        self.started.elapsed()
    }

    /// Waits until these workers have nothing to do: nothing ready in their queues, and nothing done for a while.
    pub async fn settled(&self, workers: &[&str]) {
        let done = || workers.iter().map(|name| self.fleet.done(name)).sum::<usize>();
        let (mut before, mut quiet) = (done(), 0);
        let deadline = Instant::now() + self.plan.patience;
        while quiet < 5 {
            assert!(Instant::now() < deadline, "{workers:?} should come to rest\n{}", self.fleet.tail());
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut ready = 0;
            for name in workers {
                ready += self.fleet.depth(name).await.messages;
            }
            let now = done();
            quiet = if ready == 0 && now == before { quiet + 1 } else { 0 };
            before = now;
        }
    }

    /// Hands the batch in by a process in the background, which follows it to the dataset.
    pub fn ingest_in_background(&self) -> Child {
        let mut ingest = self.fleet.wildrydes();
        ingest.arg("ingest").arg(&self.input.rides).arg("--json");
        ingest.stdin(Stdio::null()).stdout(Stdio::piped());
        ingest.stderr(Stdio::piped()).spawn().expect("the command starts")
    }

    /// The end: dataset and model are those of the undisturbed run, also after publishing the batch once more; every
    /// queue, rung and dead-letter queue is empty.
    pub async fn end(self, notes: impl Into<String>) -> Observed {
        let took = self.await_dataset();
        let again = told(self.fleet.wildrydes().arg("ingest").arg(&self.input.rides));
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
