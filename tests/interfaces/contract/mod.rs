//! Checks the fleet's documents against the code: schemas, AsyncAPI document, compose file, the README of the
//! tests, house rules.

mod asyncapi;
mod deploy;
mod generate;
mod house;
mod models;
mod readme;
mod schemas;

use std::path::PathBuf;

/// The folder of the project.
fn project() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
