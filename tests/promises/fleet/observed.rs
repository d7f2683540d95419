//! Tests of what a fleet shows of itself: probes, metrics and traces of its workers.

use common::topology::{
    self,
    process::{MERGER, SCORER, TRAINER, WEATHER_FETCHER},
};
use pipeline_tests::{
    collector::{Collector, Span},
    gateway,
    processes::{Fleet, Input, json_output, succeed},
    wait::{self, SOON},
};
use runtime::metrics::SERIES_MAX;
use std::{collections::BTreeSet, path::Path, process::Stdio};

/// Lets each worker choose a free port for its probes.
const ANY_PORT: (&str, &str) = ("WILDRYDES__RUN__HEALTH_BIND", "127.0.0.1:0");

/// Waits until every worker serves its probes. Returns their URLs.
fn urls(fleet: &Fleet, workers: usize) -> Vec<String> {
    fleet.wait_for("the address of every worker's probes", |_| {
        let urls: Vec<String> = fleet.logs().iter().filter_map(url_of_probes).collect();
        (urls.len() >= workers, urls)
    })
}

/// Returns the URL in the log line with which a process starts to serve its probes; `None` for other lines.
fn url_of_probes(line: &serde_json::Value) -> Option<String> {
    let is_serving = line["message"] == "serving health and metrics";
    line["url"].as_str().filter(|_| is_serving).map(str::to_owned)
}

/// Checks that a process has no more series than it may have.
fn check_series(metrics: &str) {
    let series = metrics.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= SERIES_MAX, "{series} series");
}

async fn get(url: &str) -> (u16, String) {
    let answer = gateway::Api::at(url).get("").await;
    (answer.status.as_u16(), answer.text())
}

