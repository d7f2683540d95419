//! One suite for both brokers: the contract of `runtime::broker`, and the worker loop on top of it. One for every object store.

mod answers;
mod broker;
mod client;
mod control;
mod dead;
mod store;
mod wire;
mod worker;

use pipeline_tests::{rabbitmq, wait};
use runtime::{
    Broker, MemoryBroker,
    broker::{Consumer, Delivery},
};
use std::sync::Arc;

/// Runs one test body on the in-process broker and on RabbitMQ.
macro_rules! on_both_brokers {
    ($($(#[$attribute:meta])* $name:ident;)*) => {
        mod in_process {
            $($(#[$attribute])* #[tokio::test] async fn $name() { super::$name(crate::conformance::in_process()).await; })*
        }
        mod on_rabbitmq {
            $($(#[$attribute])* #[tokio::test] async fn $name() {
                let broker = pipeline_tests::rabbitmq::broker();
                super::$name(std::sync::Arc::new(broker.clone())).await;
                broker.remove_topology().await.unwrap();
            })*
        }
    };
}
pub(crate) use on_both_brokers;

pub(crate) fn in_process() -> Arc<dyn Broker> {
    Arc::new(MemoryBroker::new())
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    wait::soon("a delivery", consumer.next()).await.expect("the consumer should live")
}

#[test]
fn a_real_rabbitmq_is_there() {
    assert!(rabbitmq::rabbitmq().url.starts_with("amqp"));
}
