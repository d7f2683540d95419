//! Tests with one user for each worker and each kind of client: it can do its job, and nothing else.

use super::users::Users;
use common::{
    envelope::Properties,
    exchange,
    message::{
        BatchContent, PlaceWeather, RideBatch, ScoreOutcome, ScoreRequest, ScoreRide, Units, WeatherPlace,
        WeatherRequest,
    },
    model::logistic,
    outcome::Outgoing,
    reading::Reading,
    ride::Observation,
    topology::{self, PROCESSES, Topology, queue, retry_queue},
};
use lapin::{
    BasicProperties, Channel, Connection, ErrorKind,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
        QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use pipeline_tests::{
    noaa::{Data, Fault, Noaa},
    processes::{Input, json_output, output, succeed},
    rabbitmq::settings,
    trust,
    wait::{self, SOON},
};
use runtime::{
    AmqpBroker, Broker,
    broker::PublishError,
    client::Client,
    config::{BrokerSettings, Declare},
};
use serde_json::{Value, json};

/// Removes the fleet's topology with an administrator's permissions.
async fn remove_topology(users: &Users) {
    let all = BrokerSettings { namespace: users.namespace.clone(), ..settings() };
    AmqpBroker::new(all).remove_topology().await.expect("the queues can be removed");
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// Each worker does its job from rides to scores, with retries and dead letters, under its own user. The operator's user makes
/// the topology.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_worker_does_its_job_under_its_own_user() {
    let Some(mut users) = blocking(|| Users::make(|_, _| {})) else { return };
    let input = blocking(|| Input::of(2_000));
    let expected = blocking(|| input.run(&[]));
    let noaa = Noaa::start(Data::Folder(input.weather.clone())).await.unwrap();
    // An outage: the chunk waits in a retry queue and returns.
    noaa.fail_next("ghcnd-stations.txt", 3, Fault::Status(503, None));
    blocking(|| {
        succeed(users.wildrydes("operator").args(["topology", "apply"]));
        for (index, worker) in PROCESSES.into_iter().enumerate() {
            // Half of the workers try to declare first, which is the default; half do not.
            let declare = if index % 2 == 0 { "auto" } else { "never" };
            let environment = [
                ("WILDRYDES__BROKER__DECLARE", declare),
                ("WILDRYDES__WEATHER__SOURCE", &noaa.url()),
                ("WILDRYDES__WEATHER__REQUESTS_PER_SECOND", "1000"),
            ];
            users.launch(worker, &environment);
        }
        let ingested = json_output(users.wildrydes("publisher").arg("ingest").arg(&input.rides));
        assert_eq!(ingested["batches"], expected["batches"]);
        let champion = users.store().join("models/service-request/champion.json");
        wait::until_blocking("the champion", || champion.is_file().then_some(()).ok_or_else(|| users.log("trainer")));
        let mut score = users.wildrydes("client");
        score.args(["score", "--fleet", "--timeout-ms", "60000", "--distance", "30", "--healthpoints", "300"]);
        score.args(["--magicpoints", "300", "--tmin", "180", "--tmax", "270", "--prcp", "0"]);
        let scored = json_output(&mut score);
        assert_eq!(scored["model_id"], expected["model"]["model_id"], "{scored}");
        // A refused batch becomes a dead letter, and its publisher gets the reason.
        let broken = input.folder().join("broken.json");
        std::fs::write(&broken, "[{]").unwrap();
        let refused = output(users.wildrydes("publisher").arg("ingest").arg(&broken));
        assert_eq!(refused.status.code(), Some(3), "{}", String::from_utf8_lossy(&refused.stderr));
        tokio::runtime::Handle::current().block_on(a_gateway_does_its_job(&users, &expected["batches"][0]));
        assert!(users.log("weather-fetcher").contains("set aside"), "a retry took place");
        for worker in PROCESSES {
            assert!(!users.log(worker).contains("ACCESS_REFUSED - write"), "{}", users.log(worker));
        }
        users.stop();
    });
    remove_topology(&users).await;
}

/// A worker whose user may not publish its outputs logs exchange, routing key, user and what to do, and waits: its connection
/// survives, nothing is delivered again, nothing is lost, and it continues once the permission exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_a_permission_logs_it_and_waits() {
    let Some(mut users) = blocking(|| Users::make(|_, _| {})) else { return };
    let input = blocking(|| Input::of(50));
    blocking(|| succeed(users.wildrydes("operator").args(["topology", "apply"])));
    blocking(|| users.forbid_publishing(queue::SPLITTER));
    users.launch(queue::SPLITTER, &[("WILDRYDES__BROKER__DECLARE", "never"), ("WILDRYDES__LOG__FORMAT", "json")]);
    blocking(|| succeed(users.wildrydes("publisher").args(["ingest", "--detach"]).arg(&input.rides)));
    let text = wait::until("the cause in the log", async || {
        let log = users.log(queue::SPLITTER);
        let line = log.lines().find(|line| line.contains("this user may not publish there")).map(str::to_owned);
        line.ok_or(log)
    })
    .await;
    for part in ["ERROR", "work", queue::SPLITTER, "ACCESS_REFUSED", "topology users", "doctor"] {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    assert!(text.contains(&users.name(queue::SPLITTER)), "the user is missing\n{text}");
    blocking(|| users.import());
    let all = BrokerSettings { namespace: users.namespace.clone(), ..settings() };
    let connection = AmqpBroker::new(all).connect("a test").await.unwrap();
    // A chunk and the batch-split message.
    for name in [queue::WEATHER_FETCHER, queue::MERGER] {
        wait::until(format!("a message in {name}"), async || {
            let has_one = connection.depth(name).await.unwrap().messages > 0;
            has_one.then_some(()).ok_or_else(|| users.log(queue::SPLITTER))
        })
        .await;
    }
    connection.close().await;
    blocking(|| users.stop());
    let log = users.log(queue::SPLITTER);
    assert!(log.contains("taken again") && !log.contains("no broker"), "{log}");
    assert!(!log.contains("\"redelivered\":true"), "{log}");
    remove_topology(&users).await;
}

/// A publisher gets the same error, and the next publish on the same connection succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_publish_affects_no_other() {
    let Some(users) = blocking(|| Users::make(|_, _| {})) else { return };
    blocking(|| succeed(users.wildrydes("operator").args(["topology", "apply"])));
    let client = AmqpBroker::new(users.settings("client")).connect("a test").await.unwrap();
    let publisher = client.publisher().await.unwrap();
    let message = |exchange: &'static str, routing_key: &str| Outgoing {
        exchange,
        routing_key: routing_key.to_owned(),
        properties: Properties::default(),
        body: "{}".into(),
        mandatory: true,
    };
    for _ in 0..3 {
        let denied = publisher.publish(message(exchange::WORK, "ride-chunk.v1")).await.unwrap_err();
        assert!(matches!(&denied, PublishError::Denied { why, .. } if why.contains(&users.name("client"))), "{denied}");
        publisher.publish(message(exchange::RPC, "score-request.v1")).await.unwrap();
    }
    client.close().await;
    remove_topology(&users).await;
}

