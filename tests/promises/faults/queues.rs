//! What befalls queues, and a stage much slower than the one before it.

use super::own_broker;
use pipeline_tests::{
    disturbed::Plan,
    faults::{queues, slow},
};

/// Purged, deleted, full: what is lost is the operator's doing and can be seen; publishing the batch again completes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_purged_or_deleted_or_full_of_dead_letters_is_seen_and_recovered_from() {
    let own = own_broker!();
    eprintln!("{:?}", queues::purged(&Plan::short(), &own).await);
    eprintln!("{:?}", queues::deleted(&Plan::short(), &own).await);
    eprintln!("{:?}", queues::dead_letters_full(&Plan::short(), &own).await);
}

/// A consumer that stands still: depth and memory stay bounded, and who hands in more is refused in plain words.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_pushes_back_to_whoever_hands_in() {
    eprintln!("{:?}", slow::consumer(&Plan::short(), &own_broker!()).await);
}
