//! The merger process: it joins the enriched chunks of a batch into one dataset.

use merger::Merger;
use runtime::{Process, Worker};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let process = Process::start(Merger::NAME, "Collects the chunks of each batch into one dataset");
    process.run(Ok(Merger::new(process.settings(), process.swept_store()))).await
}
