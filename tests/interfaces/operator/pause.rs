//! Tests of `wildrydes pause`, `resume` and `drain`.

use super::{ends_with, managed};
use pipeline_tests::{
    processes::{Fleet, Input, json_output, succeed},
    rabbitmq::rabbitmq,
};
use serde_json::{Value, json};

fn queue_status(fleet: &Fleet, worker: &str) -> Value {
    let report = json_output(fleet.wildrydes().arg("status"));
    let queues = report["queues"].as_array().unwrap();
    queues.iter().find(|queue| queue["queue"] == worker).unwrap().clone()
}

/// A paused worker reads nothing, nor do processes that start later. All resume on request.
#[tokio::test]
async fn a_pause_holds_over_restarts_until_it_is_ended() {
    let input = Input::of(1_200);
    let expected = input.run(&[])["batches"][0]["manifest"].clone();
    let mut fleet = Fleet::start(2, &input.weather);
    let text = succeed(fleet.wildrydes().args(["pause", "weather-fetcher", "--why", "a test", "--by", "ada"]));
    assert!(text.contains("weather-fetcher is paused"), "{text}");
    let batch = json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides))["batch_id"].clone();
    let paused_lines = |fleet: &Fleet| {
        let paused = |line: &&Value| line["worker"] == "weather-fetcher" && line["message"] == "paused";
        fleet.logs().iter().filter(paused).count()
    };
    fleet.wait_for("the chunks", |_| queue_status(&fleet, "weather-fetcher")["messages"] == 2);
    let before = paused_lines(&fleet);
    fleet.kill("weather-fetcher", 0);
    fleet.launch("weather-fetcher", 0);
    fleet.wait_for("a line of the new process", |_| paused_lines(&fleet) > before);
    let status = succeed(fleet.wildrydes().arg("status"));
    assert!(status.contains("weather-fetcher is paused since") && status.contains("by ada: a test"), "{status}");
    let row = status.lines().find(|line| line.starts_with("weather-fetcher ") && !line.contains("since")).unwrap();
    assert!(row.ends_with("paused"), "{status}");
    let queue = queue_status(&fleet, "weather-fetcher");
    assert_eq!((&queue["consumers"], &queue["paused"]), (&json!(0), &json!(true)));
    assert_eq!(json_output(fleet.wildrydes().arg("status"))["paused"][0]["by"], "ada");
    let text = succeed(fleet.wildrydes().args(["resume", "weather-fetcher"]));
    assert!(text.contains("weather-fetcher is resumed"), "{text}");
    assert_eq!(fleet.manifest(batch.as_str().unwrap()), expected);
    assert_eq!(json_output(fleet.wildrydes().arg("status"))["paused"], json!([]));
    fleet.champion();
    fleet.finish().await;
}

/// After a drain nothing is in flight: started work has its dataset, new batches wait for the resume.
#[tokio::test]
async fn a_drain_ends_when_nothing_is_in_flight() {
    let input = Input::of(20_000);
    let fleet = Fleet::start(1, &input.weather);
    let mut drain = fleet.wildrydes();
    let Some(_) = &rabbitmq().management else {
        let text = ends_with(drain.arg("drain"), 1);
        assert!(text.contains("--quiet-for"), "{text}");
        return fleet.finish().await;
    };
    let closed = ends_with(drain.args(["drain", "--set", "broker.management_url=http://127.0.0.1:1"]), 1);
    assert!(closed.contains("--quiet-for") && closed.contains("Nothing was paused"), "{closed}");
    let first = json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides))["batch_id"].clone();
    fleet.wait_for("the batch to be begun", |store| store.join("batches").is_dir());
    let text = succeed(managed(&mut fleet.wildrydes()).args(["drain", "--timeout", "5m"]));
    assert!(text.contains("drained: nothing is in flight"), "{text}");
    let finished = fleet.store().join(format!("dataset/{}/manifest.json", first.as_str().unwrap()));
    let begun = !finished.is_file() && queue_status(&fleet, "splitter")["messages"] == 0;
    assert!(!begun, "what was begun is finished");
    let more = input.folder().join("more.json");
    succeed(fleet.wildrydes().args(["generate", "rides", "--rides", "100", "--seed", "9"]).arg(&more));
    let second = json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&more))["batch_id"].clone();
    assert!(queue_status(&fleet, "splitter")["messages"].as_u64() >= Some(1), "it waits");
    let again = managed(&mut fleet.wildrydes()).args(["drain", "--timeout", "5m"]).output().unwrap();
    assert!(again.status.success(), "drained is drained: {again:?}");
    succeed(fleet.wildrydes().args(["resume", "splitter"]));
    for batch in [first, second] {
        fleet.manifest(batch.as_str().unwrap());
    }
    fleet.champion();
    fleet.finish().await;
}

/// A drain cannot end while a stage is paused: it names the stage and what to do, while it waits and when it gives up.
#[tokio::test]
async fn a_drain_names_the_stage_that_nobody_reads() {
    let input = Input::of(100);
    let fleet = Fleet::start(1, &input.weather);
    succeed(fleet.wildrydes().args(["pause", "merger"]));
    let batch = json_output(fleet.wildrydes().args(["ingest", "--detach"]).arg(&input.rides))["batch_id"].clone();
    fleet.wait_for("the chunk", |_| queue_status(&fleet, "merger")["messages"] == 2);
    let output_text =
        ends_with(managed(&mut fleet.wildrydes()).args(["drain", "--timeout", "2s", "--quiet-for", "1h"]), 1);
    let text = output_text.matches("no process reads merger").count();
    assert!(
        text >= 2 && output_text.contains("`wildrydes resume`"),
        "once in the progress, once at the end: {output_text}"
    );
    succeed(fleet.wildrydes().args(["resume", "merger", "splitter"]));
    fleet.manifest(batch.as_str().unwrap());
    fleet.champion();
    fleet.finish().await;
}
