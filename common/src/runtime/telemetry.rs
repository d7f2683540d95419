//! Logs: for people on a terminal, one JSON object a line otherwise; always on standard error.

use super::config::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan, util::SubscriberInitExt};

/// Tells why the process ends: as an event in the log, in the format that was chosen. Where nothing is logged, plainly.
pub fn fatal(why: &anyhow::Error) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(error = format!("{why:#}"), "ended");
    } else {
        eprintln!("error: {why:#}");
    }
}

/// Starts logging for this process. `RUST_LOG` wins over the settings.
///
/// # Errors
/// When `log.level` is no filter, or logging was started before.
pub fn start(settings: &LogSettings) -> anyhow::Result<()> {
    use anyhow::Context;
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(&text).with_context(|| format!("RUST_LOG = {text}"))?,
        // lapin repeats at error level what the runtime reports itself, once and with its context.
        Err(_) => EnvFilter::try_new(format!("{},lapin=off", settings.level))
            .with_context(|| format!("log.level = {}: expected error, warn, info, debug or trace", settings.level))?,
    };
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_span_events(FmtSpan::NONE);
    let started = match json {
        true => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init(),
        false => builder.with_ansi(terminal).with_target(false).finish().try_init(),
    };
    started.context("logging was started before")
}
