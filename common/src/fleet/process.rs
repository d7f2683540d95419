//! The processes of a fleet and the work queues that they read: names of users, binaries and sections derive from these tables.

#![allow(missing_docs)]

/// The work queues, named after the workers that read them.
pub mod queue {
    pub const SPLITTER: &str = "splitter";
    pub const WEATHER_FETCHER: &str = "weather-fetcher";
    pub const MERGER: &str = "merger";
    pub const TRAINER: &str = "trainer";
    pub const SCORER: &str = "scorer";
    pub const WEATHER_LOOKUP: &str = "weather-lookup";
    /// In the order of the flow, then the queues of requests.
    pub const ALL: [&str; 6] = [SPLITTER, WEATHER_FETCHER, MERGER, TRAINER, SCORER, WEATHER_LOOKUP];
}

/// A process of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Name of the binary and of the user at the broker, also in the property `app_id` and in logs.
    pub name: &'static str,
    /// The work queues it reads.
    pub queues: &'static [&'static str],
    /// Its section of the configuration.
    pub section: &'static str,
}

pub const SPLITTER: Process = worker(&[queue::SPLITTER], queue::SPLITTER);
/// Lookups share its caches.
pub const WEATHER_FETCHER: Process = worker(&[queue::WEATHER_FETCHER, queue::WEATHER_LOOKUP], "weather");
pub const MERGER: Process = worker(&[queue::MERGER], queue::MERGER);
pub const TRAINER: Process = worker(&[queue::TRAINER], queue::TRAINER);
pub const SCORER: Process = worker(&[queue::SCORER], queue::SCORER);
/// The HTTP service in front of the fleet: publisher and client at once; it also browses dead letters.
pub const GATEWAY: Process = Process { name: "gateway", queues: &[], section: "gateway" };
/// In the order of the flow.
pub const ALL: [Process; 6] = [SPLITTER, WEATHER_FETCHER, MERGER, TRAINER, SCORER, GATEWAY];

/// A process named after the first of its queues.
const fn worker(queues: &'static [&'static str], section: &'static str) -> Process {
    Process { name: queues[0], queues, section }
}

/// Names of the processes that read a work queue, in the order of the flow.
pub const PROCESSES: [&str; 5] = [SPLITTER.name, WEATHER_FETCHER.name, MERGER.name, TRAINER.name, SCORER.name];

/// Returns the name of the process that reads a work queue.
pub fn process_of(queue: &str) -> &str {
    ALL.iter().find(|process| process.queues.contains(&queue)).map_or(queue, |process| process.name)
}

/// Role of an external client that publishes batches and follows them.
pub const PUBLISHER: &str = "publisher";
/// Role of an external client that requests scores and weather.
pub const CLIENT: &str = "client";
/// Role of a program that scales workers by the lengths of their queues.
pub const SCALER: &str = "scaler";
/// Role of the person who operates the fleet.
pub const OPERATOR: &str = "operator";
