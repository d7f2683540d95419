//! Tests of a cluster of three that loses a node.

use pipeline_tests::{containers::Cluster, disturbed::Plan, faults::cluster, rabbitmq::image};

/// The node that leads a queue is killed, then one is partitioned: both times two nodes complete the batch, and the third
/// rejoins.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_completes_a_batch_without_one_of_its_nodes() {
    let Some(three) = Cluster::from_image(&image()) else { return };
    eprintln!("{:?}", cluster::leader_killed(&Plan::short(), &three).await);
    eprintln!("{:?}", cluster::partitioned(&Plan::short(), &three).await);
}
