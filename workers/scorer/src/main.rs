//! Runs the scorer as a process.

use runtime::{Process, Worker};
use scorer::Scorer;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let process = Process::start(Scorer::NAME, "Answers score requests with the champion model");
    process.run(Ok(Scorer::new(process.settings(), process.store()))).await
}
