//! Tests of faults of queues, and of a stage much slower than the one before it.

use super::own_broker;
use pipeline_tests::{
    disturbed::Plan,
    faults::{queues, slow},
};

/// A purged, a deleted and a full queue: `status` shows what the operator's action lost, and publishing the batch again
/// completes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_purged_deleted_or_full_queue_is_reported_and_recovered() {
    let own = own_broker!();
    eprintln!("{:?}", queues::purged(&Plan::short(), &own).await);
    eprintln!("{:?}", queues::deleted(&Plan::short(), &own).await);
    eprintln!("{:?}", queues::dead_letters_full(&Plan::short(), &own).await);
}

/// A consumer that stands still: queue depth and memory stay bounded, and further publishes are refused with a clear error.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_exerts_back_pressure_on_publishers() {
    eprintln!("{:?}", slow::consumer(&Plan::short(), &own_broker!()).await);
}
