//! Tests of `wildrydes doctor`.

use super::{connected, ends_with, letter, managed};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use pipeline_tests::{
    processes::{Fleet, Input, json_output, output, succeed},
    rabbitmq::rabbitmq,
};
use serde_json::Value;
use std::path::Path;

fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check}: {report}"))
}

/// With a running fleet everything is fine. A mistake is found and reported with its remedy, and the exit code is not 0 if
/// something is broken.
#[tokio::test]
async fn mistakes_are_found_and_reported_with_their_remedy() {
    let input = Input::of(10);
    let fleet = Fleet::start(1, &input.weather);
    fleet.wait_for("every worker to read", |_| {
        let status = json_output(fleet.wildrydes().arg("status"));
        status["queues"].as_array().unwrap().iter().all(|queue| queue["consumers"] == 1)
    });
    let well = json_output(managed(&mut fleet.wildrydes()).arg("doctor"));
    for check in ["broker", "topology", "consumers", "dead letters", "store", "paused workers", "weather"] {
        assert_eq!(finding(&well, check)["verdict"], "ok", "{check}: {well}");
    }
    let seen = rabbitmq().management.is_some();
    for check in
        ["queue arguments", "policies", "bindings", "dead-letter routes", "alarms", "permissions", "broker clock"]
    {
        assert_eq!(finding(&well, check)["verdict"], if seen { "ok" } else { "not_checked" }, "{check}: {well}");
    }
    assert_eq!(well["counts"]["broken"], 0, "{well}");
    assert!(!fleet.store().join("scratch").read_dir().is_ok_and(|mut left| left.next().is_some()), "nothing is left");

    // Without the management API each check that needs it says why it was skipped.
    let mut blind = fleet.wildrydes();
    let blind = json_output(blind.args(["doctor", "--set", "broker.management_url=http://127.0.0.1:1"]));
    let alarms = finding(&blind, "alarms");
    assert_eq!(alarms["verdict"], "not_checked");
    assert!(alarms["found"].as_str().unwrap().contains("127.0.0.1:1"), "{alarms}");

    let connection = connected(&fleet).await;
    let publisher = connection.publisher().await.unwrap();
    let mut unknown = letter("new", "unknown_version", "{}");
    unknown.properties.kind = Some("ride-batch.v9".to_owned());
    publisher.publish(unknown).await.unwrap();
    connection.close().await;
    succeed(fleet.wildrydes().args(["pause", "trainer", "--why", "a test"]));
    let warned = json_output(managed(&mut fleet.wildrydes()).arg("doctor"));
    for (check, part) in [
        ("dead letters", "1 in splitter.dead"),
        ("document versions", "ride-batch.v9"),
        ("paused workers", "trainer since"),
        ("consumers", "trainer"),
    ] {
        let finding = finding(&warned, check);
        assert_eq!(finding["verdict"], "warning", "{finding}");
        assert!(finding["found"].as_str().unwrap().contains(part), "{finding}");
        assert!(finding["remedy"].is_string(), "{finding}");
    }
    succeed(fleet.wildrydes().args(["resume", "trainer"]));
    succeed(fleet.wildrydes().args(["dead", "drop", "--all", "--yes"]));

    let mut nobody = fleet.wildrydes();
    nobody.env("WILDRYDES__BROKER__URL", "amqp://guest:hunter2@127.0.0.1:1");
    let away = ends_with(nobody.arg("doctor"), 1);
    assert!(away.contains("broken       broker") && away.contains("broker.url"), "{away}");
    assert!(!away.contains("hunter2"), "{away}");
    let nowhere = input.folder().join("no-weather");
    let mut no_weather = fleet.wildrydes();
    no_weather.env("WILDRYDES__WEATHER__SOURCE", &nowhere);
    let text = ends_with(no_weather.arg("doctor"), 1);
    assert!(text.contains("broken       weather") && text.contains("no file"), "{text}");
    fleet.finish().await;
}

/// Missing queues are named, with the command that declares them.
#[tokio::test]
async fn an_empty_broker_is_broken_and_the_remedy_repairs_it() {
    let input = Input::of(10);
    let fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let text = ends_with(managed(&mut fleet.wildrydes()).arg("doctor"), 1);
    assert!(text.contains("broken       topology") && text.contains("`wildrydes topology apply`"), "{text}");
    succeed(fleet.wildrydes().args(["topology", "apply"]));
    let mended = json_output(managed(&mut fleet.wildrydes()).arg("doctor"));
    assert_eq!(finding(&mended, "topology")["verdict"], "ok", "{mended}");
    assert_eq!(finding(&mended, "consumers")["verdict"], "warning", "nobody runs: {mended}");
    fleet.finish().await;
}

/// A missing binding, a queue with other arguments and a store that cannot be written are each found, and the remedy for the
/// binding repairs it.
#[tokio::test]
async fn a_missing_binding_other_arguments_and_an_unwritable_store_are_broken() {
    let input = Input::of(10);
    let fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let name = |plain: &str| format!("{}{plain}", fleet.broker.namespace);
    let raw = lapin::Connection::connect(fleet.broker.url.reveal(), Default::default()).await.unwrap();
    let channel = raw.create_channel().await.unwrap();
    succeed(fleet.wildrydes().args(["topology", "apply"]));
    let key = "batch-split.#";
    let (merger, work) = (name("merger"), name("work"));
    channel
        .queue_unbind(merger.as_str().into(), work.as_str().into(), key.into(), FieldTable::default())
        .await
        .unwrap();
    channel.queue_delete(name("trainer").as_str().into(), Default::default()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name("trainer").as_str().into(), durable, FieldTable::default()).await.unwrap();

    let doctor = |store: &Path| {
        let mut doctor = fleet.wildrydes();
        doctor.env("WILDRYDES__STORE__URL", store);
        let ended = output(managed(&mut doctor).args(["doctor", "--json"]));
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        serde_json::from_slice::<Value>(&ended.stdout).unwrap()
    };
    let nowhere = input.rides.join("store");
    let wrong = doctor(&nowhere);
    let verdict_on = |check: &str| {
        let finding = finding(&wrong, check);
        (finding["verdict"].clone(), format!("{} {}", finding["found"], finding["remedy"]))
    };
    assert_eq!(verdict_on("store").0, "broken", "{wrong}");
    if rabbitmq().management.is_some() {
        for (check, part) in [
            ("bindings", "batch-split.#"),
            ("bindings", "`wildrydes topology apply`"),
            ("queue arguments", "x-dead-letter-strategy"),
            ("queue arguments", "the arguments of a queue cannot be changed"),
        ] {
            let (verdict, text) = verdict_on(check);
            assert!(verdict == "broken" && text.contains(part), "{check}: {text}");
        }
    }
    channel.queue_delete(name("trainer").as_str().into(), Default::default()).await.unwrap();
    raw.close(200, "done".into()).await.unwrap();
    succeed(fleet.wildrydes().args(["topology", "apply"]));
    let mended = json_output(managed(&mut fleet.wildrydes()).arg("doctor"));
    for check in ["topology", "bindings", "queue arguments", "store"] {
        assert_ne!(finding(&mended, check)["verdict"], "broken", "{mended}");
    }
    fleet.finish().await;
}
