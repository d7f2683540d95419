//! A sample of the mutations over HTTP and through RabbitMQ. Each has the same outcome as in one process.

use super::{super::Job, Mutation, document_of, run_document};
use bytes::Bytes;
use common::{
    envelope::{self, Properties},
    exchange,
    message::{BatchContent, RideBatch},
    outcome::Outgoing,
    topology::{self, queue},
};
use pipeline_tests::{
    gateway::{Api, Serving},
    processes::{Fleet, Input},
    wait,
};
use reqwest::{Method, Url};
use runtime::{
    AmqpBroker, Broker,
    broker::{Connection, Consumer, Publisher},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs};

/// Mutations of the sample: every seventh, so that each kind is among them.
const SAMPLE: u64 = 30;

fn sample() -> Vec<(String, Mutation)> {
    let seeds = (0..).map(|nth| 7 * nth);
    let mutations = seeds.map(|seed| {
        let (kind, mutation) = document_of(seed);
        (format!("seed {seed}, {kind}: {}, as {}", mutation.words, mutation.name), mutation)
    });
    // An empty document is refused before it is a batch.
    mutations.filter(|(_, mutation)| !mutation.bytes.is_empty()).take(SAMPLE as usize).collect()
}

/// The outcome of a batch, submitted in any way.
#[derive(Debug, PartialEq)]
enum End {
    Refused { reason: String, why: String },
    Ready { received: u64, accepted: u64, rejected_by_reason: BTreeMap<String, u64>, manifest_sha256: String },
}

impl End {
    fn refused(letter: &Value) -> Self {
        let text = |name: &str| letter[name].as_str().expect("a text").to_owned();
        Self::Refused { reason: text("reason"), why: text("why") }
    }

    fn ready(counts: &Value, manifest_sha256: &Value) -> Self {
        let count = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("no count {name}: {counts}"));
        Self::Ready {
            received: count("received"),
            accepted: count("accepted"),
            rejected_by_reason: serde_json::from_value(counts["rejected_by_reason"].clone()).expect("reasons"),
            manifest_sha256: manifest_sha256.as_str().expect("a text").to_owned(),
        }
    }

    fn in_one_process(mutation: &Mutation) -> Self {
        let outcome = run_document(mutation);
        match outcome.is_refused() {
            true => Self::refused(&outcome.json["refusals"][0]),
            false => Self::ready(outcome.manifest(), &outcome.json["batches"][0]["manifest_sha256"]),
        }
    }
}

/// The media type that matches the name of the file.
fn media_type(name: &str) -> &'static str {
    match name {
        "rides.ndjson" | "rides.jsonl" => "application/x-ndjson",
        "rides.csv" => "text/csv",
        "rides.txt" => "text/plain",
        "rides" => "application/octet-stream",
        _ => "application/json",
    }
}

fn batch_id(mutation: &Mutation) -> String {
    mutation.reading.batch_id(&hex::encode(Sha256::digest(&mutation.bytes)))
}

async fn over_http(api: &Api, mutation: &Mutation) -> End {
    let at = mutation.reading.rides_at.iter().map(|at| ("rides_at", at.to_string()));
    let map = mutation.reading.map.iter().map(|(field, source)| ("map", format!("{field}={source}")));
    let url = Url::parse_with_params("http://gateway/v1/batches", at.chain(map)).expect("a URL");
    let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    let request = api.request(Method::POST, &path);
    let request = request.header("content-type", media_type(mutation.name)).body(mutation.bytes.clone());
    let id = api.send(request).await.good()["batch_id"].as_str().expect("an id").to_owned();
    wait::until(format!("the end of {id}"), async || {
        let batch = api.get(&format!("/v1/batches/{id}")).await.good();
        match batch["state"].as_str() {
            Some("ready") => Ok(End::ready(&batch["counts"], &batch["manifest_sha256"])),
            Some("refused") => Ok(End::refused(&batch["refused"])),
            _ => Err(batch),
        }
    })
    .await
}

