//! The trainer as a process: datasets in, a model out.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    trainer::process::run().await
}
