//! The splitter process: it splits batches into chunks.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    splitter::process::run().await
}
