//! The splitter process: it splits batches into chunks.

use runtime::{Process, Worker};
use splitter::Splitter;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let process = Process::start(Splitter::NAME, "Reads ride batches, validates every ride, publishes chunks");
    process.run(Ok(Splitter::new(process.settings(), process.store()))).await
}
