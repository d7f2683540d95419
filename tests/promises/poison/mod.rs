//! Tests that every hostile message of the corpus, among good ones, ends exactly as the corpus says, on both brokers.
//!
//! `corpus.json` the messages and their expected ends · `corpus` reads it · `wire` what only a raw connection can send ·
//! `replay` inputs that fuzzing found.

mod corpus;
mod replay;
mod wire;

use common::{
    dataset::FIRST_REVISION,
    envelope::{self, Header},
    exchange,
    features::FEATURES,
    message::{
        BatchContent, BatchSplit, EnrichedChunk, EnrichedRide, Message, RideBatch, RideChunk, ScoreRequest,
        ScoreResponse, decode,
    },
    outcome::Outgoing,
    reading::Reading,
    ride::{Ride, Weather, WeatherMissing},
    topology::{self, queue},
};
use corpus::{End, MARK, Poison, poisons};
use pipeline_tests::{
    processes::{Fleet, Input},
    wait::{self, SOON},
};
use records::{Store, layout};
use runtime::{
    AmqpBroker, Broker, MemoryBroker, Shutdown, Worker,
    broker::{Connection, Consumer, Delivery, Publisher},
    config::{BrokerSettings, RunSettings},
    process::run_options,
    worker::{RunError, run},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::JoinHandle;

/// Hostile messages per good one (or per group of good ones): at least two good ones in every prefetch window of eight.
const POISONS_A_NEIGHBOUR: usize = 3;
/// Maximum memory of a worker, in bytes: some 20 messages of 16 MiB.
const MEMORY_MAX: u64 = 400 * 1024 * 1024;

/// One run of the corpus.
struct Trial {
    connection: Box<dyn Connection>,
    publisher: Box<dyn Publisher>,
    reply_to: String,
    answers: Box<dyn Consumer>,
    rejections: Box<dyn Consumer>,
    store: PathBuf,
    neighbours: Vec<Neighbour>,
}

/// A good message and its expected result.
enum Neighbour {
    Dataset(String),
    Answer(String),
}

impl Trial {
    async fn start(broker: &dyn Broker, store: PathBuf) -> Self {
        let connection = broker.connect("poison").await.unwrap();
        connection.declare().await.unwrap();
        let publisher = connection.publisher().await.unwrap();
        let (reply_to, answers) = connection.reply_queue().await.unwrap();
        let rejections = connection.subscribe(exchange::EVENTS, "model-rejected.#", 100).await.unwrap();
        let artefact = model().to_string();
        put(&store, "models/service-request/m/model.json", artefact.as_bytes());
        put(&store, "models/service-request/champion.json", champion(&artefact).to_string().as_bytes());
        Self { connection, publisher, reply_to, answers, rejections, store, neighbours: Vec::new() }
    }

    /// Publishes these hostile messages, those of each queue among good ones.
    async fn publish(&mut self, poisons: &[&Poison], tail: impl Fn() -> String) {
        for (nth, poison) in poisons.iter().enumerate() {
            for (path, content) in &poison.objects {
                put(&self.store, path, content);
            }
            if nth % POISONS_A_NEIGHBOUR == 0 {
                self.publish_neighbour(&poison.kind).await;
            }
            self.publisher
                .publish(poison.outgoing.clone())
                .await
                .unwrap_or_else(|error| panic!("{}: {error}\n{}", poison.name, tail()));
        }
    }

    async fn publish_neighbour(&mut self, kind: &str) {
        let id = format!("good-{}-{}", kind, self.neighbours.len());
        let split = BatchSplit {
            batch_id: id.clone(),
            sha256: "0".repeat(64),
            split_id: None,
            digest: None,
            refresh: None,
            chunks: 1,
            received: 1,
            accepted: 1,
            rejected: 0,
            rejected_by_reason: BTreeMap::new(),
        };
        let (batch_id, ride) = (id.clone(), ride(&id));
        let messages = match kind {
            "ride-batch" => {
                let rides = vec![serde_json::to_value(&ride).unwrap()];
                let content = BatchContent::Inline { rides };
                vec![message(&RideBatch {
                    batch_id: Some(batch_id),
                    source: None,
                    reading: Reading::default(),
                    refresh: None,
                    content,
                })]
            }
            "ride-chunk" | "dataset-ready" => {
                vec![
                    message(&RideChunk {
                        batch_id,
                        chunk: 0,
                        split_id: None,
                        digest: None,
                        refresh: None,
                        rides: vec![ride],
                    }),
                    message(&split),
                ]
            }
            "enriched-chunk" | "batch-split" => {
                let rides = vec![EnrichedRide { ride, weather: Weather::Missing(WeatherMissing::NoStationInReach) }];
                vec![
                    message(&EnrichedChunk { batch_id, chunk: 0, split_id: None, digest: None, refresh: None, rides }),
                    message(&split),
                ]
            }
            _ => {
                let asked = json!({ "request_id": id, "rides": [
                    { "distance": 30, "healthpoints": 300, "magicpoints": 300, "tmin": 100, "tmax": 200, "prcp": 0 }
                ] });
                let mut asked = message(&serde_json::from_value::<ScoreRequest>(asked).unwrap());
                asked.properties.reply_to = Some(self.reply_to.clone());
                asked.properties.correlation_id = Some(id.clone());
                self.neighbours.push(Neighbour::Answer(id));
                self.publisher.publish(asked).await.unwrap();
                return;
            }
        };
        self.neighbours.push(Neighbour::Dataset(id));
        for message in messages {
            self.publisher.publish(message).await.unwrap();
        }
    }

    /// Waits for the end of every message, and compares it with the expected one.
    async fn ends(&mut self, poisons: &[Poison], tail: impl Fn() -> String) {
        let mut wrong = Vec::new();
        let mut datasets = 0;
        for name in queue::ALL {
            let mut expected: BTreeMap<String, &Poison> = BTreeMap::new();
            for poison in poisons.iter().filter(|poison| poison.queue == name && matches!(poison.end, End::Dead(_))) {
                let mark = poison.outgoing.properties.text(MARK).unwrap();
                assert!(expected.insert(mark.to_owned(), poison).is_none(), "{mark} stands twice in the corpus");
            }
            let mut dead = self.connection.consume(&topology::dead_queue(name), 8).await.unwrap();
            while !expected.is_empty() {
                let Ok(delivery) = tokio::time::timeout(SOON, dead.next()).await else {
                    wrong.push(format!("not among the dead letters of {name}: {:?}", expected.keys()));
                    break;
                };
                let delivery = delivery.unwrap();
                let mark = delivery.properties.text(MARK).unwrap_or("a message that is no poison").to_owned();
                match expected.remove(&mark) {
                    Some(poison) => wrong.extend(wrong_dead_letter(poison, &delivery)),
                    None => wrong
                        .push(format!("among the dead letters of {name}: {mark}, {:?}", delivery.properties.headers)),
                }
                delivery.settle.ack().await.unwrap();
            }
        }
        for poison in poisons {
            if let End::Dataset { batch_id, rejects } = &poison.end {
                datasets += 1;
                let manifest = self.manifest(batch_id, &poison.name, &tail).await;
                if manifest["rejected_by_reason"] != json!(rejects) {
                    wrong.push(format!("{}: {}, expected {rejects:?}", poison.name, manifest["rejected_by_reason"]));
                }
                let lines = self.reject_lines(batch_id);
                let output_text = lines.iter().all(|line| {
                    line["index"].is_u64() && rejects.contains_key(line["reason"].as_str().unwrap_or_default())
                });
                if lines.len() as u64 != rejects.values().sum::<u64>() || !output_text {
                    wrong.push(format!("{}: rejected {lines:?}, expected {rejects:?}", poison.name));
                }
            }
        }
        for neighbour in &self.neighbours {
            if let Neighbour::Dataset(batch_id) = neighbour {
                datasets += 1;
                let manifest = self.manifest(batch_id, batch_id, &tail).await;
                assert_eq!(manifest["accepted"], 1, "{batch_id}");
            }
        }
        wrong.extend(self.wrong_answers(poisons).await);
        // The trainer has read every dataset, despite the hostile messages in between.
        for _ in 0..datasets {
            let output_text = tokio::time::timeout(SOON, self.rejections.next()).await;
            output_text
                .unwrap_or_else(|_| panic!("the trainer should come to an end\n{}", tail()))
                .unwrap()
                .settle
                .ack()
                .await
                .unwrap();
        }
        assert!(wrong.is_empty(), "{} ends are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }

    async fn wrong_answers(&mut self, poisons: &[Poison]) -> Vec<String> {
        let mut expected: BTreeMap<String, Option<&Poison>> = BTreeMap::new();
        for neighbour in &self.neighbours {
            if let Neighbour::Answer(id) = neighbour {
                expected.insert(id.clone(), None);
            }
        }
        for poison in poisons.iter().filter(|poison| matches!(poison.end, End::Answer(_))) {
            expected.insert(poison.outgoing.properties.message_id.clone().unwrap(), Some(poison));
        }
        let mut wrong = Vec::new();
        while !expected.is_empty() {
            let Ok(delivery) = tokio::time::timeout(SOON, self.answers.next()).await else {
                wrong.push(format!("not answered: {:?}", expected.keys()));
                break;
            };
            let delivery = delivery.unwrap();
            let id = delivery.properties.correlation_id.unwrap_or_default();
            let answer: ScoreResponse = decode(&delivery.body).unwrap();
            let answer = serde_json::to_value(answer).unwrap();
            let error = if answer["error"].is_null() { &answer["scores"][0]["error"] } else { &answer["error"] };
            let (code, words) =
                (error["code"].as_str().unwrap_or("scored"), error["message"].as_str().unwrap_or_default());
            match expected.remove(&id) {
                Some(None) if code == "scored" => {}
                Some(Some(poison)) if poison.end == End::Answer(code.to_owned()) => {
                    wrong.extend(wrong_words(poison, words));
                }
                other => wrong.push(format!(
                    "{id} is answered with {error}, expected {:?}",
                    other.map(|poison| poison.map(|p| &p.end))
                )),
            }
        }
        wrong
    }

    async fn manifest(&self, batch_id: &str, name: &str, tail: impl Fn() -> String) -> Value {
        let path = self.store.join(layout::manifest(batch_id, FIRST_REVISION));
        let read = wait::within(SOON, format!("the dataset of {name} ({batch_id})"), async || std::fs::read(&path));
        let manifest = read.await.unwrap_or_else(|failure| panic!("{failure}\n{}", tail()));
        serde_json::from_slice(&manifest).unwrap()
    }

    fn reject_lines(&self, batch_id: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.store.join(layout::rejected(batch_id))).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn wrong_dead_letter(poison: &Poison, delivery: &Delivery) -> Vec<String> {
    let End::Dead(reasons) = &poison.end else { return Vec::new() };
    let properties = &delivery.properties;
    let name = format!("{} ({})", poison.name, poison.kind);
    let mut wrong = Vec::new();
    let reason = properties.text(envelope::REASON).unwrap_or_default();
    let why = properties.text(envelope::WHY).unwrap_or_default();
    if !reasons.iter().any(|expected| expected == reason) {
        wrong.push(format!("{name}: reason {reason}, expected {reasons:?}; why: {why}"));
    }
    wrong.extend(wrong_words(poison, why));
    if delivery.body != poison.outgoing.body {
        wrong.push(format!("{name}: another body"));
    }
    let original = [properties.text(envelope::ORIGINAL_EXCHANGE), properties.text(envelope::ORIGINAL_ROUTING_KEY)];
    if original != [Some(poison.outgoing.exchange), Some(poison.outgoing.routing_key.as_str())] {
        wrong.push(format!("{name}: first published to {original:?}"));
    }
    let bytes: usize =
        properties.headers.values().map(|value| if let Header::Text(text) = value { text.len() } else { 8 }).sum();
    if bytes > envelope::HEADER_BYTES_MAX || properties.text(envelope::LEFT_BEHIND) != poison.left_behind.as_deref() {
        let left = properties.text(envelope::LEFT_BEHIND);
        wrong.push(format!("{name}: {bytes} bytes of headers, left behind: {left:?}"));
    }
    for line in properties.text(envelope::HISTORY).unwrap_or_default().lines() {
        if line.contains("panicked") || line.len() > envelope::WHY_BYTES_MAX + 100 {
            wrong.push(format!("{name}: history {line}"));
        }
    }
    wrong
}

/// The explanation of a reason is short, legible, and contains the expected texts.
fn wrong_words(poison: &Poison, words: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for expected in poison.why.iter().filter(|expected| !words.contains(expected.as_str())) {
        wrong.push(format!("{} ({}): {expected:?} is not in {words:?}", poison.name, poison.kind));
    }
    if words.len() > envelope::WHY_BYTES_MAX || words.chars().any(char::is_control) {
        wrong.push(format!("{} ({}): nobody reads {words:?}", poison.name, poison.kind));
    }
    wrong
}

fn put(store: &Path, path: &str, content: &[u8]) {
    let path = store.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn message<M: Message>(message: &M) -> Outgoing {
    Outgoing::message(message).unwrap()
}

fn ride(ride_id: &str) -> Ride {
    let ride = json!({ "ride_id": ride_id, "statustime": "2018-04-25 17:03:05", "latitude": 40.7, "longitude": -74.0,
        "distance": 29.5, "healthpoints": 291.0, "magicpoints": 292.0 });
    serde_json::from_value(ride).unwrap()
}

fn model() -> Value {
    let coefficient = |name: &str, unit: &str| {
        json!({ "feature": name, "unit": unit, "per_unit": 0.001, "standardised": 0.1, "mean": 0.0, "std_dev": 1.0,
            "min": 0.0, "max": 1.0 })
    };
    let coefficients: Vec<_> = FEATURES.iter().map(|feature| coefficient(feature.name, feature.unit)).collect();
    let metrics = json!({ "rides": 0, "confusion": { "true_negative": 0, "false_positive": 0, "false_negative": 0,
        "true_positive": 0 }, "accuracy": 0.0, "log_loss": 0.0, "brier": 0.0 });
    json!({ "schema": "model.v1", "model": "service-request", "model_id": "m", "trainer": "0",
        "settings": { "features": "all", "alphas": [1.0], "folds": 5, "threshold": { "by": "accuracy" }, "rides_min": 100 },
        "datasets": [], "alpha": 1.0,
        "counts": { "rides": 0, "unlabelled": 0, "without_weather": 0, "duplicates": 0, "train": 0, "train_service": 0,
            "test": 0, "test_service": 0 },
        "intercept": 0.0, "intercept_standardised": 0.0, "coefficients": coefficients, "threshold": 0.5,
        "gradient_norm": 0.0, "train": metrics })
}

fn champion(artefact: &str) -> Value {
    json!({ "schema": "model-alias.v1", "alias": "champion", "model": "service-request", "model_id": "m",
        "object": "models/service-request/m/model.json", "sha256": hex::encode(Sha256::digest(artefact)), "by": "test",
        "at": "2018-04-26T03:00:00Z", "why": "test", "generation": 1, "history": [] })
}

fn parts(poisons: &[Poison]) -> (Vec<&Poison>, Vec<&Poison>) {
    poisons.iter().partition(|poison| !poison.later)
}

/// On RabbitMQ, each worker a process: every hostile message ends as the corpus says, every good one succeeds, no worker
/// panics, memory stays bounded, and every queue is empty at the end.
#[tokio::test]
async fn every_poison_has_its_expected_end_on_rabbitmq() {
    let input = Input::of(1);
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &[("WILDRYDES__LOG__LEVEL", "info")]);
    let broker = AmqpBroker::new(fleet.broker.clone());
    let mut trial = Trial::start(&broker, fleet.store()).await;
    let mut all = poisons(&trial.reply_to).await;
    let settings = fleet.broker.clone();
    let major = tokio::task::spawn_blocking(move || wire::Raw::connect(&settings).major).await.unwrap();
    all.retain(|poison| {
        let sent = poison.since <= major;
        if !sent {
            eprintln!("not sent to RabbitMQ {major}: {}", poison.name);
        }
        sent
    });
    let (first, later) = parts(&all);
    trial.publish(&first, || fleet.tail()).await;
    for name in topology::PROCESSES {
        fleet.launch(name, 0);
    }
    fleet.wait_for("the scorer", |_| fleet.log_text().contains("\"connected\",\"worker\":\"scorer\""));
    trial.publish(&later, || fleet.tail()).await;
    trial.ends(&all, || fleet.tail()).await;
    match fleet.peak_memory() {
        Some(peaks) => {
            eprintln!(
                "most memory in MB: {:?}",
                peaks.iter().map(|(name, bytes)| (name, bytes >> 20)).collect::<Vec<_>>()
            );
            assert!(
                peaks.len() == topology::PROCESSES.len() && peaks.values().all(|bytes| *bytes < MEMORY_MAX),
                "{peaks:?}"
            );
        }
        None => eprintln!("not measured: this system does not tell the memory of a process"),
    }
    let text = fleet.log_text();
    assert!(!text.contains("panicked"), "{text}");
    let longest = text.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 4_000, "a log line of {longest} bytes");
    trial.connection.close().await;
    fleet.finish().await;
}

/// The same in one process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_poison_has_its_expected_end_in_one_process() {
    let input = Input::of(1);
    let folder = tempfile::tempdir().unwrap();
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
    let mut trial = Trial::start(broker.as_ref(), folder.path().to_owned()).await;
    let all = poisons(&trial.reply_to).await;
    let (first, later) = parts(&all);
    trial.publish(&first, String::new).await;
    let store: Store = Arc::new(object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let mut workers = InProcess { broker: Arc::clone(&broker), store: Arc::clone(&store), workers: Vec::new() };
    let weather =
        weather_fetcher::Settings { source: input.weather.to_str().unwrap().to_owned(), ..Default::default() };
    workers.add(splitter::Splitter::new(Default::default(), Arc::clone(&store)));
    let fetcher = weather_fetcher::WeatherFetcher::new(weather, Arc::clone(&store)).unwrap();
    let lookup = fetcher.lookup();
    workers.add(fetcher);
    workers.add(lookup);
    workers.add(merger::Merger::new(Default::default(), Arc::clone(&store)));
    workers.add(trainer::Trainer::new(Default::default(), Arc::clone(&store)));
    let scorer = Arc::new(scorer::Scorer::new(Default::default(), store));
    workers.add_shared(Arc::clone(&scorer));
    wait::until("the scorer", async || {
        scorer.serves().is_some() && trial.connection.depth(queue::SCORER).await.unwrap().consumers > 0
    })
    .await;
    trial.publish(&later, String::new).await;
    trial.ends(&all, String::new).await;
    workers.finish(trial.connection.as_ref()).await;
}

/// The five workers on the in-process broker, in the order of the flow.
struct InProcess {
    broker: Arc<dyn Broker>,
    store: Store,
    workers: Vec<Running>,
}

type Starting = Box<dyn Fn(Shutdown) -> JoinHandle<Result<(), RunError>>>;

struct Running {
    name: &'static str,
    start: Starting,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), RunError>>,
}

impl InProcess {
    fn add<W: Worker>(&mut self, worker: W) {
        self.add_shared(Arc::new(worker));
    }

    fn add_shared<W: Worker>(&mut self, worker: Arc<W>) {
        let options = run_options::<W>(&RunSettings::default(), &BrokerSettings::default(), &self.store);
        let broker = Arc::clone(&self.broker);
        let start: Starting = Box::new(move |shutdown| {
            tokio::spawn(run(Arc::clone(&worker), Arc::clone(&broker), options.clone(), shutdown))
        });
        let shutdown = Shutdown::new();
        self.workers.push(Running { name: W::NAME, task: start(shutdown.clone()), start, shutdown });
    }

    /// Ends the workers, each once its queue is empty, and checks that nothing is left behind.
    async fn finish(self, connection: &dyn Connection) {
        let depth = async |name: &str| connection.depth(name).await.unwrap().messages;
        for Running { name, start, mut shutdown, mut task } in self.workers {
            loop {
                wait::until(format!("{name} to be empty"), async || depth(name).await == 0).await;
                shutdown.cancel();
                task.await.unwrap().unwrap();
                if depth(name).await == 0 {
                    break;
                }
                // Messages that the worker had not started at its shutdown.
                shutdown = Shutdown::new();
                task = start(shutdown.clone());
            }
            assert_eq!(depth(&topology::dead_queue(name)).await, 0, "{name} has more dead letters");
        }
    }
}

/// A message that is too large to be published is refused, and the error says what to do.
#[tokio::test]
async fn a_publisher_learns_that_its_message_is_too_large() {
    let rabbitmq = pipeline_tests::rabbitmq::broker();
    let brokers: [Arc<dyn Broker>; 2] = [Arc::new(MemoryBroker::new()), Arc::new(rabbitmq.clone())];
    for broker in brokers {
        let connection = broker.connect("poison").await.unwrap();
        connection.declare().await.unwrap();
        let mut batch = message(&RideBatch {
            batch_id: Some("large".to_owned()),
            source: None,
            reading: Reading::default(),
            refresh: None,
            content: BatchContent::Inline { rides: Vec::new() },
        });
        batch.body = vec![b' '; 17 << 20].into();
        let refused = connection.publisher().await.unwrap().publish(batch).await.unwrap_err().to_string();
        assert!(refused.contains("17825792 bytes") && refused.contains("publish a reference"), "{refused}");
        assert_eq!(connection.depth(queue::SPLITTER).await.unwrap().messages, 0);
        connection.close().await;
    }
    rabbitmq.remove_topology().await.unwrap();
}

/// The table in the README of the tests agrees with the corpus.
#[tokio::test]
async fn the_readme_lists_the_corpus() {
    let mut rows: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    for poison in poisons("").await {
        let end = match &poison.end {
            End::Dead(reasons) => format!("dead letter `{}`", reasons.join("` or `")),
            End::Dataset { rejects, .. } if rejects.is_empty() => "accepted".to_owned(),
            End::Dataset { rejects, .. } => {
                format!("the rest accepted, rejected `{}`", rejects.keys().cloned().collect::<Vec<_>>().join("`, `"))
            }
            End::Answer(code) if code == "scored" => "scored".to_owned(),
            End::Answer(code) => format!("answer `{code}`"),
            End::Gone => "acknowledged".to_owned(),
        };
        rows.entry((poison.queue, end)).or_default().insert(poison.name.clone());
    }
    let mut table = String::from("| worker | message | end |\n|---|---|---|\n");
    for name in queue::ALL {
        for ((_, end), names) in rows.iter().filter(|((queue, _), _)| *queue == name) {
            let names = names.iter().cloned().collect::<Vec<_>>().join("; ");
            table += &format!("| {name} | {names} | {end} |\n");
        }
    }
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(&table), "tests/README.md should contain\n\n{table}");
}
