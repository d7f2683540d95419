//! Memory and disk alarms: the broker accepts no publishes for some time, and says so.

use crate::{
    containers::Container,
    disturbed::{Disturbed, Observed, Plan},
    processes::{Input, output},
};
use common::topology::queue;
use std::{process::Child, time::Duration};

/// A memory alarm.
pub async fn memory(plan: &Plan, broker: &Container) -> Observed {
    let limit = |limit: &str| drop(broker.ctl(&["set_vm_memory_high_watermark", limit]));
    strike(plan, broker, || limit("0.00001"), || limit("0.6"), "low on memory").await
}

/// A disk alarm.
pub async fn disk(plan: &Plan, broker: &Container) -> Observed {
    let limit = |limit: &str| drop(broker.ctl(&["set_disk_free_limit", limit]));
    strike(plan, broker, || limit("1000000000000000"), || limit("50000000"), "low on disk").await
}

/// Raises the alarm when everything but the merger's work is done. During it the merger reads every chunk and completes the
/// dataset; its announcement waits and the log says so, and a submission reports neither success nor failure. Afterwards
/// everything continues.
async fn strike(plan: &Plan, broker: &Container, alarm: impl Fn(), over: impl Fn(), reason: &str) -> Observed {
    /// Deadlines of confirms pass during the alarm, and must not count.
    const CONFIRM_MS: u64 = 1_000;
    let environment = [("WILDRYDES__BROKER__CONFIRM_TIMEOUT_MS", &*CONFIRM_MS.to_string())];
    let input = Input::of(plan.rides);
    let weather = input.weather.clone();
    let without = &[queue::MERGER];
    let mut batch = Disturbed::begin_with(plan, broker.settings(), input, without, weather.as_os_str(), &environment);
    batch.settled(&[queue::SPLITTER, queue::WEATHER_FETCHER]).await;
    alarm();
    batch.count_fault();
    let mut waiting = batch.ingest_in_background();
    batch.fleet.launch(queue::MERGER, 0);
    batch.await_dataset();
    batch.fleet.wait_for_line(queue::MERGER, reason);
    // The duration of the fault: longer than any deadline of a confirm.
    tokio::time::sleep(plan.away.max(Duration::from_millis(CONFIRM_MS * 2))).await;
    assert!(waiting.try_wait().expect("it can be waited for").is_none(), "{}", output_of(waiting));
    let mut score = batch.fleet.wildrydes();
    score.args(["score", "--fleet", "--timeout-ms", "1000", "--distance", "30", "--healthpoints", "295"]);
    let asked = output(score.args(["--magicpoints", "301", "--tmin", "111", "--tmax", "156", "--prcp", "0"]));
    let stderr_text = String::from_utf8_lossy(&asked.stderr);
    assert!(!asked.status.success() && stderr_text.contains("takes no publishes for now"), "{stderr_text}");
    assert!(!batch.fleet.store().join("models").exists(), "the merger's announcement cannot have got through");
    over();
    let text = output_of(waiting);
    assert!(text.starts_with("exit status: 0") && text.contains(reason), "{text}");
    batch.fleet.wait_for_line(queue::MERGER, "takes publishes again");
    batch.end(format!("{} s under the alarm", plan.away.as_secs())).await
}

/// Waits for the end of a process. Returns its exit status and output as text.
fn output_of(child: Child) -> String {
    let output = child.wait_with_output().expect("it ends");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}\n{err}", output.status)
}
