//! The sections `store`, `run` and `log`.

use super::settings::{Problem, Settings};
use records::StoreSettings;
use serde::{Deserialize, Serialize};

impl Settings for StoreSettings {
    const SECTION: &'static str = "store";
}

/// Below RabbitMQ's `consumer_timeout`, with time to publish what came of it.
const HANDLE_TIMEOUT_MS_MAX: u64 = 25 * 60 * 1_000;

/// `[run]`: the loop around a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Messages handled at the same time; each worker has its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// Deliveries held at most; each worker has its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u16>,
    /// How long running handlers may take to finish once a shutdown was asked for.
    pub drain_deadline_ms: u64,
    /// How long one handler may take, 25 minutes at most: RabbitMQ's `consumer_timeout` of 30 minutes ends a consumer that
    /// holds a message for longer, and counts it as one that somebody died on.
    pub handle_timeout_ms: u64,
    /// How long `wildrydes run` and `wildrydes ingest` wait without progress before they name the cause, one hour at most; 0 names
    /// it at once.
    pub patience_ms: u64,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            concurrency: None,
            prefetch: None,
            drain_deadline_ms: 20_000,
            handle_timeout_ms: 20 * 60 * 1_000,
            patience_ms: 10_000,
        }
    }
}

impl Settings for RunSettings {
    const SECTION: &'static str = "run";

    fn check(&self) -> Result<(), Problem> {
        Problem::unless_within("concurrency", self.concurrency.unwrap_or(1), 1..=1_000)?;
        let at_least = self.concurrency.unwrap_or(1);
        Problem::unless_within("prefetch", self.prefetch.unwrap_or(at_least), at_least..=10_000)?;
        Problem::unless_within("drain_deadline_ms", self.drain_deadline_ms, 0..=3_600_000)?;
        Problem::unless_within("handle_timeout_ms", self.handle_timeout_ms, 1_000..=HANDLE_TIMEOUT_MS_MAX)?;
        Problem::unless_within("patience_ms", self.patience_ms, 0..=3_600_000)
    }
}

/// `[log]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// As in `RUST_LOG`, which wins: `info`, `debug`, `common=debug,info`. Libraries log at `info` at most.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Settings for LogSettings {
    const SECTION: &'static str = "log";
}
