//! Counts the requests of a fleet to an S3 service: at the start of a process, per 1,000 rides, and per hour of a process that has
//! nothing to do.
//!
//! ```sh
//! WILDRYDES_TEST_S3_IMAGE=… tests/requests --rides 100000
//! ```

use clap::Parser;
use common::topology::PROCESSES;
use pipeline_tests::{
    counting::{ByProcess, Counter, Requests},
    processes::{Fleet, Input, succeed},
    rabbitmq,
    s3::s3,
};
use std::{process::ExitCode, time::Duration};

/// Counts the requests of a fleet to an S3 service.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rides of the batch
    #[arg(long, default_value_t = 100_000)]
    rides: u64,
    /// Time without work, seconds
    #[arg(long, default_value_t = 120)]
    idle: u64,
}

/// The process that submits the batch.
const SUBMITTER: &str = "wildrydes ingest";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    records::tls::install_cryptography();
    let Some(service) = s3() else { return ExitCode::FAILURE };
    let input = Input::of(arguments.rides);
    let url = service.new_url();
    let endpoint = service.variable("AWS_ENDPOINT_URL").expect("a service that is not Amazon's own");
    let counters = PROCESSES.into_iter().chain([SUBMITTER]).map(|name| (name.to_owned(), Counter::start(endpoint)));
    let counters: Vec<(String, Counter)> = counters.collect();
    let counted = || -> ByProcess { counters.iter().map(|(name, proxy)| (name.clone(), proxy.requests())).collect() };
    let broker = rabbitmq::settings();
    // A fleet of one process each, so that each has its own endpoint.
    let fleets: Vec<Fleet> = counters
        .iter()
        .map(|(name, proxy)| {
            let mut environment = service.of_fleet(&url);
            environment.push(("AWS_ENDPOINT_URL", &proxy.endpoint));
            let workers = [name.as_str()];
            let workers = if name == SUBMITTER { &[][..] } else { &workers };
            Fleet::start_on(broker.clone(), workers, 1, &input.weather, &environment)
        })
        .collect();
    for (fleet, name) in fleets.iter().zip(PROCESSES) {
        fleet.wait_for_sessions(&[name], 1);
    }
    let started = counted();
    let submitter = fleets.last().expect("the submitter's");
    succeed(submitter.wildrydes().args(["ingest", "--until", "model"]).arg(&input.rides));
    // Serving statistics and the promotion follow.
    std::thread::sleep(Duration::from_secs(15));
    let done = counted();
    std::thread::sleep(Duration::from_secs(arguments.idle));
    let idle = counted();
    print("at the start of a process", &started, &ByProcess::new(), 1.0);
    let thousands = arguments.rides as f64 / 1_000.0;
    print(&format!("per 1,000 rides of {}", arguments.rides), &done, &started, 1.0 / thousands);
    print("per hour without work", &idle, &done, 3_600.0 / arguments.idle as f64);
    ExitCode::SUCCESS
}

fn print(title: &str, after: &ByProcess, before: &ByProcess, factor: f64) {
    println!("\n{title:<28} {:>10} {:>10} {:>10}", "put, list", "get, head", "delete");
    let mut total = [0.0; 3];
    for (name, after) in after {
        let Requests { writes, reads, deletes } = *after - before.get(name).copied().unwrap_or_default();
        let row = [writes, reads, deletes].map(|count| count as f64 * factor);
        line(name, row);
        total = std::array::from_fn(|at| total[at] + row[at]);
    }
    line("together", total);
}

fn line(name: &str, [writes, reads, deletes]: [f64; 3]) {
    println!("{name:<28} {writes:>10.2} {reads:>10.2} {deletes:>10.2}");
}
