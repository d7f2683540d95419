//! Progress on standard error: a bar on a terminal, plain lines otherwise, nothing with `--json`.

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressState, ProgressStyle};
use std::{
    fmt,
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Time between two lines about a step of unknown length.
const UNMEASURED_EVERY: Duration = Duration::from_secs(5);

/// Progress of one step of work.
pub(crate) struct Step {
    bar: Option<ProgressBar>,
    lines: bool,
    title: String,
    unit: Unit,
    length: u64,
    printed_percent: AtomicU64,
    /// Number of intervals of [`UNMEASURED_EVERY`] that had passed when the amount was last printed.
    printed_interval: AtomicU64,
    started: Instant,
}

/// Unit of a step.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Bytes,
    Rides,
}

impl Unit {
    /// Formats an amount of this unit.
    fn amount(self, amount: u64) -> String {
        match self {
            Self::Bytes => HumanBytes(amount).to_string(),
            Self::Rides => format!("{} rides", HumanCount(amount)),
        }
    }
}

impl Step {
    /// Starts a step of `length` units; 0 if the length is not known yet.
    pub(crate) fn start(title: impl Into<String>, unit: Unit, length: u64, quiet: bool) -> Self {
        let title = title.into();
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let template = match unit {
                Unit::Bytes if length == 0 => "{prefix:<28} {bytes:>10} {bytes_per_sec:>12} {elapsed:>4}",
                Unit::Bytes => {
                    "{prefix:<28} {wide_bar} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12} {elapsed:>4}"
                }
                Unit::Rides => "{prefix:<28} {wide_bar} {human_pos:>10} {of:<13} {rate:>14} {elapsed:>4}",
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let style = style
                .with_key("of", |state: &ProgressState, out: &mut dyn fmt::Write| {
                    let _ = match state.len() {
                        Some(length) if length > 0 => write!(out, "of {}", HumanCount(length)),
                        _ => Ok(()),
                    };
                })
                .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                    let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
                });
            let bar = ProgressBar::new(length).with_style(style).with_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            lines: !terminal && !quiet,
            title,
            unit,
            length,
            printed_percent: 0.into(),
            printed_interval: 0.into(),
            started: Instant::now(),
        }
    }

    /// Shows the position reached.
    pub(crate) fn at(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
        // Without a terminal: a line at each quarter of a step that takes longer.
        let percent = (position * 100).checked_div(self.length).unwrap_or(0) / 25 * 25;
        let elapsed = self.started.elapsed();
        if self.lines && self.length == 0 && position > 0 {
            let every = UNMEASURED_EVERY.as_secs();
            let interval = elapsed.as_secs() / every;
            if interval > self.printed_interval.swap(interval, Relaxed) {
                eprintln!("{}: {} so far", self.title, self.unit.amount(position));
            }
        }
        let slow = elapsed > Duration::from_secs(3);
        if self.lines && slow && percent > self.printed_percent.load(Relaxed) && percent < 100 {
            self.printed_percent.store(percent, Relaxed);
            eprintln!("{}: {percent} %", self.title);
        }
    }

    /// Prints a line without disturbing the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Sets the length once it is known.
    pub(crate) fn set_length(&mut self, length: u64) {
        self.length = length;
        if let Some(bar) = &self.bar {
            bar.set_length(length);
        }
    }

    /// Ends the step: replaces the bar by a line with the amount.
    pub(crate) fn done(self, amount: u64) {
        let amount = self.unit.amount(amount);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.bar.is_some() || self.lines {
            eprintln!("{}: {amount}", self.title);
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