/// Waits until `/readyz` answers with this status and a reason that contains `part`.
async fn until_ready_is(url: &str, status: u16, part: &str) {
    let what = format!("{status} with {part:?} at /readyz");
    let looked = wait::within(SOON, &what, async || {
        let seen = get(&format!("{url}/readyz")).await;
        (seen.0 == status && seen.1.contains(part), seen)
    });
    looked.await.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Returns the states of the merger's loop whose gauge is 1.
async fn state(url: &str) -> Vec<String> {
    let metrics = get(&format!("{url}/metrics")).await.1;
    let state = |line: &str| {
        let (labels, value) = line.strip_prefix("wildrydes_worker_state{")?.split_once("} ")?;
        let (_, state) = labels.split_once("state=\"")?;
        (value == "1").then(|| state.trim_end_matches('"').to_owned())
    };
    metrics.lines().filter_map(state).collect()
}

#[tokio::test]
async fn probes_say_whether_a_worker_takes_work_and_why_not() {
    let input = Input::of(1);
    let fleet = Fleet::start_some(&[MERGER.name], 1, &input.weather, &[ANY_PORT]);
    let url = urls(&fleet, 1).remove(0);
    until_ready_is(&url, 200, "ready").await;
    assert_eq!(state(&url).await, ["consuming"]);
    assert_eq!(get(&format!("{url}/livez")).await, (200, "ok\n".to_owned()));
    assert_eq!(get(&format!("{url}/elsewhere")).await.0, 404);
    succeed(fleet.wildrydes().args(["pause", MERGER.name]));
    until_ready_is(&url, 503, "paused").await;
    assert_eq!(state(&url).await, ["paused"]);
    assert_eq!(get(&format!("{url}/livez")).await.0, 200, "a paused worker lives");
    succeed(fleet.wildrydes().args(["resume", MERGER.name]));
    until_ready_is(&url, 200, "ready").await;
    // A file where the store needs a folder.
    let control = fleet.store().join("control");
    std::fs::remove_dir_all(&control).unwrap();
    std::fs::write(&control, "").unwrap();
    until_ready_is(&url, 503, "object store").await;
    std::fs::remove_file(&control).unwrap();
    until_ready_is(&url, 200, "ready").await;
    fleet.finish().await;
}

#[tokio::test]
async fn a_worker_without_a_broker_lives_and_is_not_ready() {
    let input = Input::of(1);
    let nowhere = ("WILDRYDES__BROKER__URL", "amqp://guest@127.0.0.1:1/%2f");
    let mut fleet = Fleet::start_some(&[MERGER.name], 1, &input.weather, &[ANY_PORT, nowhere]);
    let url = urls(&fleet, 1).remove(0);
    until_ready_is(&url, 503, "no connection to the broker").await;
    assert_eq!(get(&format!("{url}/livez")).await.0, 200);
    fleet.kill(MERGER.name, 0);
}

/// While its store does not answer, a gateway answers nothing but probes, which say why.
#[tokio::test]
async fn a_gateway_that_waits_for_its_store_lives_and_says_so() {
    let input = Input::of(1);
    let nowhere = [
        ("WILDRYDES__STORE__URL", "s3://rides/fleet"),
        ("WILDRYDES__STORE__ENDPOINT", "http://127.0.0.1:1"),
        ("WILDRYDES__STORE__ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "nobody"),
        ("AWS_SECRET_ACCESS_KEY", "nothing"),
    ];
    let mut fleet = Fleet::start_some(&[], 1, &input.weather, &[&nowhere[..], &gateway::OPEN, &[ANY_PORT]].concat());
    let api = gateway::launch(&mut fleet, 0);
    let probes = urls(&fleet, 1).remove(0);
    assert_eq!(get(&format!("{probes}/livez")).await.0, 200);
    until_ready_is(&probes, 503, "proof of its object store").await;
    let problem = api.get("/v1/batches").await.problem(503, "starting");
    assert!(problem["detail"].as_str().unwrap().contains("object store"), "{problem}");
    fleet.wait_for("the reason in the log", |_| fleet.log_text().contains("the store cannot be used yet"));
    fleet.ask_to_end("gateway", 0);
    fleet.wait_for_end("gateway", 0).await;
}

/// A gateway that cannot reach its store is not ready, and its metrics are there all the same.
#[tokio::test]
async fn a_gateway_without_its_store_is_not_ready() {
    let input = Input::of(1);
    let environment = [&gateway::OPEN[..], &[ANY_PORT]].concat();
    let mut fleet = Fleet::start_some(&[SCORER.name], 1, &input.weather, &environment);
    let of_scorer = urls(&fleet, 1).remove(0);
    gateway::launch(&mut fleet, 0);
    let probes = urls(&fleet, 2).into_iter().find(|url| *url != of_scorer).unwrap();
    until_ready_is(&probes, 200, "ready").await;
    let control = fleet.store().join("control");
    std::fs::remove_dir_all(&control).ok();
    std::fs::write(&control, "").unwrap();
    until_ready_is(&probes, 503, "object store").await;
    assert_eq!(get(&format!("{probes}/livez")).await.0, 200);
    let (status, metrics) = get(&format!("{probes}/metrics")).await;
    assert_eq!((status, total(&metrics, "wildrydes_gateway_broker_up", &[])), (200, 1.0), "{metrics}");
    check_series(&metrics);
    std::fs::remove_file(&control).unwrap();
    until_ready_is(&probes, 200, "ready").await;
}

/// `wildrydes up` serves the health and the metrics of its workers.
#[tokio::test]
async fn all_workers_in_one_process_serve_their_health_in_one_place() {
    let input = Input::of(1);
    let fleet = Fleet::start_some(&[], 1, &input.weather, &[ANY_PORT]);
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut up = fleet.wildrydes();
    let mut up = up.arg("up").stderr(log.reopen().unwrap()).stdin(Stdio::null()).spawn().unwrap();
    let url = wait::until("the address of the probes", async || {
        let text = std::fs::read_to_string(log.path()).unwrap();
        let url = text.lines().filter_map(|line| serde_json::from_str(line).ok()).find_map(|line| url_of_probes(&line));
        url.ok_or(text)
    });
    let url = url.await;
    until_ready_is(&url, 200, "ready").await;
    assert_eq!(get(&format!("{url}/livez")).await.0, 200);
    let metrics = get(&format!("{url}/metrics")).await.1;
    for process in topology::PROCESSES {
        let worker = format!("worker=\"{process}\"");
        assert_eq!(total(&metrics, "wildrydes_worker_state", &[&worker, "consuming"]), 1.0, "{worker}\n{metrics}");
    }
    check_series(&metrics);
    succeed(fleet.wildrydes().args(["pause", MERGER.name]));
    until_ready_is(&url, 503, "merger: paused").await;
    gateway::terminate(up.id());
    let ended = wait::until("the end of the process", async || up.try_wait().unwrap()).await;
    assert!(ended.success(), "{}", std::fs::read_to_string(log.path()).unwrap());
}

/// Returns the sum of the series of a metric whose labels contain every part.
fn total(text: &str, name: &str, parts: &[&str]) -> f64 {
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let mine = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
    mine.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Returns the metrics of all processes, once they count the promotion and the splitter's delivery, and no publish is unconfirmed: a
/// worker counts after it has published.
async fn counted(urls: &[String]) -> String {
    let counted = wait::within(SOON, "the promotion and the delivery to be counted", async || {
        let mut text = String::new();
        for url in urls {
            let (status, metrics) = get(&format!("{url}/metrics")).await;
            assert_eq!(status, 200);
            assert!(metrics.ends_with("# EOF\n"), "{metrics}");
            check_series(&metrics);
            text += &metrics;
        }
        let promoted = total(&text, "wildrydes_verdicts_total", &["outcome=\"promoted\""]);
        let handled = total(&text, "messaging_process_duration_seconds_count", &["\"splitter\"", "error_type=\"\""]);
        let unconfirmed = total(&text, "wildrydes_unconfirmed_publishes", &[]);
        (promoted == 1.0 && handled == 1.0 && unconfirmed == 0.0, text)
    });
    counted.await.unwrap_or_else(|failure| panic!("{failure}"))
}

#[tokio::test]
async fn metrics_count_every_ride_by_stage_and_name_none() {
    let input = Input::of(2_500);
    let fleet = Fleet::start_with(1, &input.weather, &[ANY_PORT]);
    let report = json_output(fleet.wildrydes().args(["ingest", "--until", "dataset"]).arg(&input.rides));
    fleet.champion();
    let manifest = &report["batches"][0]["manifest"];
    let count = |name: &str| manifest[name].as_f64().expect("a count");
    let text = counted(&urls(&fleet, topology::PROCESSES.len())).await;
    let rides = |stage, outcome| {
        total(&text, "wildrydes_rides_total", &[&format!("stage=\"{stage}\""), &format!("outcome=\"{outcome}\"")])
    };
    assert_eq!(rides("splitter", "accepted"), count("accepted"));
    assert_eq!(rides("splitter", "rejected"), count("rejected"));
    assert_eq!(rides("weather-fetcher", "observed") + rides("weather-fetcher", "without_weather"), count("accepted"));
    assert_eq!(rides("merger", "joined"), count("accepted"));
    assert_eq!(total(&text, "messaging_client_consumed_messages_total", &["\"splitter\""]), 1.0);
    assert!(total(&text, "messaging_client_sent_messages_total", &["\"work\""]) >= 3.0, "{text}");
    assert!(total(&text, "wildrydes_store_operation_duration_seconds_count", &["operation=\"put\""]) > 0.0);
    let batch_id = report["batches"][0]["batch_id"].as_str().expect("an id");
    assert!(!text.contains(batch_id), "no series per batch");
    let names: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(
        names.iter().all(|name| ["messaging_", "process_", "wildrydes_"].iter().any(|prefix| name.starts_with(prefix))),
        "{names:?}"
    );
    fleet.finish().await;
}

/// The first span of a request to the gateway.
const ROOT: &str = "gateway request";
/// The kind of a span that handles a message.
const CONSUMER: i32 = 5;
/// The kind of a span that publishes a message.
const PRODUCER: i32 = 4;

/// Returns the chain of a span's causes from the root to the span itself, as `service name destination`.
fn path_to(spans: &[Span], last: &Span) -> Vec<String> {
    let mut path = vec![last];
    while let Some(parent) = spans.iter().find(|span| span.span_id == path[path.len() - 1].parent_id) {
        path.push(parent);
    }
    let step = |span: &&Span| match span.attribute("messaging.destination.name") {
        "" => format!("{} {}", span.service, span.name),
        destination => format!("{} {} {destination}", span.service, span.name),
    };
    path.iter().rev().map(step).collect()
}

/// Waits until the spans of a trace contain what is looked for. Returns it, with the spans.
async fn trace<T>(
    collector: &Collector,
    trace_id: &str,
    what: &str,
    find: impl Fn(&[Span]) -> Option<T>,
) -> (T, Vec<Span>) {
    let spans_of = || {
        let mut spans = collector.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans
    };
    let looked = wait::within(SOON, what, async || {
        let spans = spans_of();
        find(&spans).map(|found| (found, spans))
    });
    looked.await.unwrap_or_else(|failure| panic!("{failure}: {:#?}", spans_of()))
}

/// Uploads rides. Returns the id of the request's trace.
async fn upload(api: &gateway::Api, rides: &Path) -> String {
    let rides = std::fs::read(rides).unwrap();
    let sent = wait::within(SOON, "the gateway to take a batch", async || {
        api.post_bytes("/v1/batches", "application/json", rides.clone()).await.with_status(202)
    });
    sent.await.unwrap_or_else(|failure| panic!("{failure}")).header("x-trace-id").to_owned()
}

/// Returns the path of causes to the first span with this routing key, once it begins with the request.
fn path_to_publish(spans: &[Span], routing_key: &str) -> Option<Vec<String>> {
    let last = spans.iter().find(|span| span.attribute("messaging.rabbitmq.destination.routing_key") == routing_key);
    last.map(|last| path_to(spans, last)).filter(|path| path[0] == ROOT)
}

fn handled_by<'a>(spans: &'a [Span], worker: &'a str) -> impl Iterator<Item = &'a Span> {
    spans.iter().filter(move |span| span.service == worker && span.kind == CONSUMER)
}

/// Every span that a message carries was exported, so a trace is one tree from the request to its last consequence. Spans of joins
/// link to the other messages that they join.
#[tokio::test]
async fn a_trace_follows_a_batch_from_the_upload_to_the_promotion_and_a_score_to_the_scorer() {
    let collector = Collector::start().await;
    let (input, second_input) = (Input::of(4_000), Input::of(2_000));
    let exporting = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let settings: Vec<_> = exporting.into_iter().chain(gateway::OPEN).collect();
    let mut fleet = Fleet::start_with(1, &input.weather, &settings);
    let api = gateway::launch(&mut fleet, 0);

    let trace_id = upload(&api, &input.rides).await;
    let promoted = |spans: &[Span]| path_to_publish(spans, "model-promoted.v1");
    let (path, spans) = trace(&collector, &trace_id, "the promotion in the trace of the batch", promoted).await;
    // The last message that the merger waits for comes from the splitter or from the weather-fetcher.
    let mut workers: Vec<&str> = path.iter().filter_map(|step| Some(step.split_once(" process ")?.0)).collect();
    workers.retain(|worker| *worker != WEATHER_FETCHER.name);
    assert_eq!(workers, ["splitter", "merger", "trainer"], "{path:?}");
    let enriched: Vec<_> = handled_by(&spans, WEATHER_FETCHER.name).map(|span| path_to(&spans, span)).collect();
    assert_eq!(enriched.len(), 4, "one per chunk: {enriched:?}");
    assert!(enriched.iter().all(|path| path[0] == ROOT && path.len() == 5), "{enriched:?}");
    let joins: Vec<&Span> = handled_by(&spans, MERGER.name).filter(|span| !span.links.is_empty()).collect();
    let [join] = joins[..] else { panic!("one join: {joins:#?}") };
    assert_eq!(join.links.len(), 4, "the other messages of four chunks and a summary: {join:#?}");
    for (linked_trace, linked) in &join.links {
        let is_publish = |span: &Span| span.span_id == *linked && span.kind == PRODUCER;
        assert!(*linked_trace == trace_id && spans.iter().any(is_publish), "{linked} in {spans:#?}");
    }

    let second_trace_id = upload(&api, &second_input.rides).await;
    let linked = |spans: &[Span]| {
        let mut links = handled_by(spans, TRAINER.name).flat_map(|span| &span.links);
        links.find(|(linked_trace, _)| *linked_trace == trace_id).map(|(_, linked)| linked.clone())
    };
    let (announced, _) =
        trace(&collector, &second_trace_id, "a training that links to the first dataset", linked).await;
    assert_eq!(path_to_publish(&spans, "dataset-ready.v1").map(|path| path.len() > 3), Some(true));
    let announcement = spans.iter().find(|span| span.span_id == announced).expect("a span of the first trace");
    assert_eq!((announcement.service.as_str(), announcement.kind), (MERGER.name, PRODUCER));

    let looked = wait::within(SOON, "a score", async || api.post("/v1/score", &gateway::ride()).await.with_status(200));
    let scored = looked.await.unwrap_or_else(|failure| panic!("{failure}"));
    let answered = |spans: &[Span]| {
        let answer = spans.iter().find(|span| span.service == "scorer" && span.name == "publish");
        answer.map(|last| path_to(spans, last)).filter(|path| path[0] == ROOT)
    };
    let (path, _) =
        trace(&collector, scored.header("x-trace-id"), "the answer in the trace of the score", answered).await;
    assert_eq!(path, [ROOT, "gateway publish rpc", "scorer process scorer", "scorer publish"]);
    fleet.finish().await;
}

/// Neither the fleet nor its end waits for a collector that is down, and the log says so once per process.
#[tokio::test]
async fn a_collector_that_is_down_changes_nothing() {
    let input = Input::of(1_000);
    let nowhere = ("WILDRYDES__TELEMETRY__OTLP", "http://127.0.0.1:9");
    let fleet = Fleet::start_with(1, &input.weather, &[nowhere, ("OTEL_BSP_SCHEDULE_DELAY", "100")]);
    // A scorer that starts after the promotion would handle no message.
    fleet.wait_for_sessions(&topology::PROCESSES, 1);
    succeed(fleet.wildrydes().arg("ingest").arg(&input.rides));
    fleet.champion();
    let warned = fleet.wait_for("every worker's warning", |_| {
        let mut lines = fleet.logs();
        lines.retain(|line| line["message"].as_str().is_some_and(|message| message.contains("collector of traces")));
        (lines.len() >= topology::PROCESSES.len(), lines)
    });
    assert_eq!(warned.len(), topology::PROCESSES.len(), "{warned:#?}");
    fleet.finish().await;
}
