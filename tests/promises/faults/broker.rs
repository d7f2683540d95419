//! Tests of faults of the broker.

use super::own_broker;
use pipeline_tests::{
    containers::Container,
    disturbed::Plan,
    faults::{alarms, broker},
    rabbitmq::oldest_image,
};

/// An orderly restart of the broker, twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_restarted_changes_no_byte() {
    eprintln!("{:?}", broker::restarted(&Plan::short(), &own_broker!()).await);
}

/// `kill -9` of the broker, twice: it still has every confirmed message.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_changes_no_byte() {
    eprintln!("{:?}", broker::killed(&Plan::short(), &own_broker!()).await);
}

/// The same on the oldest supported broker.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_broker_that_is_killed_changes_no_byte() {
    let Some(oldest) = Container::from_image(&oldest_image()) else { return };
    eprintln!("{:?}", broker::killed(&Plan::short(), &oldest).await);
}

/// A broker that is suspended, with open and silent connections, and resumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_suspended_changes_no_byte() {
    eprintln!("{:?}", broker::stopped(&Plan::short(), &own_broker!()).await);
}

/// A memory alarm and then a disk alarm: publishers wait and say so, no publish is reported as successful before its confirm,
/// consumers continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_alarm_blocks_publishers_only() {
    let own = own_broker!();
    eprintln!("{:?}", alarms::memory(&Plan::short(), &own).await);
    eprintln!("{:?}", alarms::disk(&Plan::short(), &own).await);
}
