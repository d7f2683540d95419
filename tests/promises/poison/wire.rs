//! Tests with messages that no client library sends but any peer can, written byte by byte (AMQP 0-9-1 §4.2).

use super::{Trial, message};
use common::{
    envelope, exchange,
    message::BatchSplit,
    topology::{self, queue},
};
use pipeline_tests::{
    processes::{Fleet, Input, json_output, succeed},
    wait::{self, SOON},
};
use runtime::{AmqpBroker, Broker, config::BrokerSettings};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
};

/// Flags of the properties that are sent here, one at a time (§4.2.6.1).
const HEADERS: u16 = 1 << 13;
const KIND: u16 = 1 << 5;
const MESSAGE_ID: u16 = 1 << 7;

/// A connection with one open channel in confirm mode.
pub(super) struct Raw {
    stream: TcpStream,
    namespace: String,
    /// Major version of the broker, from its server properties.
    pub(super) major: u32,
}

/// The broker's response to a publish.
#[derive(Debug, PartialEq)]
enum Answer {
    Taken,
    Refused(String),
}

impl Raw {
    pub(super) fn connect(settings: &BrokerSettings) -> Self {
        let url = settings.url.reveal();
        let (authority, _) = url.split_once("://").unwrap().1.split_once('/').unwrap();
        let (user, address) = authority.split_once('@').unwrap();
        let mut raw =
            Self { stream: TcpStream::connect(address).unwrap(), namespace: settings.namespace.clone(), major: 0 };
        raw.stream.set_read_timeout(Some(SOON)).unwrap();
        raw.stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
        let start = raw.expect(10, 10);
        let field = b"\x07versionS";
        let at = start.windows(field.len()).position(|bytes| bytes == field).unwrap() + field.len() + 4;
        let digits = start[at..].iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte));
        raw.major = digits.collect::<String>().parse().unwrap();
        let login = format!("\0{}", user.replace(':', "\0"));
        let start = [&[0, 0, 0, 0][..], &short(b"PLAIN"), &long(login.as_bytes()), &short(b"en_US")].concat();
        raw.method(0, 10, 11, &start);
        let mut tune = raw.expect(10, 30);
        tune.truncate(6);
        tune.extend([0, 0]);
        raw.method(0, 10, 31, &tune);
        raw.method(0, 10, 40, &[&short(b"/")[..], &short(b""), &[0]].concat());
        raw.expect(10, 41);
        raw.method(1, 20, 10, &short(b""));
        raw.expect(20, 11);
        raw.method(1, 85, 10, &[0]);
        raw.expect(85, 11);
        raw
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        let head = [&[kind][..], &channel.to_be_bytes(), &length.to_be_bytes()].concat();
        self.stream.write_all(&[&head[..], payload, &[0xCE]].concat()).unwrap();
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        self.frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat());
    }

    /// Class, method and arguments of the next method.
    fn next(&mut self) -> (u16, u16, Vec<u8>) {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1];
        self.stream.read_exact(&mut payload).unwrap();
        let arguments = payload[4..payload.len() - 1].to_vec();
        (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]), arguments)
    }

    fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        let (found_class, found_method, arguments) = self.next();
        assert_eq!((found_class, found_method), (class, method), "{}", String::from_utf8_lossy(&arguments));
        arguments
    }

    fn publish(&mut self, exchange: &str, routing_key: &str, flags: u16, properties: &[u8], body: &[u8]) -> Answer {
        let exchange = format!("{}{exchange}", self.namespace);
        let target = [&[0, 0][..], &short(exchange.as_bytes()), &short(routing_key.as_bytes()), &[0]].concat();
        self.method(1, 60, 40, &target);
        let size = (body.len() as u64).to_be_bytes();
        self.frame(2, 1, &[&60u16.to_be_bytes()[..], &[0, 0], &size, &flags.to_be_bytes(), properties].concat());
        for piece in body.chunks(100_000) {
            self.frame(3, 1, piece);
        }
        match self.next() {
            (60, 80, _) => Answer::Taken,
            (20, 40, why) | (10, 50, why) => Answer::Refused(String::from_utf8_lossy(&why).into_owned()),
            other => panic!("{other:?}"),
        }
    }
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A table of headers with these fields: name, and type and value as encoded (§4.2.5.5, with RabbitMQ's errata).
fn table(fields: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    long(&fields.iter().flat_map(|(name, value)| [short(name), value.clone()].concat()).collect::<Vec<_>>())
}

/// Nested arrays.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in (0..depth).rev() {
        bytes.push(b'A');
        bytes.extend(u32::try_from(level * 5).unwrap().to_be_bytes());
    }
    bytes
}

const SPLIT: &str = "batch-split.v1";

