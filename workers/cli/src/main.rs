//! The `wildrydes` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    wildrydes::run().await
}
