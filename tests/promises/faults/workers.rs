//! Tests of faults of workers.

use pipeline_tests::{
    disturbed::Plan,
    faults::kills::{Kills, random},
    rabbitmq::settings,
    s3::s3,
};
use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of this run, which is printed; `WILDRYDES_TEST_SEED` repeats it.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = std::env::var("WILDRYDES_TEST_SEED").ok().map_or(now, |seed| seed.parse().unwrap());
    eprintln!("seed {seed}");
    seed
}

/// `kill -9` of random workers at random moments over three batches.
#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_at_random_moments_change_no_byte() {
    let kills = Kills { kills: 25, batches: 3, seed: seed(), print_every: 25 };
    let plan = Plan { rides: 30_000, chunk_size: 50, ..Plan::short() };
    eprintln!("{:?}", random(&plan, settings(), &kills).await);
}

/// The same with the store in a service, where a killed writer may leave an unfinished upload, and a request outlives its sender.
#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_on_a_service_change_no_byte() {
    let Some(service) = s3() else { return };
    let kills = Kills { kills: 10, batches: 2, seed: seed(), print_every: 10 };
    let plan = Plan { rides: 10_000, chunk_size: 50, service: Some(service), ..Plan::short() };
    eprintln!("{:?}", random(&plan, settings(), &kills).await);
}