fn split(batch_id: &str) -> BatchSplit {
    BatchSplit {
        batch_id: batch_id.to_owned(),
        sha256: "0".repeat(64),
        split_id: None,
        digest: None,
        refresh: None,
        chunks: 0,
        received: 0,
        accepted: 0,
        rejected: 0,
        rejected_by_reason: Default::default(),
    }
}

/// Headers of every AMQP type, one after the other and nested: the message is read and handled.
fn every_type() -> Vec<u8> {
    let of = |kind: u8, value: &[u8]| [&[kind], value].concat();
    table(&[
        (b"t", of(b't', &[2])),
        (b"b", of(b'b', &[0xFF])),
        (b"B", of(b'B', &[0xFF])),
        (b"s", of(b's', &[0xFF, 0xFF])),
        (b"u", of(b'u', &[0xFF, 0xFF])),
        (b"I", of(b'I', &[0xFF; 4])),
        (b"i", of(b'i', &[0xFF; 4])),
        (b"l", of(b'l', &[0x80, 0, 0, 0, 0, 0, 0, 0])),
        (b"f", of(b'f', &f32::MIN_POSITIVE.to_be_bytes())),
        (b"d", of(b'd', &f64::MAX.to_be_bytes())),
        (b"D", of(b'D', &[255, 0xFF, 0xFF, 0xFF, 0xFF])),
        (b"S", of(b'S', &long(&[0, 0xFF, 0xFE]))),
        (b"T", of(b'T', &[0xFF; 8])),
        (b"x", of(b'x', &long(&[0xFF; 100]))),
        (b"V", of(b'V', &[])),
        (b"A", nested(30)),
        (b"F", of(b'F', &table(&[(b"", of(b'F', &table(&[])))]))),
        (b"x-attempt", of(b'd', &1e308f64.to_be_bytes())),
        (b"x-outages", of(b'S', &long(b"-1"))),
        (b"traceparent", of(b'x', &long(&[0xFF; 55]))),
    ])
}

/// Headers that no library writes, and a message of 17 MiB: readable ones are handled, unreadable ones are dead-lettered or
/// refused to their publisher, and a good message succeeds.
#[tokio::test]
async fn invalid_headers_affect_no_other_message() {
    let input = Input::of(1);
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &[("WILDRYDES__LOG__LEVEL", "info")]);
    let broker = AmqpBroker::new(fleet.broker.clone());
    let trial = Trial::start(&broker, fleet.store()).await;
    let settings = fleet.broker.clone();
    let publishing = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(&settings);
        let body = |batch_id: &str| serde_json::to_vec(&split(batch_id)).unwrap();
        let text = long(&vec![b'h'; 130_900]);
        let large = table(&[(b"large", [&[b'S'][..], &text].concat())]);
        let mut taken = |properties: &[u8], body: &[u8]| {
            assert_eq!(raw.publish(exchange::WORK, SPLIT, HEADERS, properties, body), Answer::Taken);
        };
        taken(&every_type(), &body("every-type"));
        taken(&large, &body("large"));
        taken(&large, b"hello");
        raw.publish(exchange::WORK, SPLIT, 0, &[], &vec![b'x'; 17 << 20])
    });
    let too_large = publishing.await.unwrap();
    trial.publisher.publish(message(&split("good"))).await.unwrap();
    fleet.launch(queue::MERGER, 0);
    for id in ["every-type", "large", "good"] {
        trial.manifest(id, id, || fleet.log_text()).await;
    }
    // Since 4.0 the broker itself refuses more than 16 MiB.
    let mut expected = BTreeMap::from([("malformed", "expected value")]);
    match too_large {
        Answer::Taken => drop(expected.insert("message_too_large", "17825792 bytes")),
        Answer::Refused(why) => assert!(why.contains("is larger than"), "{why}"),
    }
    let mut dead = trial.connection.consume(&topology::dead_queue(queue::MERGER), 1).await.unwrap();
    while !expected.is_empty() {
        let delivery = wait::soon("a dead letter", dead.next()).await.unwrap();
        let [reason, why] = [envelope::REASON, envelope::WHY].map(|name| delivery.properties.text(name).unwrap());
        let words = expected.remove(reason).unwrap_or_else(|| panic!("{reason}: {why}"));
        assert!(why.contains(words), "{why}");
        let left = delivery.properties.text(envelope::LEFT_BEHIND).unwrap_or_default();
        assert_eq!(left.contains("large"), reason == "malformed", "{left}");
        delivery.settle.ack().await.unwrap();
    }
    assert!(!fleet.log_text().contains("panicked"), "{}", fleet.log_text());
    trial.connection.close().await;
    fleet.finish().await;
}

