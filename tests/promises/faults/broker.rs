//! What befalls the broker.

use super::own_broker;
use pipeline_tests::{
    containers::Container,
    disturbed::Plan,
    faults::{alarms, broker},
    rabbitmq::oldest_image,
};

/// A broker that is restarted in good order, twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_restarted_changes_no_byte() {
    eprintln!("{:?}", broker::restarted(&Plan::short(), &own_broker!()).await);
}

/// `kill -9` of the broker, twice: what it confirmed it still has.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_changes_no_byte() {
    eprintln!("{:?}", broker::killed(&Plan::short(), &own_broker!()).await);
}

/// The same on the oldest broker that is supported.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_broker_that_is_killed_changes_no_byte() {
    let Some(oldest) = Container::from_image(&oldest_image()) else { return };
    eprintln!("{:?}", broker::killed(&Plan::short(), &oldest).await);
}

/// A broker stopped where it is, its connections open and silent, and let go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_for_a_while_changes_no_byte() {
    eprintln!("{:?}", broker::stopped(&Plan::short(), &own_broker!()).await);
}

/// Short of memory and then of disk: publishers wait and say so, nobody is told a success that is none, consumers go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_under_an_alarm_holds_up_publishers_and_nothing_else() {
    let own = own_broker!();
    eprintln!("{:?}", alarms::memory(&Plan::short(), &own).await);
    eprintln!("{:?}", alarms::disk(&Plan::short(), &own).await);
}
