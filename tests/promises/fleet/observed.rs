//! Tests of what a fleet shows of itself: probes, metrics and traces of its workers.

use common::topology::{
    self,
    process::{MERGER, WEATHER_FETCHER},
};
use pipeline_tests::{
    collector::{Collector, Span},
    gateway,
    processes::{Fleet, Input, json_output, succeed},
    wait::{self, SOON},
};
use runtime::metrics::SERIES_MAX;
use std::collections::BTreeSet;

/// Lets each worker choose a free port for its probes.
const ANY_PORT: (&str, &str) = ("WILDRYDES__RUN__HEALTH_BIND", "127.0.0.1:0");

/// Waits until every worker serves its probes. Returns their URLs.
fn urls(fleet: &Fleet, workers: usize) -> Vec<String> {
    fleet.wait_for("the address of every worker's probes", |_| {
        let serving = |line: &serde_json::Value| line["message"] == "serving health and metrics";
        let urls: Vec<String> = fleet
            .logs()
            .iter()
            .filter(|line| serving(line))
            .filter_map(|line| line["url"].as_str().map(str::to_owned))
            .collect();
        (urls.len() >= workers, urls)
    })
}

async fn get(url: &str) -> (u16, String) {
    let answer = reqwest::get(url).await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a text"))
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

#[tokio::test]
async fn probes_say_whether_a_worker_takes_work_and_why_not() {
    let input = Input::of(1);
    let fleet = Fleet::start_some(&[MERGER.name], 1, &input.weather, &[ANY_PORT]);
    let url = urls(&fleet, 1).remove(0);
    until_ready_is(&url, 200, "ready").await;
    assert_eq!(get(&format!("{url}/livez")).await, (200, "ok\n".to_owned()));
    assert_eq!(get(&format!("{url}/elsewhere")).await.0, 404);
    succeed(fleet.wildrydes().args(["pause", MERGER.name]));
    until_ready_is(&url, 503, "paused").await;
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

/// Returns the sum of the series of a metric whose labels contain every part.
fn total(text: &str, name: &str, parts: &[&str]) -> f64 {
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let mine = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
    mine.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn metrics_count_every_ride_by_stage_and_name_none() {
    let input = Input::of(2_500);
    let fleet = Fleet::start_with(1, &input.weather, &[ANY_PORT]);
    let report = json_output(fleet.wildrydes().args(["ingest", "--until", "dataset"]).arg(&input.rides));
    fleet.champion();
    let manifest = &report["batches"][0]["manifest"];
    let count = |name: &str| manifest[name].as_f64().expect("a count");
    let mut text = String::new();
    for url in urls(&fleet, topology::PROCESSES.len()) {
        let (status, metrics) = get(&format!("{url}/metrics")).await;
        assert_eq!(status, 200);
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        let series = metrics.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= SERIES_MAX, "{series} series of {url}");
        text += &metrics;
    }
    let rides = |stage, outcome| {
        total(&text, "wildrydes_rides_total", &[&format!("stage=\"{stage}\""), &format!("outcome=\"{outcome}\"")])
    };
    assert_eq!(rides("splitter", "accepted"), count("accepted"));
    assert_eq!(rides("splitter", "rejected"), count("rejected"));
    assert_eq!(rides("weather-fetcher", "observed") + rides("weather-fetcher", "without_weather"), count("accepted"));
    assert_eq!(rides("merger", "joined"), count("accepted"));
    assert_eq!(total(&text, "wildrydes_verdicts_total", &["outcome=\"promoted\""]), 1.0);
    assert_eq!(total(&text, "messaging_client_consumed_messages_total", &["\"splitter\""]), 1.0);
    let handled = total(&text, "messaging_process_duration_seconds_count", &["\"splitter\"", "error_type=\"\""]);
    assert_eq!(handled, 1.0, "{text}");
    assert!(total(&text, "messaging_client_sent_messages_total", &["\"work\""]) >= 3.0, "{text}");
    assert!(total(&text, "wildrydes_store_operation_duration_seconds_count", &["operation=\"put\""]) > 0.0);
    assert_eq!(total(&text, "wildrydes_unconfirmed_publishes", &[]), 0.0);
    let batch_id = report["batches"][0]["batch_id"].as_str().expect("an id");
    assert!(!text.contains(batch_id), "no series per batch");
    let names: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.iter().all(|name| name.starts_with("messaging_") || name.starts_with("wildrydes_")), "{names:?}");
    fleet.finish().await;
}

/// The first span of a request to the gateway.
const ROOT: &str = "gateway request";
/// The kind of a span that handles a message.
const CONSUMER: i32 = 5;

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

/// Every span that a message carries was exported, so a trace is one tree from the request to its last consequence.
#[tokio::test]
async fn a_trace_follows_a_batch_from_the_upload_to_the_promotion_and_a_score_to_the_scorer() {
    let collector = Collector::start().await;
    let input = Input::of(4_000);
    let exporting = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let settings: Vec<_> = exporting.into_iter().chain(gateway::OPEN).collect();
    let mut fleet = Fleet::start_with(1, &input.weather, &settings);
    let api = gateway::launch(&mut fleet, 0);
    let rides = std::fs::read(&input.rides).unwrap();
    let sent = wait::within(SOON, "the gateway to take a batch", async || {
        api.post_bytes("/v1/batches", "application/json", rides.clone()).await.with_status(202)
    });
    let uploaded = sent.await.unwrap_or_else(|failure| panic!("{failure}"));
    let trace_id = uploaded.header("x-trace-id").to_owned();
    fleet.champion();
    let of_trace = |trace_id: &str| {
        let mut spans = collector.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans
    };
    let promoted = |span: &Span| span.attribute("messaging.rabbitmq.destination.routing_key") == "model-promoted.v1";
    let looked = wait::within(SOON, "the whole trace of the batch", async || {
        let spans = of_trace(&trace_id);
        spans.iter().find(|span| promoted(span)).map(|last| path_to(&spans, last)).filter(|path| path[0] == ROOT)
    });
    let path = looked.await.unwrap_or_else(|failure| panic!("{failure}: {:#?}", of_trace(&trace_id)));
    // The last message that the merger waits for comes from the splitter or from the weather-fetcher.
    let mut workers: Vec<&str> = path.iter().filter_map(|step| Some(step.split_once(" process ")?.0)).collect();
    workers.retain(|worker| *worker != WEATHER_FETCHER.name);
    assert_eq!(workers, ["splitter", "merger", "trainer"], "{path:?}");
    let spans = of_trace(&trace_id);
    let enriching = |span: &&Span| span.service == WEATHER_FETCHER.name && span.kind == CONSUMER;
    let enriched: Vec<Vec<String>> = spans.iter().filter(enriching).map(|span| path_to(&spans, span)).collect();
    assert_eq!(enriched.len(), 4, "one per chunk: {enriched:?}");
    assert!(enriched.iter().all(|path| path[0] == ROOT && path.len() == 5), "{enriched:?}");
    let ride = gateway::ride();
    let looked = wait::within(SOON, "a score", async || api.post("/v1/score", &ride).await.with_status(200));
    let scored = looked.await.unwrap_or_else(|failure| panic!("{failure}"));
    let trace_id = scored.header("x-trace-id").to_owned();
    let looked = wait::within(SOON, "the trace of the score", async || {
        let spans = of_trace(&trace_id);
        let answered = spans.iter().find(|span| span.service == "scorer" && span.name == "publish");
        answered.map(|last| path_to(&spans, last)).filter(|path| path[0] == ROOT)
    });
    let path = looked.await.unwrap_or_else(|failure| panic!("{failure}: {:#?}", of_trace(&trace_id)));
    assert_eq!(path, [ROOT, "gateway publish rpc", "scorer process scorer", "scorer publish"]);
    fleet.finish().await;
}
