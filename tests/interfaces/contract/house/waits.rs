//! Tests wait in one way.

use super::{names, sources};

/// Folders and files that sleep for their purpose: the waiting module, the simulation in virtual time, the measurements.
const PURPOSES: [&str; 3] = ["tests/measure/", "tests/support/simulation/", "tests/support/wait.rs"];
/// Files of tests that sleep because the time itself is the point.
const SLEEPERS: [&str; 9] = [
    // The lifetime of a request.
    "tests/interfaces/conformance/broker.rs",
    // A reader that is busy for longer than a request may take.
    "tests/interfaces/conformance/store/cloud.rs",
    // The pace of requests during an outage.
    "tests/interfaces/gateway/deadlines.rs",
    // The planned duration of a fault.
    "tests/support/faults/alarms.rs",
    "tests/support/faults/broker.rs",
    // A random moment within a handler.
    "tests/support/faults/kills.rs",
    // The planned duration of a fault.
    "tests/support/faults/queues.rs",
    // The interval of samples.
    "tests/support/faults/slow.rs",
    // The delay and the rate of a slow network.
    "tests/support/proxy.rs",
];

#[test]
fn only_the_waiting_module_sleeps() {
    let mut files = sources("tests");
    files.retain(|(file, source)| {
        !PURPOSES.iter().any(|purpose| file.starts_with(purpose))
            && !names(source, &["sleep", "sleep_until"]).is_empty()
    });
    let files: Vec<String> = files.into_iter().map(|(file, _)| file).collect();
    assert_eq!(files, SLEEPERS, "files that sleep instead of a wait by `support/wait.rs`, and those that may");
}
