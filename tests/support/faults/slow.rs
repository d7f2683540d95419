//! A stage that is much slower than the one before it.

use crate::{
    containers::Container,
    disturbed::{Disturbed, Observed, Plan},
    noaa::{Data, Fault, Noaa},
    processes::{Input, output},
};
use common::topology::{queue, retry_delays_of, retry_queue};
use std::time::{Duration, Instant};

/// Maximum number of messages in the weather-fetcher's queue, by policy; a quorum queue may accept some more.
const LIMIT: u64 = 50;
const LIMIT_SLACK: u64 = 50;
/// Maximum growth of a waiting worker's memory, bytes.
const GROWTH_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Maximum number of batches before a waiting splitter: its queue's limit, some more, and the one that it holds.
const BATCHES_MAX: usize = 20;

/// The weather service does not answer for a long time. The weather-fetcher's queue stays within its limit, the splitter waits
/// and says so, no process grows, and a submission is refused with a clear error once the splitter's queue is full as well.
/// When the service answers, everything continues.
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
        for retry in 0..retry_delays_of(queue::WEATHER_FETCHER).len() {
            depth += batch.fleet.depth(&retry_queue(queue::WEATHER_FETCHER, retry)).await.messages;
        }
        deepest = deepest.max(depth);
        for (name, before) in processes.into_iter().zip(before) {
            grown = grown.max(batch.fleet.resident(name, 0).saturating_sub(before));
        }
        for _ in 0..BATCHES_MAX {
            if refused {
                break;
            }
            // The same batch again: accepted or refused, it changes nothing.
            let ended = output(batch.fleet.wildrydes().args(["ingest", "--detach"]).arg(&batch.input.rides));
            refused = !ended.status.success();
            let stderr_text = String::from_utf8_lossy(&ended.stderr);
            assert!(!refused || stderr_text.contains("the queue is full"), "{stderr_text}");
        }
        assert!(refused, "{BATCHES_MAX} batches were taken where 2 should fill the queue");
        // The interval of the samples; the number of publishes before a refusal ends the loop.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    batch.count_fault();
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
