//! The weather-fetcher process: it enriches ride chunks and answers weather requests.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    weather_fetcher::process::run().await
}
