//! Runs the gateway as a process.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    gateway::process::run().await
}
