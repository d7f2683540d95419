//! Tests of the HTTP API: `wildrydes run --serve` in one process, and the gateway of a fleet on RabbitMQ.

mod assumed;
mod batches;
mod bodies;
mod breeds;
mod deadlines;
mod foreign;
mod hostile;
mod keys;
mod limits;
mod live;
mod problems;
mod refreshes;
mod reports;
mod scores;
mod together;

use serde_json::Value;

/// The probability of an answer's first output, or of a scored ride.
#[track_caller]
fn probability(answer: &Value) -> f64 {
    let value = answer["probability"].as_f64().or_else(|| answer["outputs"][0]["data"][0].as_f64());
    value.unwrap_or_else(|| panic!("no probability in {answer}"))
}

/// Checks that two numbers are equal bit by bit.
#[track_caller]
fn same(value: f64, expected: f64, what: &str) {
    assert_eq!(value.to_bits(), expected.to_bits(), "{what}: {value} is not {expected}");
}
