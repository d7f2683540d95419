//! The weather-fetcher as a process: chunks in, chunks with weather out; and who asks for weather is answered.

use common::runtime::Process;
use weather_fetcher::WeatherFetcher;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let process =
        Process::start("weather-fetcher", "Joins every ride with NOAA's daily weather at the nearest useful station");
    let fetcher = WeatherFetcher::new(process.settings(), process.store())?;
    let lookup = fetcher.lookup();
    process.run_both(fetcher, lookup).await
}
