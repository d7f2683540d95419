//! Tests of faults of workers.

use pipeline_tests::{
    disturbed::Plan,
    faults::kills::{Kills, random},
    rabbitmq::settings,
};
use std::time::{SystemTime, UNIX_EPOCH};

/// `kill -9` of random workers at random moments over three batches. The seed is printed; `WILDRYDES_TEST_SEED` repeats it.
#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_at_random_moments_change_no_byte() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = std::env::var("WILDRYDES_TEST_SEED").ok().map_or(now, |seed| seed.parse().unwrap());
    eprintln!("seed {seed}");
    let kills = Kills { kills: 25, batches: 3, seed, print_every: 25 };
    let plan = Plan { rides: 30_000, chunk_size: 50, ..Plan::short() };
    eprintln!("{:?}", random(&plan, settings(), &kills).await);
}