/// Names that are not UTF-8, and arrays nested as deep as a frame allows, are more than the AMQP library can read. The worker
/// still gets the message: it is handled if possible, else dead-lettered with its reason; other messages in the same prefetch
/// window succeed, and nothing is delivered twice.
#[tokio::test]
async fn messages_that_the_amqp_library_cannot_read_are_handled() {
    let input = Input::of(1);
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &[("WILDRYDES__LOG__LEVEL", "info")]);
    let broker = AmqpBroker::new(fleet.broker.clone());
    let trial = Trial::start(&broker, fleet.store()).await;
    let settings = fleet.broker.clone();
    let publishing = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(&settings);
        let header = table(&[(&[0xFF], b"t\x01".to_vec())]);
        let deep = table(&[(b"deep", nested(26_000))]);
        let body = |batch_id: &str| serde_json::to_vec(&split(batch_id)).unwrap();
        let illegible = [
            (KIND, short(&[0xFF, 0xFE]), b"{}".to_vec()),
            (HEADERS, header, b"{}".to_vec()),
            (MESSAGE_ID, short(b"id\xC3"), body("named")),
            (HEADERS, deep, body("deep")),
        ];
        for (nth, (flags, properties, body_of_it)) in illegible.into_iter().enumerate() {
            assert_eq!(raw.publish(exchange::WORK, SPLIT, 0, &[], &body(&format!("good-{nth}"))), Answer::Taken);
            assert_eq!(raw.publish(exchange::WORK, SPLIT, flags, &properties, &body_of_it), Answer::Taken);
        }
    });
    publishing.await.unwrap();
    trial.publisher.publish(message(&split("last"))).await.unwrap();
    fleet.launch(queue::MERGER, 0);
    for id in ["good-0", "good-1", "good-2", "good-3", "named", "deep", "last"] {
        trial.manifest(id, id, || fleet.log_text()).await;
    }
    let mut dead = trial.connection.consume(&topology::dead_queue(queue::MERGER), 2).await.unwrap();
    let mut expected = BTreeMap::from([("unknown_kind", "\u{FFFD}\u{FFFD}"), ("malformed", "batch_id")]);
    while !expected.is_empty() {
        let delivery = wait::soon("a dead letter", dead.next()).await.unwrap();
        let [reason, why] = [envelope::REASON, envelope::WHY].map(|name| delivery.properties.text(name).unwrap());
        let words = expected.remove(reason).unwrap_or_else(|| panic!("{reason}: {why}"));
        assert!(why.contains(words), "{why}");
        assert_eq!(delivery.properties.headers.contains_key("\u{FFFD}"), reason == "malformed");
        delivery.settle.ack().await.unwrap();
    }
    let log = fleet.log_text();
    assert!(!log.contains("panicked") && !log.contains("no broker"), "{log}");
    trial.connection.close().await;
    fleet.finish().await;
}

/// Dead letters with such names, as a broker makes them, are listed, shown and exported with a mark, and dropped.
#[tokio::test]
async fn dead_letters_with_illegible_names_are_listed_and_dropped() {
    let input = Input::of(1);
    let fleet = Fleet::start_some(&[], 1, &input.weather, &[]);
    let connection = AmqpBroker::new(fleet.broker.clone()).connect("a test").await.unwrap();
    connection.declare().await.unwrap();
    connection.close().await;
    let settings = fleet.broker.clone();
    let publishing = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(&settings);
        let to = format!("{}{}", settings.namespace, queue::MERGER);
        let header = table(&[(&[b'h', 0xFF], [&b"S"[..], &long(&[0xFE, b'v'])].concat())]);
        for (flags, properties) in [(KIND, short(&[0xFF])), (HEADERS, header)] {
            assert_eq!(raw.publish(exchange::DEAD, &to, flags, &properties, b"{}"), Answer::Taken);
        }
        let deep = table(&[(b"deep", nested(26_000))]);
        assert_eq!(raw.publish(exchange::DEAD, &to, HEADERS, &deep, b"{}"), Answer::Taken);
    });
    publishing.await.unwrap();
    let letters = json_output(fleet.wildrydes().args(["dead", "list"]))["letters"].as_array().unwrap().clone();
    assert_eq!(letters.iter().map(|letter| letter["lossy"] == true).collect::<Vec<_>>(), [true, true, false]);
    let id = letters[1]["id"].as_str().unwrap();
    let text = succeed(fleet.wildrydes().args(["dead", "show", id]));
    assert!(text.contains("h\u{FFFD}: \u{FFFD}v") && text.contains("not UTF-8"), "{text}");
    assert_eq!(succeed(fleet.wildrydes().args(["dead", "export"])).lines().count(), 3);
    let dropped = json_output(fleet.wildrydes().args(["dead", "drop", "--all", "--yes"]));
    assert_eq!(dropped["dropped"], 3);
    assert_eq!(json_output(fleet.wildrydes().args(["dead", "list"]))["letters"].as_array().unwrap().len(), 0);
    fleet.finish().await;
}
