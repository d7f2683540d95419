//! The merger as a process.

use crate::Merger;
use runtime::{Process, Worker};
use std::process::ExitCode;

/// Runs it until a signal, as arguments and configuration say.
pub async fn run() -> ExitCode {
    let process = Process::start(Merger::NAME, "Collects the chunks of each batch into one dataset");
    process.run(Ok(Merger::new(process.settings(), process.swept_store()))).await
}
