//! The sections `store`, `run`, `log` and `telemetry`.

use super::{
    problem::Problem,
    reference::{Entry, flag, number, text},
    settings::Settings,
};
use records::StoreSettings;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

impl Settings for StoreSettings {
    const SECTION: &'static str = "store";
    const REFERENCE: &'static [Entry] = &[
        text("url", "path, file:///…, s3://…, gs://… or az://…")
            .means("the object store that all workers of a fleet share: a folder, or BUCKET/PREFIX of a service"),
        flag("fsync").means(
            "whether a write to a folder waits until it is on the disk: survives a power failure, but is slower",
        ),
        text("endpoint", "https://HOST:PORT").means("address of a service that is not the provider's own"),
        text("region", "as in eu-central-1").means("region of an S3 bucket; without it, AWS_REGION, else us-east-1"),
        flag("path_style").means("whether requests to S3 name the bucket in their path; false: in the host name"),
        flag("allow_http").means("whether endpoint may be http://…, which encrypts nothing"),
    ];
}

/// Less than RabbitMQ's `consumer_timeout` (30 minutes), to leave time for publishing the outputs.
const HANDLE_TIMEOUT_MS_MAX: u64 = 25 * 60 * 1_000;

/// `[run]`: the loop that runs a worker.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Number of messages handled concurrently, 1 to 1,000; each worker has its own default.
    pub concurrency: Option<u16>,
    /// Maximum number of unacknowledged deliveries, `concurrency` to 10,000; each worker has its own default.
    pub prefetch: Option<u16>,
    /// Time for running handlers to finish after a shutdown request, in milliseconds, 0 to 3,600,000.
    pub drain_deadline_ms: u64,
    /// Maximum duration of one handler in milliseconds, 1,000 to 1,500,000 (25 minutes). After its `consumer_timeout`
    /// of 30 minutes RabbitMQ ends the consumer and counts a delivery towards the message's delivery limit.
    pub handle_timeout_ms: u64,
    /// Time without progress after which `wildrydes run` and `wildrydes ingest` name the cause, in milliseconds, 0 (at
    /// once) to 3,600,000.
    pub patience_ms: u64,
    /// Hours between two refreshes of the batches whose weather was not yet published, by `wildrydes up` and by a command with
    /// `--serve`: 0 (none) to 8,760. Every other process ignores it.
    pub refresh_hours: u32,
    /// Address and port of the listener for `/livez`, `/readyz` and `/metrics` of a worker; empty for none.
    pub health_bind: String,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            concurrency: None,
            prefetch: None,
            drain_deadline_ms: 20_000,
            handle_timeout_ms: 20 * 60 * 1_000,
            patience_ms: 10_000,
            refresh_hours: 0,
            health_bind: String::new(),
        }
    }
}

impl RunSettings {
    /// Returns the address of the listener for probes and metrics, if there is one.
    ///
    /// # Errors
    /// Fails if the setting is not an address with a port.
    pub fn health_address(&self) -> Result<Option<SocketAddr>, Problem> {
        let expected = "an address and a port, as in 127.0.0.1:8081 or [::]:8081, or empty";
        match self.health_bind.as_str() {
            "" => Ok(None),
            bind => bind.parse().map(Some).map_err(|_| Problem::new("health_bind", bind, expected)),
        }
    }
}

impl Settings for RunSettings {
    const SECTION: &'static str = "run";
    const REFERENCE: &'static [Entry] = &[
        number("concurrency", "messages", 1..=1_000)
            .means("messages handled at the same time; each worker has its own default"),
        number("prefetch", "messages", 1..=10_000)
            .means("maximum number of messages held, at least concurrency; each worker has its own default"),
        number("drain_deadline_ms", "milliseconds", 0..=3_600_000)
            .means("maximum time for running handlers to finish after a shutdown signal"),
        number("handle_timeout_ms", "milliseconds", 1_000..=HANDLE_TIMEOUT_MS_MAX)
            .means("maximum time of one handler; below RabbitMQ's consumer_timeout"),
        number("patience_ms", "milliseconds", 0..=3_600_000)
            .means("time without progress after which run and ingest report the cause"),
        number("refresh_hours", "hours", 0..=8_760)
            .means("time between two refreshes of stale batches, by up and --serve only; 0: none"),
        text("health_bind", "HOST:PORT or empty")
            .means("listener of a worker for /livez, /readyz and /metrics; empty: none"),
    ];

    fn check_rules(&self) -> Result<(), Problem> {
        match (self.prefetch, self.concurrency) {
            (Some(prefetch), Some(concurrency)) if prefetch < concurrency => {
                Err(Problem::new("prefetch", prefetch, format!("at least run.concurrency, {concurrency}")))
            }
            _ => self.health_address().map(|_| ()),
        }
    }
}

/// `[log]`: level and format of the logs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Filter as in `RUST_LOG`, which takes precedence: `info`, `debug`, `common=debug,info`. Libraries log at `info`
    /// or above only.
    pub level: String,
    /// Format of the lines.
    pub format: LogFormat,
}

/// `[telemetry]`: the traces.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Base URL of a collector that takes OTLP over HTTP; empty: as in `OTEL_EXPORTER_OTLP_ENDPOINT`, else none.
    pub otlp: String,
}

impl Settings for TelemetrySettings {
    const SECTION: &'static str = "telemetry";
    const REFERENCE: &'static [Entry] = &[text("otlp", "http://HOST:PORT or empty")
        .means("collector of traces (OTLP over HTTP); empty: as in OTEL_EXPORTER_OTLP_ENDPOINT, else none")];
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable on a terminal, else JSON.
    Auto,
    /// Human-readable.
    Human,
    /// One JSON object per line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Settings for LogSettings {
    const SECTION: &'static str = "log";
    const REFERENCE: &'static [Entry] = &[
        text("level", "as in RUST_LOG")
            .means("log level, as in info, debug or common=debug,info; RUST_LOG overrides it"),
        text("format", "auto | human | json").means("format of log lines; auto: human on a terminal, else json"),
    ];
}
