//! The HTTP API as its clients meet it: `wildrydes run --serve` in one process, and the gateway of a fleet on RabbitMQ.

mod batches;
mod bodies;
mod breeds;
mod deadlines;
mod foreign;
mod hostile;
mod keys;
mod limits;
mod problems;
mod reports;
mod scores;
mod together;

use serde_json::Value;

/// Of an answer's first output, or of a scored ride: the probability.
#[track_caller]
fn probability(told: &Value) -> f64 {
    let found = told["probability"].as_f64().or_else(|| told["outputs"][0]["data"][0].as_f64());
    found.unwrap_or_else(|| panic!("no probability in {told}"))
}

/// Holds two numbers to be the same to the last bit.
#[track_caller]
fn same(found: f64, expected: f64, what: &str) {
    assert_eq!(found.to_bits(), expected.to_bits(), "{what}: {found} is not {expected}");
}
