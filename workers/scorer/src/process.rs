//! The scorer as a process.

use crate::Scorer;
use runtime::{Process, Worker};
use std::process::ExitCode;

/// Runs it until a signal, as arguments and configuration say.
pub async fn run() -> ExitCode {
    let process = Process::start(Scorer::NAME, "Answers score requests with the champion model");
    process.run(Ok(Scorer::new(process.settings(), process.store()))).await
}
