//! The trainer as a process: datasets in, a model out.

use common::runtime::Process;
use trainer::Trainer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let process = Process::start("trainer", "Trains the service-request model on all complete datasets");
    process.run(Trainer::new(process.settings(), process.store())).await
}
