//! Tests of the operator's commands on RabbitMQ with real workers.

mod alerts;
mod dashboards;
mod dead;
mod doctor;
mod follow;
mod pause;
mod replay;

use common::{envelope::Properties, exchange::DEAD, message::Message, outcome::Outgoing, topology::queue};
use pipeline_tests::{
    processes::{Fleet, json_output, output},
    rabbitmq::rabbitmq,
};
use runtime::{AmqpBroker, Broker, Connection};
use serde_json::Value;
use std::process::Command;

/// The test's own connection to the fleet's broker.
async fn connected(fleet: &Fleet) -> Box<dyn Connection> {
    let connection = AmqpBroker::new(fleet.broker.clone()).connect("test").await.expect("the broker lives");
    connection.declare().await.expect("the topology can be declared");
    connection
}

async fn publish(fleet: &Fleet, message: &impl Message) {
    let connection = connected(fleet).await;
    let publisher = connection.publisher().await.unwrap();
    publisher.publish(Outgoing::message(message).unwrap()).await.unwrap();
    connection.close().await;
}

/// Puts a dead letter into the splitter's dead-letter queue, as the runtime does.
fn letter(id: &str, reason: &str, body: impl Into<bytes::Bytes>) -> Outgoing {
    let mut properties = Properties {
        kind: Some("ride-batch.v1".to_owned()),
        message_id: Some(id.to_owned()),
        persistent: true,
        ..Properties::default()
    };
    for (name, value) in [
        ("x-reason", reason),
        ("x-why", "a test wants it"),
        ("x-dead-at", "2026-11-24T03:12:40Z"),
        ("x-original-exchange", "ingest"),
        ("x-original-routing-key", "ride-batch.v1"),
    ] {
        properties.set_text(name, value);
    }
    Outgoing { exchange: DEAD, routing_key: queue::SPLITTER.to_owned(), properties, body: body.into(), mandatory: true }
}

/// The dead letters that `dead list` prints with these arguments.
fn listed(fleet: &Fleet, arguments: &[&str]) -> Vec<Value> {
    let report = json_output(fleet.wildrydes().args(["dead", "list"]).args(arguments));
    report["letters"].as_array().expect("letters").clone()
}

/// The same, once there are `count` of them.
fn listed_soon(fleet: &Fleet, count: usize) -> Vec<Value> {
    fleet.wait_for(&format!("{count} letters"), |_| {
        let letters = listed(fleet, &[]);
        (letters.len() == count, letters)
    })
}

/// Runs a command that must end with this code. Returns everything that it printed.
fn ends_with(command: &mut Command, code: i32) -> String {
    let ended = output(command);
    let stderr_text = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(code), "{command:?}\n{stderr_text}");
    stderr_text
}

/// Adds the management API of the tests' broker, if it has one.
fn managed(command: &mut Command) -> &mut Command {
    if let Some(url) = &rabbitmq().management {
        command.env("WILDRYDES__BROKER__MANAGEMENT_URL", url);
    }
    command
}
