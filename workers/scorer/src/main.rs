//! Runs the scorer as a process.

use runtime::Process;
use scorer::Scorer;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let process = Process::start("scorer", "Answers score requests with the champion model");
    process.run(Ok(Scorer::new(process.settings(), process.store()))).await
}
