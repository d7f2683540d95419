//! Tests of faults of queues, and of a stage much slower than the one before it.

use super::own_broker;
use pipeline_tests::{
    disturbed::Plan,
    faults::{queues, slow},
};

/// A purged, a deleted and a full queue: `status` shows what the operator's action lost, and publishing the batch again
/// completes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_purged_or_deleted_or_full_of_dead_letters_is_seen_and_recovered_from() {
    let own = own_broker!();
    eprintln!("{:?}", queues::purged(&Plan::short(), &own).await);
    eprintln!("{:?}", queues::deleted(&Plan::short(), &own).await);
    eprintln!("{:?}", queues::dead_letters_full(&Plan::short(), &own).await);
}

/// A consumer that stands still: queue depth and memory stay bounded, and further publishes are refused with a clear error.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_pushes_back_to_whoever_hands_in() {
    eprintln!("{:?}", slow::consumer(&Plan::short(), &own_broker!()).await);
}
