//! Tests of `wildrydes dead`.

use super::{connected, ends_with, letter, listed, listed_soon, publish};
use bytes::Bytes;
use common::{
    envelope::Properties,
    message::{BatchContent, RideBatch},
    reading::Reading,
    topology::{PROCESSES, dead_queue, queue},
};
use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions},
    types::{AMQPValue, DecimalValue, FieldTable},
};
use pipeline_tests::{
    processes::{Fleet, Input, json_output, output, succeed},
    wait,
};
use serde_json::Value;
use std::{path::Path, process::Stdio};

/// A batch whose object is missing is found, read and exported, and once the object exists replayed: its dataset equals that of
/// an undisturbed run. A second replay finds nothing.
#[tokio::test]
async fn a_dead_letter_is_found_read_and_replayed_after_the_repair() {
    let input = Input::of(1_000);
    let expected = input.run(&[])["batches"][0]["manifest"].clone();
    let sha256 = expected["sha256"].as_str().unwrap().to_owned();
    let batch_id = &sha256[..16];
    let fleet = Fleet::start(1, &input.weather);
    let content = BatchContent::Reference { object: "raw/late.json".to_owned(), sha256: sha256.clone() };
    publish(&fleet, &RideBatch { batch_id: None, source: None, reading: Reading::default(), refresh: None, content })
        .await;

    let letter = listed_soon(&fleet, 1).remove(0);
    let id = letter["id"].as_str().unwrap();
    for (field, value) in [
        ("queue", queue::SPLITTER),
        ("reason", "object_missing"),
        ("batch_id", batch_id),
        ("type", "ride-batch.v1"),
        ("exchange", "ingest"),
        ("routing_key", "ride-batch.v1"),
    ] {
        assert_eq!(letter[field], value, "{letter}");
    }
    for (arguments, letters) in [
        (&["--queue", "splitter", "--reason", "object_missing", "--batch", batch_id][..], 1),
        (&["--newer-than", "1h", id][..], 1),
        (&["--older-than", "1h"][..], 0),
        (&["--queue", "merger"][..], 0),
        (&["--reason", "object_changed"][..], 0),
        (&["--batch", "another"][..], 0),
    ] {
        // A dead letter that a command read returns to the queue a moment after the command ended.
        let is_listed = |_: &Path| listed(&fleet, arguments).len() == letters;
        fleet.wait_for(&format!("{letters} letters with {arguments:?}"), is_listed);
    }
    let table = succeed(fleet.wildrydes().args(["dead", "list"]));
    assert!(table.contains(id) && table.contains("there is no object raw/late.json"), "{table}");
    let summary = json_output(fleet.wildrydes().args(["dead", "list", "--summary"]));
    assert_eq!((&summary[0]["queue"], &summary[0]["letters"]), (&letter["queue"], &Value::from(1)));
    let text = succeed(fleet.wildrydes().args(["dead", "show", id]));
    for part in
        ["object_missing", "ingest", "ride-batch.v1", "attempt 1", "\"object\": \"raw/late.json\"", "traceparent"]
    {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    let file = input.folder().join("dead.ndjson");
    succeed(fleet.wildrydes().args(["dead", "export", "--file"]).arg(&file));
    let exported: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let piped: Value = serde_json::from_str(&succeed(fleet.wildrydes().args(["dead", "export"]))).unwrap();
    assert_eq!(exported, piped);
    assert_eq!((&exported["id"], &exported["properties"]["headers"]["x-reason"]), (&letter["id"], &letter["reason"]));

    let dry = succeed(fleet.wildrydes().args(["dead", "replay", id, "--dry-run"]));
    assert!(dry.contains("1 would be replayed"), "{dry}");
    let which = ends_with(fleet.wildrydes().args(["dead", "replay"]), 2);
    assert!(which.contains("--all"), "{which}");
    assert_eq!(listed(&fleet, &[]).len(), 1, "nothing of all that took it away");

    std::fs::create_dir_all(fleet.store().join("raw")).unwrap();
    std::fs::copy(&input.rides, fleet.store().join("raw/late.json")).unwrap();
    let replayed = succeed(fleet.wildrydes().args(["dead", "replay", id]));
    assert!(replayed.contains("1 replayed: 1 of splitter"), "{replayed}");
    assert_eq!(fleet.manifest(batch_id), expected);
    let again = ends_with(fleet.wildrydes().args(["dead", "replay", id]), 1);
    assert!(again.contains("no dead letter"), "{again}");
    fleet.champion();
    fleet.finish().await;
}

/// After `kill -9` of a replay, the same command publishes every remaining dead letter, at most the one in hand twice, and
/// every batch has its dataset once.
#[tokio::test]
async fn a_killed_replay_continues_and_duplicates_nothing() {
    const LETTERS: u64 = 20;
    let input = Input::of(10);
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let mut replay = fleet.wildrydes();
    let connection = connected(&fleet).await;
    let publisher = connection.publisher().await.unwrap();
    let ride = r#"{"name":"Twilight","statustime":"2018-04-25 17:03:05","latitude":40.7,"longitude":-74.0,"distance":9,"healthpoints":200,"magicpoints":200,"fieldservice":1}"#;
    for at in 0..LETTERS {
        let body = format!("{{\"batch_id\":\"killed-{at}\",\"rides\":[{ride}]}}");
        publisher.publish(letter(&at.to_string(), "attempts_exhausted", body)).await.unwrap();
    }
    let dead = dead_queue(queue::SPLITTER);
    let depth = async |name: &str| connection.depth(name).await.unwrap().messages;
    let mut child = replay
        .args(["dead", "replay", "--all", "--rate", "4"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait::until("five replayed letters", async || depth(queue::SPLITTER).await >= 5).await;
    child.kill().unwrap();
    child.wait().unwrap();
    // The messages that the killed command held return to their queue.
    wait::until("every letter", async || depth(&dead).await + depth(queue::SPLITTER).await >= LETTERS).await;
    assert!(depth(&dead).await > 0, "it was killed in the middle");
    succeed(fleet.wildrydes().args(["dead", "replay", "--all", "--rate", "1000"]));
    assert_eq!(depth(&dead).await, 0);
    let published = depth(queue::SPLITTER).await;
    assert!((LETTERS..=LETTERS + 1).contains(&published), "{published}");
    connection.close().await;
    for name in PROCESSES {
        fleet.launch(name, 0);
    }
    for at in 0..LETTERS {
        assert_eq!(fleet.manifest(&format!("killed-{at}"))["accepted"], 1);
    }
    fleet.finish().await;
}

/// A dead letter is removed only after confirmation, and its copy has every byte.
#[tokio::test]
async fn a_dropped_letter_leaves_a_copy() {
    let input = Input::of(10);
    let fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let mut drop = fleet.wildrydes();
    let connection = connected(&fleet).await;
    let publisher = connection.publisher().await.unwrap();
    publisher.publish(letter("text", "bad_json", "not JSON")).await.unwrap();
    publisher.publish(letter("binary", "bad_compression", Bytes::from_static(b"\x1f\x8b\x00"))).await.unwrap();
    publisher.publish(letter("other", "object_missing", "{}")).await.unwrap();
    connection.close().await;

    drop.args(["dead", "drop", "--reason", "bad_compression"]);
    let refused = ends_with(&mut drop, 2);
    assert!(refused.contains("1 dead letters would be dropped") && refused.contains("--yes"), "{refused}");
    let dry = succeed(fleet.wildrydes().args(["dead", "drop", "--all", "--dry-run"]));
    assert!(dry.contains("3 would be dropped"), "{dry}");
    assert_eq!(listed_soon(&fleet, 3).len(), 3);
    let report = json_output(fleet.wildrydes().args(["dead", "drop", "--reason", "bad_compression", "--yes"]));
    let id = report["ids"][0].as_str().unwrap();
    let copy = std::fs::read(fleet.store().join(format!("dead/splitter/{id}.json"))).unwrap();
    let copy: Value = serde_json::from_slice(&copy).unwrap();
    assert_eq!((&copy["body_base64"], &copy["message_id"]), (&Value::from("H4sA"), &Value::from("binary")));
    assert_eq!(copy["properties"]["headers"]["x-why"], "a test wants it");
    assert_eq!(listed_soon(&fleet, 2).len(), 2);
    let status = pipeline_tests::processes::json_output(fleet.wildrydes().arg("status"));
    let dropped = status["batches"].as_array().unwrap();
    assert!(dropped.len() == 1 && dropped[0]["state"] == "dropped", "{status}");
    assert!(dropped[0]["why"].as_str().unwrap().contains("bad_compression: a test wants it"), "{status}");
    assert_eq!(status["refused"].as_array().unwrap().len(), 2, "the letters that are left: {status}");
    succeed(fleet.wildrydes().args(["dead", "drop", "--all", "--yes"]));
    assert_eq!(listed(&fleet, &[]).len(), 0);

    // The copy is published again as it was first published.
    let dry = succeed(fleet.wildrydes().args(["dead", "restore", id, "--dry-run"]));
    assert!(dry.contains("1 would be restored") && dry.contains("\"ingest\""), "{dry}");
    let unknown = ends_with(fleet.wildrydes().args(["dead", "restore", id, "0123456789ab"]), 1);
    assert!(unknown.contains("0123456789ab") && unknown.contains("--store"), "{unknown}");
    succeed(fleet.wildrydes().args(["dead", "restore", id]));
    let connection = connected(&fleet).await;
    let mut consumer = connection.consume(queue::SPLITTER, 1).await.unwrap();
    let restored = wait::soon("the letter in its queue", consumer.next()).await.unwrap();
    assert_eq!((&restored.body[..], restored.exchange.as_str()), (&b"\x1f\x8b\x00"[..], "ingest"));
    let Properties { message_id, headers, .. } = &restored.properties;
    assert_eq!(message_id.as_deref(), Some("binary"));
    assert!(!headers.contains_key("x-why") && !headers.contains_key("x-attempt"), "{headers:?}");
    assert_eq!(connection.depth(queue::SPLITTER).await.unwrap().messages, 0, "that one alone, and once");
    restored.settle.ack().await.unwrap();
    connection.close().await;
    std::mem::drop((consumer, connection));
    fleet.finish().await;
}

/// A message that the broker dead-letters, because its worker dies on it, has its reason and origin as well, and is replayed
/// unchanged.
#[tokio::test]
async fn a_dead_letter_by_the_broker_is_read_and_replayed() {
    let input = Input::of(10);
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let mut list = fleet.wildrydes();
    let connection = connected(&fleet).await;
    let content = BatchContent::Inline { rides: Vec::new() };
    publish(
        &fleet,
        &RideBatch {
            batch_id: Some("poison".to_owned()),
            source: None,
            reading: Reading::default(),
            refresh: None,
            content,
        },
    )
    .await;
    let mut consumer = connection.consume(queue::SPLITTER, 1).await.unwrap();
    // Like a worker that dies each time.
    while connection.depth(&dead_queue(queue::SPLITTER)).await.unwrap().messages == 0 {
        if let Ok(delivery) = tokio::time::timeout(std::time::Duration::from_millis(200), consumer.next()).await {
            delivery.unwrap().settle.requeue().await.unwrap();
        }
    }
    drop(consumer);
    let letters = json_output(list.args(["dead", "list"]))["letters"].clone();
    let letter = &letters[0];
    assert_eq!((&letter["reason"], &letter["batch_id"]), (&Value::from("delivery_limit"), &Value::from("poison")));
    assert_eq!((&letter["exchange"], &letter["routing_key"]), (&Value::from("ingest"), &Value::from("ride-batch.v1")));
    assert!(letter["dead_at"].is_string(), "{letter}");
    succeed(fleet.wildrydes().args(["dead", "replay", letter["id"].as_str().unwrap()]));
    let mut consumer = connection.consume(queue::SPLITTER, 1).await.unwrap();
    let replayed = wait::soon("the letter in its queue", consumer.next()).await.unwrap();
    let left: Vec<&String> = replayed
        .properties
        .headers
        .keys()
        .filter(|name| name.starts_with("x-") && *name != "x-delivery-count")
        .collect();
    assert_eq!(left, [""; 0], "nothing of its death is left");
    connection.close().await;
    std::mem::drop((consumer, replayed, connection));
    for name in PROCESSES {
        fleet.launch(name, 0);
    }
    assert_eq!(fleet.manifest("poison")["received"], 0);
    fleet.finish().await;
}

/// The content of a hostile message cannot control the terminal.
#[tokio::test]
async fn a_dead_letter_cannot_control_the_terminal() {
    let input = Input::of(10);
    let fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let connection = connected(&fleet).await;
    let act = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}";
    let mut hostile = letter(&format!("id{act}"), &format!("reason{act}"), format!("body {act}\nnext line"));
    for name in ["x-why", "x-history", &format!("header{act}")] {
        hostile.properties.set_text(name, format!("{act}\r"));
    }
    (hostile.properties.kind, hostile.properties.reply_to) = (Some(format!("kind{act}")), Some(format!("reply{act}")));
    hostile.routing_key = queue::SPLITTER.to_owned();
    connection.publisher().await.unwrap().publish(hostile).await.unwrap();
    connection.close().await;
    let letter = listed_soon(&fleet, 1).remove(0);
    assert_eq!(letter["message_id"], format!("id{act}"), "--json tells it as it is");
    let id = letter["id"].as_str().unwrap();
    for arguments in [
        &["dead", "list"][..],
        &["dead", "list", "--summary"],
        &["dead", "show", id],
        &["dead", "show", id, "--full"],
        &["dead", "replay", id, "--dry-run"],
        &["dead", "drop", "--all", "--dry-run"],
        &["doctor"],
        &["dead", "drop", "--all", "--yes"],
    ] {
        let ended = output(fleet.wildrydes().args(arguments));
        for text in [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap()) {
            let acts = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
            assert_eq!(acts, None, "{arguments:?}: {text:?}");
        }
    }
    fleet.finish().await;
}

/// A foreign client sees the same properties before a message is dead-lettered and after its replay.
#[tokio::test]
async fn a_replay_restores_every_property_on_the_wire() {
    let input = Input::of(10);
    let mut fleet = Fleet::start_some(&[queue::SPLITTER], 1, &input.weather, &[]);
    fleet.wait_for_sessions(&[queue::SPLITTER], 1);
    let mut table = FieldTable::default();
    let floats = vec![AMQPValue::Float(1.5), AMQPValue::Double(0.1), AMQPValue::Void, AMQPValue::Boolean(true)];
    table.insert("floats".into(), AMQPValue::FieldArray(floats.into()));
    table.insert("decimal".into(), AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }));
    let mut headers = FieldTable::default();
    headers.insert("table".into(), AMQPValue::FieldTable(table));
    headers.insert("small".into(), AMQPValue::ShortShortInt(-7));
    headers.insert("long".into(), AMQPValue::LongInt(70_000));
    headers.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
    headers.insert("text".into(), AMQPValue::LongString("kept".into()));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent".into(), AMQPValue::LongString(trace.into()));
    let sent = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("identity".into())
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(5)
        .with_correlation_id("correlated".into())
        .with_reply_to("somewhere".into())
        .with_expiration("3600000".into())
        .with_message_id("foreign".into())
        .with_timestamp(1_700_000_001)
        .with_type("ride-batch.v1".into())
        .with_app_id("another/1".into());
    let raw = lapin::Connection::connect(fleet.broker.url.reveal(), Default::default()).await.unwrap();
    let channel = raw.create_channel().await.unwrap();
    let name = |plain: &str| format!("{}{plain}", fleet.broker.namespace);
    let (exchange, work) = (name("ingest"), name(queue::SPLITTER));
    let key = "ride-batch.v1";
    let body =
        br#"{"object":"raw/nowhere.json","sha256":"0000000000000000000000000000000000000000000000000000000000000000"}"#;
    let options = BasicPublishOptions::default();
    for properties in [sent.clone(), BasicProperties::default().with_delivery_mode(2)] {
        channel.basic_publish(exchange.as_str().into(), key.into(), options, body, properties).await.unwrap();
    }
    let letters = listed_soon(&fleet, 2);
    fleet.kill(queue::SPLITTER, 0);
    for message_id in [Value::from("foreign"), Value::Null] {
        let letter = letters.iter().find(|letter| letter["message_id"] == message_id).expect("both died");
        succeed(fleet.wildrydes().args(["dead", "replay", letter["id"].as_str().unwrap()]));
    }
    let replayed = async || {
        let got = channel.basic_get(work.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
        let properties = got.expect("it is back").delivery.properties;
        let mut headers = FieldTable::default();
        for (name, value) in properties.headers().as_ref().map(FieldTable::inner).into_iter().flatten() {
            // The queue's own arguments.
            if !["x-delivery-count", "x-acquired-count"].contains(&name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
        properties.with_headers(headers)
    };
    assert_eq!(replayed().await, sent);
    let bare = replayed().await;
    let names: Vec<&str> = bare.headers().as_ref().unwrap().inner().keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["traceparent"], "a message without a trace has one from its first attempt on");
    assert_eq!(
        bare.with_headers(FieldTable::default()),
        BasicProperties::default().with_delivery_mode(2).with_headers(FieldTable::default())
    );
    raw.close(200, "done".into()).await.unwrap();
    fleet.finish().await;
}
