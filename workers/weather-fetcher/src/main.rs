//! The weather-fetcher as a process: chunks in, chunks with weather out; and who asks for weather is answered.

use runtime::Process;
use std::process::ExitCode;
use weather_fetcher::WeatherFetcher;

#[tokio::main]
async fn main() -> ExitCode {
    let process =
        Process::start("weather-fetcher", "Joins every ride with NOAA's daily weather at the nearest useful station");
    let fetcher = WeatherFetcher::new(process.settings(), process.store());
    process.run_both(fetcher.map(|fetcher| (fetcher.lookup(), fetcher))).await
}
