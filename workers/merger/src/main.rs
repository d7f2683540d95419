//! The merger process: it joins the enriched chunks of a batch into one dataset.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    merger::process::run().await
}
