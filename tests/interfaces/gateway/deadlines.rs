//! Tests of deadlines on RabbitMQ: without a scorer, with a silent, absent or blocked broker, and at shutdown, every request is
//! answered in time, no answer is wrong, and the gateway recovers.

use super::{probability, same};
use common::{
    message::{ScoreError, ScoreErrorCode, ScoreRequest, ScoreResponse, decode},
    outcome::Outgoing,
    topology::{self, queue},
};
use pipeline_tests::{
    containers::Container,
    gateway::{Api, OPEN, launch, ride},
    print_uncaptured,
    processes::{Fleet, Input, succeed},
    wait,
};
use runtime::{AmqpBroker, Broker};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// The deadline of these gateways, and the tolerance on a busy machine.
const DEADLINE_MS: &str = "2000";
const IN_TIME: Duration = Duration::from_secs(8);

fn environment() -> Vec<(&'static str, &'static str)> {
    [&OPEN[..], &[("WILDRYDES__GATEWAY__DEADLINE_MS", DEADLINE_MS)]].concat()
}

/// Without a scorer, the answer says so at once. With a scorer that never answers, it says so at the deadline, and the late
/// answer is dropped and counted.
#[tokio::test]
async fn a_missing_answer_is_reported_in_time_and_late_answers_are_counted() {
    let input = Input::of(10);
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &environment());
    let api = launch(&mut fleet, 0);
    api.until_ready_is(503).await;
    // The gateway may still be connecting.
    let answer = wait::until("an answer over the broker", async || {
        let answer = api.post("/v1/score", &ride()).await;
        if answer.json()["type"] == "urn:wildrydes:problem:broker-away" { Err(answer.text()) } else { Ok(answer) }
    });
    let problem_json = answer.await.problem(503, "no-scorer");
    assert!(problem_json["detail"].as_str().unwrap().contains("no scorer is running"), "{problem_json}");
    api.get("/readyz").await.problem(503, "no-scorer");
    api.get("/v2/health/ready").await.problem(503, "no-scorer");
    let place = json!({ "distance": 1, "healthpoints": 1, "magicpoints": 1, "latitude": 40.6, "longitude": -74.1,
        "statustime": "2018-04-25 17:03:05" });
    api.post("/v1/score", &place).await.problem(503, "no-weather-fetcher");

    let connection = AmqpBroker::new(fleet.broker.clone()).connect("test").await.unwrap();
    let mut consumer = connection.consume(queue::SCORER, 10).await.unwrap();
    api.until_ready_is(200).await;
    let asked = tokio::spawn({
        let api = api.clone();
        async move { api.post("/v1/score", &ride()).await }
    });
    let delivery = wait::soon("a request", consumer.next()).await.unwrap();
    let problem_json = tokio::time::timeout(IN_TIME, asked).await.expect("in time").unwrap().problem(504, "no-answer");
    assert!(problem_json["detail"].as_str().unwrap().contains("waited for a scorer"), "{problem_json}");
    assert_eq!(api.metric("late_answers", "").await, 0.0);
    let request: ScoreRequest = decode(&delivery.body).unwrap();
    let error = ScoreError { code: ScoreErrorCode::NoModel, message: "too late".to_owned(), field: None };
    let reply = Outgoing::reply(&ScoreResponse::failed(request.request_id, error), &delivery.properties);
    connection.publisher().await.unwrap().publish(reply.unwrap()).await.unwrap();
    delivery.settle.ack().await.unwrap();
    wait::until("the late answer to be counted", async || api.metric("late_answers", "").await >= 1.0).await;
    connection.close().await;
    fleet.finish().await;
}

/// Results of the requests under load: their number by status, and the longest duration.
#[derive(Debug, Default)]
struct Seen {
    by_status: BTreeMap<u16, u64>,
    longest: Duration,
}

/// Requests scores without pause, 16 at a time, until it is stopped, and checks every answer's probability and duration.
fn load(api: &Api, expected: Vec<(Value, f64)>, stop: Arc<AtomicBool>) -> JoinSet<Seen> {
    let expected = Arc::new(expected);
    let mut load = JoinSet::new();
    for asker in 0..16 {
        let (api, stop, expected) = (api.clone(), Arc::clone(&stop), Arc::clone(&expected));
        load.spawn(async move {
            let mut seen = Seen::default();
            for (ride, probable) in expected.iter().cycle().skip(asker) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                let answer = wait::soon("an answer", api.post("/v1/score?explain=false", ride)).await;
                let took = began.elapsed();
                assert!(took < IN_TIME, "{took:?}: {}", answer.text());
                seen.longest = seen.longest.max(took);
                *seen.by_status.entry(answer.status.as_u16()).or_default() += 1;
                match answer.status.as_u16() {
                    200 => same(probability(&answer.json()), *probable, "an answer under load"),
                    503 | 504 => {
                        // The pause of a client that is refused, part of the load.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    _ => panic!("{} {}", answer.status, answer.text()),
                }
            }
            seen
        });
    }
    load
}