/// Under the gateway's user, looked-up weather equals the dataset's, scores are the model's, dead letters and events can be
/// read, and a batch can be published.
async fn a_gateway_does_its_job(users: &Users, batch: &Value) {
    let broker = AmqpBroker::new(BrokerSettings { declare: Declare::Never, ..users.settings("gateway") });
    let client = Client::connect(&broker, "gateway").await.unwrap();
    let batch_id = batch["batch_id"].as_str().unwrap();
    let dataset = users.store().join(format!("dataset/{batch_id}/part-00000.csv"));
    let mut rows = csv::Reader::from_path(dataset).unwrap();
    let columns = rows.headers().unwrap().clone();
    let cell =
        |row: &csv::StringRecord, name: &str| row[columns.iter().position(|column| column == name).unwrap()].to_owned();
    let row = rows.records().map(Result::unwrap).find(|row| !cell(row, "tmin").is_empty()).unwrap();
    let number = |name: &str| cell(&row, name).parse::<f64>().unwrap();
    let place = WeatherPlace {
        latitude: number("latitude"),
        longitude: number("longitude"),
        statustime: cell(&row, "statustime").parse().unwrap(),
    };
    let request = WeatherRequest { request_id: "w".to_owned(), places: vec![place], observed_only: false };
    let response = client.weather(&request, SOON).await.unwrap();
    let [PlaceWeather::Observed(observed)] = response.weather.as_slice() else { panic!("{response:?}") };
    assert_eq!(observed.groundstation, cell(&row, "groundstation"));
    let elements = [observed.station_km, observed.tmin.into(), observed.tmax.into(), observed.prcp.into()];
    assert_eq!(elements, ["station_km", "tmin", "tmax", "prcp"].map(number));

    let ride = ScoreRide {
        distance: Some(number("distance")),
        healthpoints: Some(number("healthpoints")),
        magicpoints: Some(number("magicpoints")),
        tmin: Some(number("tmin")),
        tmax: Some(number("tmax")),
        prcp: Some(number("prcp")),
        ..ScoreRide::default()
    };
    let request = ScoreRequest {
        request_id: "s".to_owned(),
        units: Units::default(),
        explain: true,
        impute: true,
        rides: vec![ride],
    };
    let response = client.score(&request, SOON).await.unwrap();
    let ScoreOutcome::Scored { probability, explanation, .. } = &response.scores[0].outcome else {
        panic!("{response:?}")
    };
    let log_odds = response.baseline_log_odds.unwrap() + explanation.iter().map(|c| c.log_odds).sum::<f64>();
    assert!((logistic(log_odds) - probability).abs() < 1e-12, "{response:?}");

    a_place_is_scored_with_its_weather(&client, request, place, observed.clone(), *probability).await;

    let mut browser = client.browse(&topology::dead_queue(queue::SPLITTER)).await.unwrap();
    assert!(browser.next().await.unwrap().is_some(), "the refused batch");
    browser.close().await.unwrap();
    let mut events = client.listen(exchange::EVENTS, "#").await.unwrap();
    let content = BatchContent::Inline { rides: Vec::new() };
    client
        .publish(&RideBatch {
            batch_id: Some("of-nobody".to_owned()),
            source: None,
            reading: Reading::default(),
            refresh: None,
            content,
        })
        .await
        .unwrap();
    let event = wait::soon("an event", events.next()).await.unwrap();
    event.settle.ack().await.unwrap();
    assert!(client.depth(queue::SPLITTER).await.is_ok());
    client.close().await;
}

