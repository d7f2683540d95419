//! Tests of faults of connections.

use pipeline_tests::{disturbed::Plan, faults::wire, rabbitmq::settings};

/// TCP resets of every connection at once, three times.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_change_no_byte() {
    eprintln!("{:?}", wire::reset(&Plan { times: 3, ..Plan::short() }, settings()).await);
}

/// The heartbeat detects connections that stay open and carry nothing, in either direction.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_are_detected_and_change_no_byte() {
    eprintln!(
        "{:?}",
        wire::half_open(&Plan { rides: 40_000, chunk_size: 4, ..Plan::short() }, settings(), Some(2)).await
    );
}

/// 50 ms of latency each way and a narrow bandwidth.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_changes_no_byte() {
    eprintln!("{:?}", wire::latency(&Plan { chunk_size: 100, ..Plan::short() }, settings()).await);
}