async fn all(load: JoinSet<Seen>) -> Seen {
    let mut sum = Seen::default();
    for seen in load.join_all().await {
        for (status, count) in seen.by_status {
            *sum.by_status.entry(status).or_default() += count;
        }
        sum.longest = sum.longest.max(seen.longest);
    }
    sum
}

/// Under load, the broker is suspended for some seconds, then killed and restarted, then short of memory: no request exceeds
/// its deadline, every score is right, readiness is true, metrics and stored documents are served meanwhile, and the gateway
/// recovers. `WILDRYDES_TEST_OUTAGE_SECONDS` makes the outages longer than 6 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_silent_gone_or_blocked_makes_no_request_hang_and_no_score_wrong() {
    let Some(broker) = Container::start() else { return };
    let outage = std::env::var("WILDRYDES_TEST_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let outage = Duration::from_secs(outage);
    let input = Input::of(2_000);
    let mut settings = broker.settings();
    settings.give_up_after_ms = 600_000;
    let mut fleet = Fleet::start_on(settings, &topology::PROCESSES, 1, &input.weather, &environment());
    succeed(fleet.wildrydes().arg("ingest").arg(&input.rides));
    let api = launch(&mut fleet, 0);
    api.until_a_model_answers().await;
    let mut expected = Vec::new();
    for distance in 1..=50 {
        let mut ride = ride();
        ride["distance"] = json!(distance);
        let number = probability(&api.score(&ride).await);
        expected.push((ride, number));
    }
    let under = async |what: &str, strike: &dyn Fn(), mend: &dyn Fn(), during: &[&str]| {
        let stop = Arc::new(AtomicBool::new(false));
        let load = load(&api, expected.clone(), Arc::clone(&stop));
        // The load continues meanwhile.
        tokio::task::block_in_place(strike);
        let until = Instant::now() + outage;
        let mut kinds = std::collections::BTreeSet::new();
        while Instant::now() < until {
            let asked = tokio::time::timeout(IN_TIME, api.post("/v1/score", &ride())).await.expect("in time");
            if let Some(kind) = asked.json()["type"].as_str() {
                kinds.insert(kind.rsplit(':').next().unwrap().to_owned());
            }
            for path in ["/metrics", "/healthz", "/v1/batches", "/v1/models/service-request", "/v1/fleet"] {
                let answer = tokio::time::timeout(IN_TIME, api.get(path)).await.expect("in time");
                assert_eq!(answer.status, 200, "{what}: {path}: {}", answer.text());
            }
            // The interval of the requests during the planned outage.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(during.iter().any(|kind| kinds.contains(*kind)), "{what}: {kinds:?}");
        if !during.contains(&"no-answer") {
            let ready = api.get("/readyz").await;
            assert_eq!(ready.status, 503, "{what}: {}", ready.text());
        }
        tokio::task::block_in_place(mend);
        api.until_ready_is(200).await;
        api.until_a_model_answers().await;
        stop.store(true, Ordering::Relaxed);
        let seen = all(load).await;
        print_uncaptured(format_args!("broker {what} for {} s: {:?}, problems {kinds:?}", outage.as_secs(), seen));
        assert!(seen.by_status.get(&200).is_some_and(|count| *count > 0), "{what}: {seen:?}");
    };
    under("silent", &|| broker.pause(), &|| broker.go_on(), &["no-answer", "broker-away"]).await;
    under("gone", &|| broker.kill(), &|| broker.start_again(), &["broker-away"]).await;
    let limit = |limit: &str| drop(broker.ctl(&["set_vm_memory_high_watermark", limit]));
    under("short of memory", &|| limit("0.00001"), &|| limit("0.6"), &["broker-blocked"]).await;
    fleet.finish().await;
}

/// At shutdown, the gateway refuses new requests, `/readyz` first, answers those it has accepted, and ends with success.
#[tokio::test]
async fn a_gateway_that_shuts_down_answers_accepted_requests() {
    let input = Input::of(2_000);
    let slow = [&OPEN[..], &[("WILDRYDES__GATEWAY__DEADLINE_MS", "60000")]].concat();
    let mut fleet = Fleet::start_with(1, &input.weather, &slow);
    succeed(fleet.wildrydes().arg("ingest").arg(&input.rides));
    let api = launch(&mut fleet, 0);
    api.until_a_model_answers().await;
    let expected = probability(&api.score(&ride()).await);
    fleet.pause("scorer", 0);
    let asked = tokio::spawn({
        let api = api.clone();
        async move { api.score(&ride()).await }
    });
    wait::until("the request in flight", async || api.metric("http_requests_in_flight", "").await >= 2.0).await;
    fleet.ask_to_end("gateway", 0);
    api.until_ready_is(503).await;
    api.get("/readyz").await.problem(503, "shutting-down");
    api.post("/v1/score", &ride()).await.problem(503, "shutting-down");
    assert_eq!(api.get("/healthz").await.status, 200);
    fleet.go_on("scorer", 0);
    let answer = wait::soon("an answer", asked).await.unwrap();
    same(probability(&answer), expected, "the answer to whom it had taken on");
    fleet.wait_for_end("gateway", 0).await;
    assert!(api.client.get(&api.url).send().await.is_err(), "the port is given back");
    fleet.finish().await;
}
