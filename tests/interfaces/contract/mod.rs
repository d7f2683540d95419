//! Checks the fleet's documents against the code: schemas, AsyncAPI document, compose file, house rules.

mod asyncapi;
mod deploy;
mod generate;
mod house;
mod models;
mod schemas;

use std::path::PathBuf;

/// The folder of the project.
fn project() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
