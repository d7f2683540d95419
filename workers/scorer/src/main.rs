//! Runs the scorer as a process.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    scorer::process::run().await
}
