//! The gateway as a process.

use crate::Gateway;
use common::topology::process::GATEWAY;
use runtime::{Process, Shutdown};
use std::process::ExitCode;

/// Runs it until a signal, as arguments and configuration say.
pub async fn run() -> ExitCode {
    let about = "Scores, batches and models over HTTP, and the page that shows the fleet";
    let process = Process::start_documented(GATEWAY.name, about, &crate::settings::reference());
    let gateway = Gateway::new(process.settings(), process.broker(), process.swept_store());
    let gateway = gateway.and_then(|gateway| gateway.probed(&process.settings()).watching(&process.settings()));
    let serve = async |gateway: Gateway, shutdown: Shutdown| {
        gateway.serve_after(process.proven(&shutdown), shutdown.clone()).await
    };
    process.serve(gateway, serve).await
}
