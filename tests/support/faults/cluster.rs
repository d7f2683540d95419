//! Faults of a cluster of three.

use crate::{
    containers::{Cluster, Container},
    disturbed::{Disturbed, Observed, Plan},
    processes::Fleet,
    proxy::Proxy,
};
use common::topology::queue;
use runtime::{AmqpBroker, Broker, config::BrokerSettings};
use std::time::Duration;

/// Kills the node that leads the work queues and alone holds the scorer's queue. The batch is completed without it, and it
/// rejoins.
pub async fn leader_killed(plan: &Plan, cluster: &Cluster) -> Observed {
    let nodes = nodes(cluster);
    let (_proxy, through) = Proxy::among(&nodes).await.expect("a free port");
    // A queue is placed on the node of the connection that declares it: here all on one node.
    let leader = declare_at(cluster, &nodes[1], queue::WEATHER_FETCHER).await;
    let mut batch = Disturbed::begin(plan, through);
    batch.until(0.2);
    leader.kill();
    batch.count_fault();
    let without = batch.await_dataset();
    leader.start_again();
    cluster.await_whole();
    let notes = complete_without(leader, without, &batch.fleet);
    batch.end(notes).await
}

/// Partitions the node that leads a queue from the other two, while its clients still reach it. The batch is completed without
/// it, and it rejoins.
pub async fn partitioned(plan: &Plan, cluster: &Cluster) -> Observed {
    let (_proxy, through) = Proxy::among(&nodes(cluster)).await.expect("a free port");
    let leader = declare_at(cluster, &through, queue::MERGER).await;
    let mut batch = Disturbed::begin(plan, through);
    batch.until(0.2);
    cluster.disconnect(leader);
    batch.count_fault();
    let without = batch.await_dataset();
    cluster.connect(leader);
    cluster.await_whole();
    let notes = complete_without(leader, without, &batch.fleet);
    batch.end(notes).await
}

/// Declares the topology over that address. Returns the node that leads one of its queues. Called before a batch is submitted,
/// since the query takes as long as a short batch.
async fn declare_at<'a>(cluster: &'a Cluster, at: &BrokerSettings, name: &str) -> &'a Container {
    let connection = AmqpBroker::new(at.clone()).connect("test").await.expect("the node answers");
    connection.declare().await.expect("the topology");
    connection.close().await;
    cluster.leader_of(&format!("{}{name}", at.namespace))
}

fn complete_without(leader: &Container, without: Duration, fleet: &Fleet) -> String {
    // The scorer's queue is not replicated: if its node was down, every worker that reconnected continued without it.
    let passed_over = fleet.logs().iter().filter(|line| line["message"] == "going on without this queue").count();
    let seconds = without.as_secs_f64();
    format!(
        "complete without {} after {seconds:.0} s; the queue it alone held passed over {passed_over} times",
        leader.host
    )
}

/// The settings of one fleet on any node.
fn nodes(cluster: &Cluster) -> Vec<BrokerSettings> {
    let first = cluster.nodes[0].settings();
    let at = |node: &Container| BrokerSettings { url: node.settings().url, ..first.clone() };
    cluster.nodes.iter().map(at).collect()
}
