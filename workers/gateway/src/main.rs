//! Runs the gateway as a process.

use common::topology::process::GATEWAY;
use gateway::Gateway;
use runtime::Process;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let about = "Scores, batches and models over HTTP, and the page that shows the fleet";
    let process = Process::start_documented(GATEWAY.name, about, &gateway::settings::reference());
    let gateway = Gateway::new(process.settings(), process.broker(), process.swept_store());
    let gateway = gateway.and_then(|gateway| gateway.probed(&process.settings()).watching(&process.settings()));
    let serve = |gateway: Gateway, shutdown| async {
        process.proven(&shutdown).await?;
        gateway.serve(shutdown).await
    };
    process.serve(gateway, serve).await
}
