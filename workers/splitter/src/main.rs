//! The splitter as a process: batches in, chunks out.

use common::runtime::Process;
use splitter::Splitter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let process = Process::start("splitter", "Reads ride batches, validates every ride, publishes chunks");
    process.run(Splitter::new(process.settings(), process.store())).await
}
