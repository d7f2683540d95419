//! The scorer as a process: features in, a probability out.

use runtime::Process;
use scorer::Scorer;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let process = Process::start("scorer", "Answers score requests with the champion model");
    process.run(Ok(Scorer::new(process.settings(), process.store()))).await
}