/// Over the queue of scores alone: scorer, weather-fetcher, scorer.
async fn a_place_is_scored_with_its_weather(
    client: &Client,
    mut request: ScoreRequest,
    place: WeatherPlace,
    observed: Observation,
    expected: f64,
) {
    let ScoreRide { distance, healthpoints, magicpoints, .. } = request.rides.remove(0);
    let WeatherPlace { latitude, longitude, statustime } = place;
    let [latitude, longitude] = [latitude, longitude].map(|degrees| Some(json!(degrees)));
    let ride = ScoreRide { distance, healthpoints, magicpoints, latitude, longitude, ..ScoreRide::default() };
    request.rides.push(ScoreRide { statustime: Some(json!(statustime)), ..ride });
    let response = client.score(&request, SOON).await.unwrap();
    let ScoreOutcome::Scored { probability, weather: Some(weather), .. } = &response.scores[0].outcome else {
        panic!("{response:?}")
    };
    assert_eq!((*probability, &**weather), (expected, &PlaceWeather::Observed(observed)));
}

/// Every user tries every operation on every queue and exchange. Allowed is what the runbook's table says ([`trust`]), which
/// does not use the patterns of the permissions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_user_has_exactly_its_own_permissions() {
    let Some(users) = blocking(|| Users::make(|_, _| {})) else { return };
    let broker = AmqpBroker::new(BrokerSettings { declare: Declare::Always, ..users.settings("operator") });
    let connection = broker.connect("operator").await.unwrap();
    connection.declare().await.unwrap();
    connection.close().await;
    let mut wrong = Vec::new();
    let mut attempts = 0;
    for role in trust::TRUST.iter().map(|trust| trust.role) {
        let connection = Connection::connect(&users.url(role), Default::default()).await.unwrap();
        for attempt in attempts_of(&users.namespace, role) {
            attempts += 1;
            let channel = connection.create_channel().await.unwrap();
            let allowed = attempt.make(&channel).await;
            if allowed != attempt.expected {
                wrong.push(format!("{role}: {attempt:?} was {}", if allowed { "allowed" } else { "refused" }));
            }
            if channel.status().connected() {
                channel.close(200, "done".into()).await.unwrap();
            }
        }
        connection.close(200, "done".into()).await.unwrap();
    }
    assert!(wrong.is_empty(), "of {attempts}:\n{}", wrong.join("\n"));
    assert!(attempts > 1_000, "{attempts}");
    remove_topology(&users).await;
}

#[derive(Debug)]
enum What {
    Get(String),
    Purge(String),
    DeclareQueue(String),
    DeleteQueue(String),
    DeclareExchange(String),
    DeleteExchange(String),
    Publish(String, String),
    TemporaryQueue,
    Bind(String, String),
    BindQueue(String, String),
}

#[derive(Debug)]
struct Attempt {
    what: What,
    expected: bool,
}

