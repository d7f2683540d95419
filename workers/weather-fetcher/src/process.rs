//! The weather-fetcher as a process, with both of its workers.

use crate::WeatherFetcher;
use runtime::{Process, Worker};
use std::process::ExitCode;

/// Runs it until a signal, as arguments and configuration say.
pub async fn run() -> ExitCode {
    let process = Process::start(
        WeatherFetcher::NAME,
        "Joins every ride with NOAA's daily weather at the nearest useful station",
    );
    let fetcher = WeatherFetcher::new(process.settings(), process.store());
    process.run_both(fetcher.map(|fetcher| (fetcher.lookup(), fetcher))).await
}
