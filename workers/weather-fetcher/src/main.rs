//! The weather-fetcher as a process: chunks in, chunks with weather out.

use common::runtime::Process;
use std::process::ExitCode;
use weather_fetcher::WeatherFetcher;

#[tokio::main]
async fn main() -> ExitCode {
    let process =
        Process::start("weather-fetcher", "Joins every ride with NOAA's daily weather at the nearest useful station");
    process.run(WeatherFetcher::new(process.settings(), process.store())).await
}