impl Attempt {
    async fn make(&self, channel: &Channel) -> bool {
        let table = FieldTable::default;
        let temporary = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        match &self.what {
            What::Get(queue) => {
                allowed(channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await)
            }
            What::Purge(queue) => {
                allowed(channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await)
            }
            What::DeclareQueue(queue) => allowed(channel.queue_declare(queue.as_str().into(), durable, table()).await),
            What::DeleteQueue(queue) => {
                allowed(channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await)
            }
            What::DeclareExchange(exchange) => {
                let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
                let kind = lapin::ExchangeKind::Topic;
                allowed(channel.exchange_declare(exchange.as_str().into(), kind, options, table()).await)
            }
            What::DeleteExchange(exchange) => {
                allowed(channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await)
            }
            What::Publish(exchange, key) => {
                channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
                let options = BasicPublishOptions::default();
                let properties = BasicProperties::default();
                let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
                match channel.basic_publish(exchange, key, options, b"{}", properties).await {
                    Ok(confirm) => allowed(confirm.await),
                    Err(error) => allowed::<()>(Err(error)),
                }
            }
            What::TemporaryQueue => allowed(channel.queue_declare("".into(), temporary, table()).await),
            What::Bind(exchange, key) => match channel.queue_declare("".into(), temporary, table()).await {
                Ok(queue) => {
                    let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
                    let options = QueueBindOptions::default();
                    allowed(channel.queue_bind(queue.name().clone(), exchange, key, options, table()).await)
                }
                Err(error) => allowed::<()>(Err(error)),
            },
            What::BindQueue(queue, exchange) => {
                let (queue, exchange) = (queue.as_str().into(), exchange.as_str().into());
                allowed(channel.queue_bind(queue, exchange, "x".into(), QueueBindOptions::default(), table()).await)
            }
        }
    }
}

/// Returns whether the broker allowed an operation. A declaration with other arguments passed the check of permissions.
fn allowed<T>(outcome: lapin::Result<T>) -> bool {
    const ACCESS_REFUSED: u16 = 403;
    const PRECONDITION_FAILED: u16 = 406;
    match outcome {
        Ok(_) => true,
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(amqp) if amqp.get_id() == ACCESS_REFUSED => false,
            ErrorKind::ProtocolError(amqp) if amqp.get_id() == PRECONDITION_FAILED => true,
            _ => panic!("{error}"),
        },
    }
}

/// Exchanges and routing keys to publish with.
const PUBLISHES: [(&str, &str); 16] = [
    ("ingest", "ride-batch.v1"),
    ("ingest", "rides"),
    ("work", "ride-chunk.v1"),
    ("work", "ride-chunk.v2"),
    ("work", "batch-split.v1"),
    ("work", "enriched-chunk.v1"),
    ("work", "ride-chunk.v1.x"),
    ("work", "x.ride-chunk.v1"),
    ("work", ""),
    ("events", "dataset-ready.v1"),
    ("events", "model-promoted.v1"),
    ("events", "model-rejected.v1"),
    ("events", "worker-control.v1"),
    ("rpc", "score-request.v1"),
    ("rpc", "weather-request.v1"),
    ("rpc", "weather-response.v1"),
];
/// Exchanges and routing keys to bind a temporary queue with.
const BINDINGS: [(&str, &str); 11] = [
    ("events", "model-promoted.#"),
    ("events", "model-promoted.v1"),
    ("events", "worker-control.#"),
    ("events", "dataset-ready.#"),
    ("events", "#"),
    ("work", "#"),
    ("ingest", "#"),
    ("rpc", "#"),
    ("retry", "#"),
    ("dead", "#"),
    ("dead", "splitter"),
];

