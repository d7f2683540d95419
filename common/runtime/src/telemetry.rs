//! Logs on standard error: human-readable on a terminal, else one JSON object per line.

use super::config::{LogFormat, LogSettings};
use common::topology::{Process, process};
use std::io::IsTerminal;
use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, fmt::format::FmtSpan, layer::SubscriberExt, util::SubscriberInitExt,
};

/// The crates of this project beside those of its processes: prefixes of the targets of their log lines.
const OWN_CRATES: [&str; 4] = ["common", "records", "runtime", "wildrydes"];
/// Most detailed level at which libraries may log. Their debug and trace lines contain the data that they send and
/// receive, passwords and keys included.
const LIBRARIES_MAX: LevelFilter = LevelFilter::INFO;

/// Returns whether a line may be logged, whatever `RUST_LOG` requests.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let of_crate = metadata.target().split("::").next().unwrap_or_default();
    let is_process = |process: &Process| process.name.split('-').eq(of_crate.split('_'));
    let is_own = OWN_CRATES.contains(&of_crate) || process::ALL.iter().any(is_process);
    is_own || *metadata.level() <= LIBRARIES_MAX
}

/// Reports why the process ends: in the log, or on standard error if nothing is logged.
pub fn fatal(why: &anyhow::Error) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(error = format!("{why:#}"), "ended");
    } else {
        eprintln!("error: {why:#}");
    }
}

/// Starts logging for this process. `RUST_LOG` takes precedence over the settings. Libraries log at level info or above
/// in any case, because their more detailed lines contain secrets.
///
/// # Errors
/// Fails if `log.level` is not a valid filter, or logging is already started.
pub fn start(settings: &LogSettings) -> anyhow::Result<()> {
    use anyhow::Context;
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(&text).with_context(|| format!("RUST_LOG = {text}"))?,
        // lapin logs as errors what the runtime reports itself with more context.
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
    let cap = filter_fn(may_be_logged);
    let started = match json {
        true => {
            let json = builder.json().flatten_event(true).with_current_span(true).with_span_list(false);
            json.finish().with(cap).try_init()
        }
        false => builder.with_ansi(terminal).with_target(false).finish().with(cap).try_init(),
    };
    started.context("logging is already started")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn libraries_log_no_frames_at_any_level() {
        let log = Log::default();
        let written = log.clone();
        let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new("trace"));
        let subscriber = builder.with_writer(move || written.clone()).finish().with(filter_fn(may_be_logged));
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "runtime::amqp", "own trace");
            tracing::info!(target: "lapin::connection", "library info");
            tracing::debug!(target: "lapin::connection", "library debug");
            tracing::trace!(target: "amqp_protocol", "library trace");
            tracing::trace!(target: "commons::x", "other trace");
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines = ["own trace", "library info", "library debug", "library trace", "other trace"];
        assert_eq!(lines.map(|line| text.contains(line)), [true, true, false, false, false], "{text}");
    }
}
