//! Runs the faults of `tests/promises/faults/` at length, on deployed and on the oldest supported brokers, and prints a table:
//!
//! ```sh
//! cargo run --release -p pipeline-tests --bin chaos -- --rides 1000000 --kills 200 --seed 1
//! cargo run --release -p pipeline-tests --bin chaos -- --only 'broker' --image rabbitmq:3.10-management
//! WILDRYDES_TEST_S3_IMAGE=… cargo run --release -p pipeline-tests --bin chaos -- --only workers --s3
//! ```
//!
//! Needs Docker. Exits with 1 if any fault changed a byte, lost a message or left one behind.

use clap::Parser;
use futures::{FutureExt, future::LocalBoxFuture};
use pipeline_tests::{
    containers::{Cluster, Container, to_be_had},
    disturbed::{Disturbed, Observed, Plan},
    faults::{
        alarms, broker, cluster,
        kills::{self, Kills},
        queues, slow, wire,
    },
    rabbitmq::{image, oldest_image},
    s3::s3,
};
use std::{cell::OnceCell, fmt, panic::AssertUnwindSafe, process::ExitCode, time::Duration};

/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Runs faults on real brokers, at length.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rides during which workers are killed
    #[arg(long, default_value_t = 1_000_000)]
    rides: u64,
    /// Number of kills of random workers
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Batches that these rides are divided into; the broker dead-letters a batch after 20 failed deliveries
    #[arg(long, default_value_t = 20)]
    batches: usize,
    /// Seed that selects the moments and the victims
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rides of the batch of every other fault
    #[arg(long, default_value_t = 100_000)]
    fault_rides: u64,
    /// Duration of an outage, in seconds
    #[arg(long, default_value_t = 60)]
    away: u64,
    /// Time for which the slow consumer stands still, in seconds
    #[arg(long, default_value_t = 180)]
    stall: u64,
    /// Number of times that a fault occurs within one batch
    #[arg(long, default_value_t = 5)]
    times: usize,
    /// Keep the store of every fleet in the S3 service of the tests, and not in a folder
    #[arg(long)]
    s3: bool,
    /// Run only faults whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Broker images [default: WILDRYDES_RABBITMQ_IMAGE and WILDRYDES_RABBITMQ_OLDEST_IMAGE, or official ones]
    #[arg(long)]
    image: Vec<String>,
}

/// Runs a batch with a fault.
type Strike<'a> = Box<dyn FnOnce() -> LocalBoxFuture<'a, Observed> + 'a>;

/// A row of the table, without observations if the fault failed.
struct Row {
    name: &'static str,
    broker: String,
    seen: Option<Observed>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let images = match arguments.image.is_empty() {
        true => vec![image(), oldest_image()],
        false => arguments.image.clone(),
    };
    let mut rows = Vec::new();
    for image in images {
        if !to_be_had(&image) {
            rows.push(Row { name: "everything", broker: format!("{image}, not to be had"), seen: None });
            continue;
        }
        runtime.block_on(on(&image, &arguments, &mut rows));
    }
    print(&rows);
    match rows.iter().all(|row| row.seen.is_some()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Runs every fault on a broker of that image.
async fn on(image: &str, arguments: &Arguments, rows: &mut Vec<Row>) {
    let broker = Container::from_image(image).expect("the image is there");
    let version = broker.version();
    let plan = Plan {
        rides: arguments.fault_rides,
        chunk_size: 50,
        away: Duration::from_secs(arguments.away),
        times: arguments.times,
        patience: PATIENCE,
        service: arguments.s3.then(|| s3().expect("the tests find an S3 service")),
    };
    let stall = Plan { away: Duration::from_secs(arguments.stall), ..plan.clone() };
    // Chunks of the usual size. The run without kills is the baseline of the others.
    let many = Plan { rides: arguments.rides, chunk_size: 1_000, ..plan.clone() };
    let kills = Kills { kills: arguments.kills, batches: arguments.batches, seed: arguments.seed, print_every: 20 };
    let none = Kills { kills: 0, ..kills.clone() };
    let three = OnceCell::new();
    let cluster = || three.get_or_init(|| Cluster::from_image(image).expect("the image is there"));
    let at = || broker.settings();
    let faults: Vec<(&'static str, Strike<'_>)> = vec![
        ("workers: none killed", Box::new(|| kills::random(&many, at(), &none).boxed_local())),
        ("workers: killed at random", Box::new(|| kills::random(&many, at(), &kills).boxed_local())),
        ("one batch, undisturbed", Box::new(|| Disturbed::begin(&plan, at()).end("").boxed_local())),
        ("broker: restarted", Box::new(|| broker::restarted(&plan, &broker).boxed_local())),
        ("broker: kill -9", Box::new(|| broker::killed(&plan, &broker).boxed_local())),
        ("broker: stopped", Box::new(|| broker::stopped(&plan, &broker).boxed_local())),
        ("wire: reset", Box::new(|| wire::reset(&plan, at()).boxed_local())),
        ("wire: half-open", Box::new(|| wire::half_open(&plan, at(), None).boxed_local())),
        ("wire: 50 ms each way", Box::new(|| wire::latency(&plan, at()).boxed_local())),
        ("alarm: memory", Box::new(|| alarms::memory(&plan, &broker).boxed_local())),
        ("alarm: disk", Box::new(|| alarms::disk(&plan, &broker).boxed_local())),
        ("queue: purged", Box::new(|| queues::purged(&plan, &broker).boxed_local())),
        ("queue: deleted", Box::new(|| queues::deleted(&plan, &broker).boxed_local())),
        ("queue: dead letters full", Box::new(|| queues::dead_letters_full(&plan, &broker).boxed_local())),
        ("queue: slow consumer", Box::new(|| slow::consumer(&stall, &broker).boxed_local())),
        ("cluster: leader killed", Box::new(|| cluster::leader_killed(&plan, cluster()).boxed_local())),
        ("cluster: partitioned", Box::new(|| cluster::partitioned(&plan, cluster()).boxed_local())),
    ];
    for (name, run) in faults.into_iter().filter(|(name, _)| name.contains(&arguments.only)) {
        eprintln!("{name}, RabbitMQ {version}");
        // A failed fault has panicked with its reason; the others still run.
        let seen = AssertUnwindSafe(async { run().await }).catch_unwind().await.ok();
        let row = Row { name, broker: version.clone(), seen };
        eprintln!("{row}");
        rows.push(row);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, broker, seen } = self;
        match seen {
            Some(Observed { times, took, redelivered, notes }) => write!(
                f,
                "{name:<26} {broker:<8} {times:>5}  equal   {:>7.1} s {redelivered:>11}  {notes}",
                took.as_secs_f64()
            ),
            None => write!(f, "{name:<26} {broker:<8}     -  FAILED"),
        }
    }
}

/// Prints the table.
fn print(rows: &[Row]) {
    println!("{:<26} {:<8} {:>5}  {:<7} {:>9} {:>11}", "fault", "broker", "times", "sha256", "time", "redelivered");
    for row in rows {
        println!("{row}");
    }
}
