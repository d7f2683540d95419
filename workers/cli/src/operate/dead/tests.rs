use crate::arguments::LetterFilter;
use async_trait::async_trait;
use bytes::Bytes;
use common::{
    dead_letter::{Letter, restored, whole},
    envelope::{Header, Properties},
};
use jiff::Timestamp;
use runtime::broker::{BrokerError, Delivery, Settle};
use serde_json::json;
use std::time::Duration;

struct Settled;

#[async_trait]
impl Settle for Settled {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn requeue(self: Box<Self>) -> Result<(), BrokerError> {
        Ok(())
    }
}

fn delivery(properties: Properties, body: &[u8]) -> Delivery {
    Delivery {
        properties,
        body: Bytes::copy_from_slice(body),
        exchange: "dead".into(),
        routing_key: "splitter".into(),
        redelivered: false,
        settle: Box::new(Settled),
    }
}

/// The properties of a message as published.
fn original() -> Properties {
    let mut properties = Properties {
        kind: Some("ride-batch.v1".into()),
        message_id: Some("b/ride-batch".into()),
        content_encoding: Some("gzip".into()),
        timestamp: Some(1_700_000_000),
        persistent: true,
        ..Properties::default()
    };
    properties.set_text("traceparent", "00-aa-bb-01");
    properties.set_text("x-of-the-publisher", "kept");
    properties
}

/// The properties of a letter that the runtime dead-lettered.
fn dead_lettered() -> Properties {
    let mut properties = original();
    for (name, value) in [
        ("x-reason", "object_missing"),
        ("x-why", "there is no object raw/x"),
        ("x-dead-at", "2026-11-24T03:12:40Z"),
        ("x-history", "attempt 1: there is no object raw/x"),
        ("x-original-exchange", "ingest"),
        ("x-original-routing-key", "ride-batch.v1"),
    ] {
        properties.set_text(name, value);
    }
    properties.set_count("x-attempt", 3);
    properties.set_count("x-outages", 2);
    properties.headers.insert("x-delivery-count".into(), Header::Integer(0));
    properties
}

#[test]
fn letter_of_the_runtime_has_its_reason_and_origin() {
    let body = br#"{"batch_id":"b","object":"raw/x","sha256":"00"}"#;
    let letter = Letter::read("splitter", "", &dead_lettered(), body);
    assert_eq!((letter.reason.as_str(), letter.why.as_str()), ("object_missing", "there is no object raw/x"));
    assert_eq!((letter.exchange, letter.routing_key.as_str()), ("ingest", "ride-batch.v1"));
    assert_eq!((letter.batch_id.as_deref(), letter.attempts, letter.body_bytes), (Some("b"), 3, body.len()));
    assert_eq!(letter.dead_at.map(|at| at.to_string()).as_deref(), Some("2026-11-24T03:12:40Z"));
    assert_eq!(restored(&dead_lettered()), original(), "a replay is the message as it was");
}

/// RabbitMQ 3.10 and 4.0 list the latest death first; the headers of the first death are those of a retry queue.
#[test]
fn letter_of_the_broker_is_read_from_its_deaths() {
    let deaths = json!([
        { "count": 1, "reason": "delivery_limit", "queue": "ns.splitter", "time": 1_764_000_000, "exchange": "ns.ingest",
          "routing-keys": ["ride-batch.v1"] },
        { "count": 1, "reason": "expired", "queue": "ns.splitter.retry.0", "time": 1_763_999_000, "exchange": "ns.retry",
          "routing-keys": ["ns.splitter.retry.0"] },
    ]);
    let mut properties = original();
    properties.set_text("x-death", deaths.to_string());
    properties.set_text("x-first-death-reason", "expired");
    properties.set_text("x-first-death-queue", "ns.splitter.retry.0");
    properties.set_text("x-last-death-reason", "delivery_limit");
    let letter = Letter::read("splitter", "ns.", &properties.clone(), b"[]");
    assert_eq!(letter.reason, "delivery_limit");
    assert!(letter.why.contains("21 times"), "{}", letter.why);
    assert_eq!((letter.exchange, letter.routing_key.as_str()), ("ingest", "ride-batch.v1"));
    assert_eq!(letter.dead_at.map(Timestamp::as_second), Some(1_764_000_000));
    assert_eq!(letter.batch_id.as_deref(), Some("4f53cda18c2baa0c"), "the id the splitter would give it");
    assert_eq!(restored(&properties), original());
}

