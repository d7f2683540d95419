//! The scorer as a process: features in, a probability out.

use common::runtime::Process;
use scorer::Scorer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let process = Process::start("scorer", "Answers score requests with the champion model");
    process.run(Scorer::new(process.settings(), process.store())).await
}