/// Every attempt of a user. [`pipeline_tests::trust`] says which are allowed.
fn attempts_of(namespace: &str, role: &str) -> Vec<Attempt> {
    let named = |plain: &str| format!("{namespace}{plain}");
    let trust = trust::of_role(role);
    let declares = trust.declares();
    let mut attempts = Vec::new();
    let mut attempt = |what, expected| attempts.push(Attempt { what, expected });

    let topology = Topology::of_fleet("");
    for queue in topology.queues.iter().map(|queue| queue.name.as_str()) {
        let reads = trust.reads_queue(queue);
        let queue = named(queue);
        attempt(What::Get(queue.clone()), reads);
        attempt(What::Purge(queue.clone()), reads);
        attempt(What::DeclareQueue(queue.clone()), declares);
        if !declares {
            attempt(What::DeleteQueue(queue.clone()), false);
            attempt(What::BindQueue(queue, named("events")), false);
        }
    }
    for exchange in topology.exchanges.iter().map(|exchange| named(&exchange.name)) {
        attempt(What::DeclareExchange(exchange.clone()), declares);
        if !declares {
            attempt(What::DeleteExchange(exchange), false);
        }
    }

    for (exchange, message) in PUBLISHES {
        attempt(What::Publish(named(exchange), message.to_owned()), trust.publishes(exchange, message));
    }
    for of in queue::ALL {
        // A user may publish to its own retry queues (queues of requests have none), and to no work queue, not even its own.
        for key in [retry_queue(of, 0), retry_queue(of, 3), of.to_owned()] {
            attempt(What::Publish(named("retry"), named(&key)), trust.publishes("retry", &key));
        }
        attempt(What::Publish(named("dead"), named(of)), trust.publishes("dead", of));
        // Whoever may answer may publish to the default exchange, which checks no permission per queue.
        attempt(What::Publish(String::new(), named(of)), trust.publishes("", of));
    }
    // Names of another fleet: a pattern without quotes or anchors would match some.
    for key in [format!("x{}", named(&format!("{role}.retry.0"))), named(&format!("{role}xretry.0"))] {
        attempt(What::Publish(named("retry"), key), declares);
    }

    attempt(What::TemporaryQueue, trust.listens());
    for (exchange, key) in BINDINGS {
        attempt(What::Bind(named(exchange), key.to_owned()), trust.binds(exchange, key));
    }
    // With such a binding, a message that no retry queue takes would count as routed.
    for key in ["weather-fetcher.retry.0", "weather-fetcher"] {
        attempt(What::Bind(named("retry"), named(key)), trust.binds("retry", key));
    }
    attempts
}

/// A worker that may not declare missing queues says so and who can, and waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_waits_for_the_operator_to_make_the_topology() {
    let Some(mut users) = blocking(|| Users::make(|_, _| {})) else { return };
    for declare in [Declare::Auto, Declare::Never] {
        let broker = AmqpBroker::new(BrokerSettings { declare, ..users.settings("merger") });
        let connection = broker.connect("merger").await.unwrap();
        let error = connection.declare().await.unwrap_err().to_string();
        assert!(error.contains("does not exist") && error.contains("wildrydes topology apply"), "{error}");
        connection.close().await;
    }
    let strict = AmqpBroker::new(BrokerSettings { declare: Declare::Always, ..users.settings("merger") });
    let connection = strict.connect("merger").await.unwrap();
    let error = connection.declare().await.unwrap_err().to_string();
    assert!(error.contains("ACCESS_REFUSED"), "{error}");
    connection.close().await;

    blocking(|| {
        users.launch("merger", &[]);
        let waits_for = |part: &str| {
            wait::until_blocking(format!("{part:?} in the log"), || {
                let log = users.log("merger");
                if log.contains(part) { Ok(()) } else { Err(log) }
            });
        };
        waits_for("run `wildrydes topology apply` as the operator");
        succeed(users.wildrydes("operator").args(["topology", "apply"]));
        waits_for("consuming");
        users.stop();
    });
    remove_topology(&users).await;
}

/// The broker has the users as printed: names, hashed passwords, tags, patterns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_has_the_printed_users() {
    let Some(users) = blocking(|| Users::make(|_, _| {})) else { return };
    let printed = json_output(users.wildrydes("operator").args(["topology", "users"]));
    assert_eq!(printed["virtual_host"], json!("/"));
    for user in printed["users"].as_array().unwrap() {
        let name = user["user"].as_str().unwrap();
        let permissions = users.managed(&format!("users/{name}/permissions"));
        for what in ["configure", "write", "read"] {
            assert_eq!(permissions[0][what], user[what], "{name}");
        }
        let topics = users.managed(&format!("users/{name}/topic-permissions"));
        assert_eq!(topics.as_array().unwrap().len(), user["topics"].as_array().unwrap().len(), "{name}");
        let tags = users.managed(&format!("users/{name}"))["tags"].to_string();
        assert_eq!(tags.contains("monitoring"), name.ends_with("operator"), "{name}: {tags}");
        let asks = name.ends_with("gateway") || name.ends_with("scaler");
        assert_eq!(tags.contains("management"), asks, "{name}: {tags}");
    }
    let table = succeed(users.wildrydes("operator").args(["topology", "users"]));
    let commands = succeed(users.wildrydes("operator").args(["topology", "users", "--rabbitmqctl"]));
    assert!(
        table.contains(&users.name("scorer")) && commands.contains("rabbitmqctl set_topic_permissions"),
        "{commands}"
    );
}
