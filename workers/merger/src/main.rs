//! The merger as a process: chunks with weather in, one dataset out.

use common::runtime::Process;
use merger::Merger;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let process = Process::start("merger", "Collects the chunks of each batch into one dataset");
    process.run(Merger::new(process.settings(), process.store())).await
}
