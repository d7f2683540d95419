//! A cluster of three loses one of its nodes.

use crate::{
    containers::{Cluster, Container},
    disturbed::{Disturbed, Observed, Plan},
    processes::Fleet,
    proxy::Proxy,
};
use common::topology::queue;
use runtime::{AmqpBroker, Broker, config::BrokerSettings};
use std::time::Duration;

/// The node that leads the work queues, and alone holds the scorer's, is killed (`kill -9`); the batch is completed without
/// it, and it comes back.
pub async fn leader_killed(plan: &Plan, cluster: &Cluster) -> Observed {
    let nodes = nodes(cluster);
    let (_proxy, through) = Proxy::among(&nodes).await.expect("a free port");
    // Whoever declares a queue has it on the node it is connected to: here all on one.
    let leader = declare_at(cluster, &nodes[1], queue::WEATHER_FETCHER).await;
    let mut batch = Disturbed::begin(plan, through);
    batch.until(0.2);
    leader.kill();
    batch.struck();
    let without = batch.await_dataset();
    leader.start_again();
    cluster.await_whole();
    let notes = complete_without(leader, without, &batch.fleet);
    batch.end(notes).await
}

/// The node that leads a queue is cut off from the other two, while its clients still reach it; the batch is completed
/// without it, and it finds back.
pub async fn partitioned(plan: &Plan, cluster: &Cluster) -> Observed {
    let (_proxy, through) = Proxy::among(&nodes(cluster)).await.expect("a free port");
    let leader = declare_at(cluster, &through, queue::MERGER).await;
    let mut batch = Disturbed::begin(plan, through);
    batch.until(0.2);
    cluster.disconnect(leader);
    batch.struck();
    let without = batch.await_dataset();
    cluster.connect(leader);
    cluster.await_whole();
    let notes = complete_without(leader, without, &batch.fleet);
    batch.end(notes).await
}

/// Declares the topology over that address; returns the node that leads one of its queues. Called before a batch is
/// handed in, since the query takes as long as a short batch.
async fn declare_at<'a>(cluster: &'a Cluster, at: &BrokerSettings, name: &str) -> &'a Container {
    let connection = AmqpBroker::new(at.clone()).connect("test").await.expect("the node answers");
    connection.declare().await.expect("the topology");
    connection.close().await;
    cluster.leader_of(&format!("{}{name}", at.namespace))
}

fn complete_without(leader: &Container, without: Duration, fleet: &Fleet) -> String {
    // The scorer's queue has no copies: where it was the one away, every worker that connected anew went on without it.
    let passed_over = fleet.logs().iter().filter(|line| line["message"] == "continuing without this queue").count();
    let seconds = without.as_secs_f64();
    format!(
        "complete without {} after {seconds:.0} s; the queue it alone held passed over {passed_over} times",
        leader.host
    )
}

/// One fleet, whatever the node.
fn nodes(cluster: &Cluster) -> Vec<BrokerSettings> {
    let first = cluster.nodes[0].settings();
    let at = |node: &Container| BrokerSettings { url: node.settings().url, ..first.clone() };
    cluster.nodes.iter().map(at).collect()
}
