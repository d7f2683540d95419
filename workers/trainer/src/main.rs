//! The trainer as a process: datasets in, a model out.

use runtime::{Process, Worker};
use std::process::ExitCode;
use trainer::Trainer;

#[tokio::main]
async fn main() -> ExitCode {
    let process = Process::start(Trainer::NAME, "Trains the service-request model on all complete datasets");
    process.run(Ok(Trainer::new(process.settings(), process.store()))).await
}