/// Every mutation of the sample over HTTP: the same counts, dataset and words as in one process.
#[tokio::test]
async fn a_sample_ends_the_same_over_http() {
    let job = Job::new();
    let mut input = Input::of(1);
    input.weather.clone_from(&job.weather);
    let serving = Serving::without_rides(&input, &[]).await;
    for (about, mutation) in sample() {
        assert_eq!(over_http(&serving.api, &mutation).await, End::in_one_process(&mutation), "{about}");
    }
    serving.finish().await;
}

/// The broker as a publisher uses it that also reads the dead letters.
struct Rabbit {
    connection: Box<dyn Connection>,
    publisher: Box<dyn Publisher>,
    ready: Box<dyn Consumer>,
    dead: Box<dyn Consumer>,
}

impl Rabbit {
    async fn of(fleet: &Fleet) -> Self {
        let connection = AmqpBroker::new(fleet.broker.clone()).connect("test").await.expect("the broker answers");
        connection.declare().await.expect("declared");
        let publisher = connection.publisher().await.expect("a publisher");
        let ready = connection.subscribe(exchange::EVENTS, "dataset-ready.#", 10).await.expect("events");
        let dead = connection.consume(&topology::dead_queue(queue::SPLITTER), 1).await.expect("its queue");
        Self { connection, publisher, ready, dead }
    }

    /// Publishes raw bytes if the reading is the default, else a reference.
    async fn publish(&self, fleet: &Fleet, mutation: &Mutation) {
        let message = if mutation.reading.is_default() {
            let content_type = Some(media_type(mutation.name).to_owned());
            let properties = Properties { content_type, persistent: true, ..Properties::default() };
            let body = Bytes::from(mutation.bytes.clone());
            Outgoing {
                exchange: exchange::INGEST,
                routing_key: "ride-batch.v1".to_owned(),
                properties,
                body,
                mandatory: true,
            }
        } else {
            let object = format!("raw/{}-{}", batch_id(mutation), mutation.name);
            let path = fleet.store().join(&object);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, &mutation.bytes).expect("written");
            let sha256 = hex::encode(Sha256::digest(&mutation.bytes));
            let content = BatchContent::Reference { object, sha256 };
            let reading = mutation.reading.clone();
            Outgoing::message(&RideBatch { batch_id: None, source: None, reading, refresh: None, content })
                .expect("a message")
        };
        self.publisher.publish(message).await.expect("the broker takes it");
    }

    /// The outcome of this batch. The merger may announce a dataset more than once: announcements of an earlier one are
    /// skipped.
    async fn end(&mut self, fleet: &Fleet, mutation: &Mutation) -> End {
        let id = batch_id(mutation);
        loop {
            let delivery = tokio::select! {
                delivery = wait::soon("an end", self.ready.next()) => delivery.expect("the connection lives"),
                delivery = self.dead.next() => delivery.expect("the connection lives"),
            };
            let end = match delivery.properties.text(envelope::REASON) {
                Some(reason) => {
                    let why = delivery.properties.text(envelope::WHY).unwrap_or_default().to_owned();
                    Some(End::Refused { reason: reason.to_owned(), why })
                }
                None => {
                    let ready: Value = serde_json::from_slice(&delivery.body).expect("dataset-ready.v1");
                    (ready["batch_id"] == *id).then(|| End::ready(&fleet.manifest(&id), &ready["manifest_sha256"]))
                }
            };
            delivery.settle.ack().await.expect("taken");
            if let Some(end) = end {
                return end;
            }
        }
    }
}

/// Every mutation of the sample through RabbitMQ: the same dataset or dead letter as in one process.
#[tokio::test]
async fn a_sample_ends_the_same_on_rabbitmq() {
    let job = Job::new();
    let fleet = Fleet::start(1, &job.weather);
    let mut rabbit = Rabbit::of(&fleet).await;
    for (about, mutation) in sample() {
        rabbit.publish(&fleet, &mutation).await;
        let end = rabbit.end(&fleet, &mutation).await;
        assert_eq!(end, End::in_one_process(&mutation), "{about}");
    }
    rabbit.connection.close().await;
    fleet.finish().await;
}
