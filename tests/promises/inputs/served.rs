//! Tests of inputs over HTTP and AMQP, as clients write them: those in `../shared/cases`, if present, and others.

use super::{cases, gzip, rides};
use bytes::Bytes;
use common::{
    envelope::{self, Properties},
    exchange,
    message::ScoreResponse,
    outcome::Outgoing,
    reading::Reading,
    topology::{self, queue},
};
use pipeline_tests::{
    gateway::{Api, OPEN, launch},
    processes::{Fleet, Input, succeed},
    wait,
};
use reqwest::Method;
use runtime::{
    AmqpBroker, Broker,
    broker::{Connection, Publisher},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;

/// Folders that this test runs.
pub(super) const CASES: [&str; 5] = [
    "16-content-encoding-utf-8",
    "17-gzip-request-body",
    "18-optional-fields-null",
    "19-a-ride-record-to-score",
    "23-null-units-in-a-score-request",
];

const SCORE: &str = "/v1/score";
const INFER: &str = "/v2/models/service-request/infer";
const FEATURES: &str = r#""distance":30.5,"healthpoints":"330","magicpoints":300,"tmin":97,"tmax":176,"prcp":48"#;

/// A file of a case; `None` if it does not exist.
fn file(case: &str, name: &str) -> Option<Vec<u8>> {
    fs::read(cases::folder()?.join(case).join(name)).ok()
}

/// The broker as a foreign publisher uses it.
struct Foreign {
    connection: Box<dyn Connection>,
    publisher: Box<dyn Publisher>,
}

impl Foreign {
    async fn of(fleet: &Fleet) -> Self {
        let connection = AmqpBroker::new(fleet.broker.clone()).connect("foreign").await.expect("the broker answers");
        let publisher = connection.publisher().await.expect("a publisher");
        Self { connection, publisher }
    }

    async fn publish(&self, exchange: &'static str, kind: &str, properties: Properties, body: impl Into<Bytes>) {
        let properties = Properties {
            kind: Some(kind.to_owned()),
            content_type: Some("application/json".to_owned()),
            persistent: true,
            ..properties
        };
        let (routing_key, body) = (kind.to_owned(), body.into());
        let message = Outgoing { exchange, routing_key, properties, body, mandatory: true };
        self.publisher.publish(message).await.expect("the broker takes it");
    }
}

/// A character set in `content_encoding` says nothing about compression. A declared compression that the body does not have is
/// named.
async fn content_encodings(fleet: &Fleet, foreign: &Foreign) {
    let encoding = |encoding: &str| Properties { content_encoding: Some(encoding.to_owned()), ..Properties::default() };
    let publish = async |name: &str, body: Vec<u8>| -> String {
        let id = Reading::default().batch_id(&hex::encode(Sha256::digest(&body)));
        foreign.publish(exchange::INGEST, "ride-batch.v1", encoding(name), body).await;
        id
    };
    let mut batches = Vec::new();
    for (nth, name) in ["utf-8", "UTF-8", "us-ascii", "binary", "8bit", "identity", "GZIP", "gzip, utf-8", "gzip:UTF-8"]
        .iter()
        .enumerate()
    {
        // Differs from the other bodies, so that each is its own batch.
        let text = rides(3).join("\n") + "\n".repeat(nth + 1).as_str();
        let is_packed = name.to_lowercase().contains("gzip");
        let body = if is_packed { gzip(text.as_bytes()) } else { text.into_bytes() };
        batches.push((publish(name, body).await, 3));
    }
    if let Some(body) = file(CASES[0], "rides.json") {
        batches.push((publish("utf-8", body).await, 6));
    }
    for (id, count) in batches {
        let manifest = fleet.manifest(&id);
        assert_eq!((&manifest["received"], &manifest["accepted"]), (&count.into(), &count.into()), "{manifest}");
    }
    publish("gzip", rides(2).concat().into_bytes()).await;
    let mut dead = foreign.connection.consume(&topology::dead_queue(queue::SPLITTER), 1).await.expect("its queue");
    let letter = wait::soon("a dead letter", dead.next()).await.expect("the connection lives");
    assert_eq!(letter.properties.text(envelope::REASON), Some("bad_compression"));
    let why = letter.properties.text(envelope::WHY).unwrap_or_default();
    assert!(why.contains("starts like JSON"), "{why}");
    letter.settle.ack().await.expect("taken");
}

async fn post(api: &Api, path: &str, encoding: &str, body: Vec<u8>) -> Value {
    let request = api.request(Method::POST, path).header("content-type", "application/json");
    let request = if encoding.is_empty() { request } else { request.header("content-encoding", encoding) };
    api.send(request.body(body)).await.good()
}

/// Compressed bodies, nulls for what is optional, records of telemetry.
async fn bodies(api: &Api) {
    let features = format!("{{{FEATURES}}}");
    let tensors = r#"{"id":null,"parameters":null,"outputs":null,"inputs":[{"name":"features","shape":[1,6],"datatype":"FP64",
        "parameters":null,"data":[30,330,300,97,176,48]}]}"#;
    let record = r#"{"Name":"Comet","FIELDSERVICE":null,"Distance":" 29.56","HealthPoints":291,"MAGICPOINTS":"2.92e2","TMIN":"97",
        "tmax":176,"Prcp":48}"#;
    let mut requests = vec![
        (SCORE, "gzip", gzip(features.as_bytes())),
        (SCORE, "GZIP", gzip(features.as_bytes())),
        (SCORE, "", format!("\u{feff}{features}").into_bytes()),
        (SCORE, "", format!(r#"{{"rides":[{{{FEATURES}}}]}}"#).into_bytes()),
        (SCORE, "", record.into()),
        (INFER, "", tensors.into()),
        (INFER, "gzip", gzip(tensors.as_bytes())),
    ];
    for (case, name, path, encoding) in [
        (CASES[1], "score.json.gz", SCORE, "gzip"),
        (CASES[1], "infer.json.gz", INFER, "gzip"),
        (CASES[2], "infer.json", INFER, ""),
        (CASES[3], "ride.json", SCORE, ""),
    ] {
        requests.extend(file(case, name).map(|body| (path, encoding, body)));
    }
    for (path, encoding, body) in requests {
        let about = format!("{path} {encoding} {}", String::from_utf8_lossy(&body));
        let answer = post(api, path, encoding, body).await;
        let is_scored = answer.to_string().contains("\"probability\"");
        assert!(is_scored, "{about}: {answer}");
    }
}

/// Units that are null are NOAA's.
async fn null_units(foreign: &Foreign) {
    let (reply_to, mut answers) = foreign.connection.reply_queue().await.expect("a queue for answers");
    let request = |units: &str| {
        format!(r#"{{"request_id":"r","units":{units},"rides":[{{{}}}]}}"#, FEATURES.replace("\"330\"", "330"))
    };
    let mut bodies =
        vec![request("null").into_bytes(), request(r#"{"temperature":null,"precipitation":null}"#).into_bytes()];
    bodies.extend(["request.json", "request-inner.json"].iter().filter_map(|name| file(CASES[4], name)));
    for body in bodies {
        let about = String::from_utf8_lossy(&body).into_owned();
        let properties = Properties { reply_to: Some(reply_to.clone()), ..Properties::default() };
        foreign.publish(exchange::RPC, "score-request.v1", properties, body).await;
        let answer = wait::soon("an answer", answers.next()).await.expect("the connection lives");
        let response: ScoreResponse = serde_json::from_slice(&answer.body).expect("an answer");
        let probability = serde_json::to_value(&response).expect("JSON")["scores"][0]["probability"].clone();
        assert!(probability.is_f64(), "{about}: {response:?}");
        answer.settle.ack().await.expect("taken");
    }
}

/// Requests as clients of HTTP and AMQP write them by default are served.
#[tokio::test]
async fn requests_are_read_as_clients_write_them() {
    let input = Input::of(2_000);
    let mut fleet = Fleet::start_with(1, &input.weather, &OPEN);
    succeed(fleet.wildrydes().arg("ingest").arg(&input.rides));
    let api = launch(&mut fleet, 0);
    api.until_a_model_answers().await;
    let foreign = Foreign::of(&fleet).await;
    bodies(&api).await;
    null_units(&foreign).await;
    content_encodings(&fleet, &foreign).await;
    foreign.connection.close().await;
    fleet.finish().await;
}
