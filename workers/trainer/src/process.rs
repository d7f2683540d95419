//! The trainer as a process.

use crate::Trainer;
use runtime::{Process, Worker};
use std::process::ExitCode;

/// Runs it until a signal, as arguments and configuration say.
pub async fn run() -> ExitCode {
    let process = Process::start(Trainer::NAME, "Trains the service-request model on all complete datasets");
    process.run(Ok(Trainer::new(process.settings(), process.store()))).await
}
