//! The plan of a run, drawn from the seed before the run.

use super::{weather::EDITIONS, world::Fault};
use common::document::Promotion;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, time::Duration};

/// Number of inputs. Seeds share them, so that the undisturbed run of each is needed once.
pub const INPUTS: u64 = 24;

/// The parameters of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Number of the input.
    pub input: u64,
    /// Processes of each worker.
    pub processes: BTreeMap<&'static str, usize>,
    /// Messages that a process handles concurrently.
    pub concurrency: u16,
    /// Rides per chunk.
    pub chunk_size: u32,
    /// Capacity of a queue before publishers wait, bytes.
    pub queue_bytes_max: usize,
    /// Maximum latency of messages, confirms and the store.
    pub latency_max: Duration,
    /// Whether every second process is of a newer version, which writes additional fields.
    pub newer_versions: bool,
    /// Probability of each fault at each occasion.
    pub rates: BTreeMap<Fault, f64>,
    /// Time for which the publisher repeats.
    pub busy: Duration,
    /// How often the batches are joined again, each time with a new edition of the weather; the last one may change nothing.
    pub refreshes: u64,
}

impl Plan {
    /// The promotion rule: usually every new model is promoted, so that the champion does not depend on the order of arrival;
    /// in every fourth run the comparison decides, and only the models themselves are independent of it.
    pub fn promotion(&self) -> Promotion {
        if self.seed % 4 == 3 { Promotion::ByRule } else { Promotion::Always }
    }

    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x5eed_0fa9);
        let mut processes = BTreeMap::new();
        for worker in common::topology::PROCESSES {
            processes.insert(worker, random.random_range(1..=3));
        }
        let mut rates = BTreeMap::new();
        for fault in Fault::ALL {
            // A fault may be absent in some runs and frequent in others.
            if random.random_bool(0.6) {
                rates.insert(fault, fault.likely() * random.random_range(0.2..3.0));
            }
        }
        Self {
            seed,
            input: seed % INPUTS,
            processes,
            concurrency: random.random_range(1..=6),
            chunk_size: [1, 3, 7, 20, 1000][random.random_range(0..5)],
            queue_bytes_max: [1_000, 8_000, 16 * 1024 * 1024][random.random_range(0..3)],
            latency_max: Duration::from_millis([2, 30, 400][random.random_range(0..3)]),
            newer_versions: random.random_bool(0.4),
            rates,
            busy: Duration::from_secs([2, 60, 1_800][random.random_range(0..3)]),
            refreshes: refreshes_of(seed % INPUTS),
        }
    }

    /// The plan of a run without any fault.
    pub fn undisturbed(input: u64) -> Self {
        Self {
            seed: input,
            input,
            processes: common::topology::PROCESSES.into_iter().map(|worker| (worker, 1)).collect(),
            concurrency: 1,
            chunk_size: 1000,
            queue_bytes_max: 16 * 1024 * 1024,
            latency_max: Duration::from_millis(1),
            newer_versions: false,
            rates: BTreeMap::new(),
            busy: Duration::from_secs(1),
            refreshes: refreshes_of(input),
        }
    }
}

/// In a quarter of the inputs no batch is joined again.
fn refreshes_of(input: u64) -> u64 {
    input % (EDITIONS + 2)
}