#[test]
fn letter_of_unknown_origin_returns_to_its_queue() {
    let letter = Letter::read("merger", "", &Properties::default(), b"\xff\x00");
    assert_eq!((letter.exchange, letter.routing_key.as_str()), ("retry", "merger"));
    assert_eq!((letter.reason.as_str(), letter.batch_id, letter.dead_at), ("unknown", None, None));
    // An exchange that does not belong to the fleet is ignored.
    let mut forged = Properties::default();
    forged.set_text("x-original-exchange", "amq.topic");
    forged.set_text("x-original-routing-key", "x");
    assert_eq!(Letter::read("merger", "", &forged, b"").exchange, "retry");
}

#[test]
fn id_is_stable_across_deliveries_and_depends_on_every_byte() {
    let id = |queue: &str, properties: Properties, body: &[u8]| Letter::read(queue, "", &properties, body).id;
    let first = id("splitter", dead_lettered(), b"[]");
    assert_eq!(first.len(), 12);
    let mut redelivered = dead_lettered();
    redelivered.headers.insert("x-delivery-count".into(), Header::Integer(44));
    redelivered.headers.insert("x-acquired-count".into(), Header::Integer(45));
    assert_eq!(id("splitter", redelivered, b"[]"), first);
    let mut another_death = dead_lettered();
    another_death.set_text("x-dead-at", "2026-11-24T03:12:41Z");
    for other in [
        id("merger", dead_lettered(), b"[]"),
        id("splitter", another_death, b"[]"),
        id("splitter", dead_lettered(), b"[ ]"),
    ] {
        assert_ne!(other, first);
    }
}

#[test]
fn filter_matches_letters_that_meet_all_conditions() {
    let letter = Letter::read("splitter", "", &dead_lettered(), br#"{"batch_id":"b"}"#);
    let now: Timestamp = "2026-11-24T05:12:40Z".parse().unwrap();
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
    let text = |text: &str| Some(text.to_owned());
    let none = LetterFilter::default;
    for (filter, expected) in [
        (none(), true),
        (LetterFilter { reason: text("object_missing"), batch: text("b"), ..none() }, true),
        (LetterFilter { reason: text("object_missing"), batch: text("c"), ..none() }, false),
        (LetterFilter { older_than: hours(2), ..none() }, true),
        (LetterFilter { older_than: hours(3), ..none() }, false),
        (LetterFilter { newer_than: hours(3), ..none() }, true),
        (LetterFilter { newer_than: hours(1), ..none() }, false),
        (LetterFilter { older_than: hours(1), newer_than: hours(3), ..none() }, true),
    ] {
        assert_eq!(filter.matches(&letter, now), expected, "{filter:?}");
    }
    let ageless = Letter { dead_at: None, ..letter };
    assert!(
        !LetterFilter { older_than: hours(0), ..none() }.matches(&ageless, now),
        "an unknown age meets no condition"
    );
}

#[test]
fn copy_keeps_binary_bodies() {
    let delivery = delivery(dead_lettered(), b"\x1f\x8b\x00");
    let letter = Letter::read("splitter", "", &delivery.properties, &delivery.body);
    let copy = whole(&letter, &delivery.properties, &delivery.body);
    assert_eq!(copy["body_base64"], "H4sA");
    assert_eq!(copy["properties"]["headers"]["x-reason"], "object_missing");
    assert_eq!(whole(&letter, &delivery.properties, b"text")["body"], "text");
}
