//! The weather-fetcher process: it enriches ride chunks and answers weather requests.

use runtime::{Process, Worker};
use std::process::ExitCode;
use weather_fetcher::WeatherFetcher;

#[tokio::main]
async fn main() -> ExitCode {
    let process = Process::start(
        WeatherFetcher::NAME,
        "Joins every ride with NOAA's daily weather at the nearest useful station",
    );
    let fetcher = WeatherFetcher::new(process.settings(), process.store());
    process.run_both(fetcher.map(|fetcher| (fetcher.lookup(), fetcher))).await
}
