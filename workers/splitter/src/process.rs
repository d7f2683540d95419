//! The splitter as a process.

use crate::Splitter;
use runtime::{Process, Worker};
use std::process::ExitCode;

/// Runs it until a signal, as arguments and configuration say.
pub async fn run() -> ExitCode {
    let process = Process::start(Splitter::NAME, "Reads ride batches, validates every ride, publishes chunks");
    process.run(Ok(Splitter::new(process.settings(), process.store()))).await
}
