//! A stage much slower than the one before it.

use crate::{
    containers::Container,
    disturbed::{Disturbed, Observed, Plan},
    noaa::{Data, Fault, Noaa},
    processes::{Input, output},
};
use common::topology::{queue, retry_delays_of, retry_queue};
use std::time::{Duration, Instant};

/// Messages the weather-fetcher's queue holds at most, by policy; a quorum queue may take some more.
const LIMIT: u64 = 50;
const LIMIT_SLACK: u64 = 50;
/// Memory a worker that waits may grow by.
const GROWTH_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Batches a splitter that waits can have before it, at most: its queue's limit, some more, the one in its hands.
const BATCHES_MAX: usize = 20;

/// The weather service answers nothing for a long while. The queue before the weather-fetcher stays within its limit, the
/// splitter waits and says so, no process grows, and who hands in a batch is refused in plain words once the splitter's
/// queue is full, too. When the service answers, everything goes on.
pub async fn consumer(plan: &Plan, broker: &Container) -> Observed {
    let settings = broker.settings();
    let limit = |policy: &str, of: &str, length: u64| {
        let pattern = format!("^{}{of}$", settings.namespace.replace('.', "\\."));
        broker.ctl(&["set_policy", "--apply-to", "queues", policy, &pattern, &format!(r#"{{"max-length":{length}}}"#)]);
    };
    limit("small", queue::WEATHER_FETCHER, LIMIT);
    limit("tiny", queue::SPLITTER, 2);
    let patient = [("WILDRYDES__WEATHER__REQUEST_TIMEOUT_MS", "600000")];
    let input = Input::of(plan.rides);
    let noaa = Noaa::start(Data::Folder(input.weather.clone())).await.expect("a free port");
    noaa.fail_next("by_station", usize::from(u16::MAX), Fault::Hold);
    let mut batch = Disturbed::begin_with(plan, settings.clone(), input, &[], noaa.url().as_ref(), &patient);
    noaa.held(1).await;
    batch.fleet.wait_for_line(queue::SPLITTER, "the queue is full");
    let processes = [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER];
    let before = processes.map(|name| batch.fleet.resident(name, 0));
    let (mut deepest, mut grown, begun) = (0, 0, Instant::now());
    let mut refused = false;
    while begun.elapsed() < plan.away || !refused {
        let mut depth = batch.fleet.depth(queue::WEATHER_FETCHER).await.messages;
        for index in 0..retry_delays_of(queue::WEATHER_FETCHER).len() {
            depth += batch.fleet.depth(&retry_queue(queue::WEATHER_FETCHER, index)).await.messages;
        }
        deepest = deepest.max(depth);
        for (name, before) in processes.into_iter().zip(before) {
            grown = grown.max(batch.fleet.resident(name, 0).saturating_sub(before));
        }
        for _ in 0..BATCHES_MAX {
            if refused {
                break;
            }
            // The same batch: taken or refused, it changes nothing in the end.
            let ended = output(batch.fleet.wildrydes().args(["ingest", "--detach"]).arg(&batch.input.rides));
            refused = !ended.status.success();
            let told = String::from_utf8_lossy(&ended.stderr);
            assert!(!refused || told.contains("the queue is full"), "{told}");
        }
        assert!(refused, "{BATCHES_MAX} batches were taken where 2 should fill the queue");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    batch.struck();
    assert!(deepest <= LIMIT + LIMIT_SLACK, "{deepest} messages where {LIMIT} should be the limit");
    assert!(grown <= GROWTH_BYTES_MAX, "a worker grew by {grown} bytes while it waited");
    noaa.release();
    batch.await_dataset();
    broker.ctl(&["clear_policy", "small"]);
    broker.ctl(&["clear_policy", "tiny"]);
    let notes = format!(
        "stalled {} s: {deepest} messages at most (limit {LIMIT}), memory + {:.1} MB",
        begun.elapsed().as_secs(),
        grown as f64 / 1e6
    );
    batch.end(notes).await
}
