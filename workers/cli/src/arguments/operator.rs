//! Arguments of the operator's commands: `dead`, `replay`, `refresh`, `pause`, `resume`, `drain`.

use super::weather::Weather;
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use common::topology::queue;
use std::{num::NonZeroU32, path::PathBuf, time::Duration};

/// `dead`
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, one line each
    #[command(after_help = "\
Examples:
  wildrydes dead list                                     of every queue, the first 100
  wildrydes dead list --summary                           how many, by queue and reason
  wildrydes dead list --queue splitter --reason object_missing --older-than 2h
  wildrydes dead list --batch 450c7f9391a7a29b --json")]
    List(ListDead),
    /// Print dead letters with their properties and bodies
    #[command(after_help = "\
Examples:
  wildrydes dead show 3f2a9c11d0e4
  wildrydes dead show 3f2a9c11d0e4 --full --json")]
    Show {
        /// Ids, as `dead list` prints them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Print long bodies to their end
        #[arg(long)]
        full: bool,
    },
    /// Publish dead letters again, unchanged, to their original exchange, with all attempts left; replaying twice changes
    /// nothing
    #[command(after_help = "\
Examples:
  wildrydes dead replay 3f2a9c11d0e4
  wildrydes dead replay --reason attempts_exhausted --dry-run
  wildrydes dead replay --queue weather-fetcher --newer-than 1d --rate 10
  wildrydes dead replay --all

Each letter leaves its queue once the broker has confirmed its replay. After an interruption the same command continues.")]
    Replay {
        /// Which letters to select.
        #[command(flatten)]
        filter: LetterFilter,
        /// Select every letter; required if no condition is given
        #[arg(long)]
        all: bool,
        /// Maximum number of letters per second
        #[arg(long, default_value = "50", value_name = "N")]
        rate: NonZeroU32,
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove dead letters from their queues; a copy of each stays in the object store below dead/
    #[command(after_help = "\
Examples:
  wildrydes dead drop 3f2a9c11d0e4                        shows the letters and asks for confirmation
  wildrydes dead drop --queue splitter --reason invalid_json --older-than 30d --yes
  wildrydes dead drop --all --dry-run")]
    Drop {
        /// Which letters to select.
        #[command(flatten)]
        filter: LetterFilter,
        /// Select every letter; required if no condition is given
        #[arg(long)]
        all: bool,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Publish dead letters again from the copies that `dead drop` or `dead export` wrote, to their original exchange, with all
    /// attempts left
    #[command(after_help = "\
Examples:
  wildrydes dead restore 454bca14749c                     a dropped letter, from its copy in the object store
  wildrydes dead restore dead.ndjson --dry-run            all letters of an export

The copies stay. Restoring a letter twice, or while it is still in its queue, changes nothing.")]
    Restore {
        /// Ids of dropped letters, or files with copies, as `dead export` writes them
        #[arg(required = true, value_name = "ID|FILE")]
        copies: Vec<String>,
        /// Maximum number of letters per second
        #[arg(long, default_value = "50", value_name = "N")]
        rate: NonZeroU32,
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write dead letters to a file or standard output, one JSON object per line; they stay in their queues
    #[command(after_help = "\
Examples:
  wildrydes dead export --file dead.ndjson
  wildrydes dead export --queue merger | jq -r .why | sort | uniq -c")]
    Export {
        /// Which letters to select.
        #[command(flatten)]
        filter: LetterFilter,
        /// The file to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Replace FILE if it exists
        #[arg(long)]
        force: bool,
    },
}

/// `dead list`
#[derive(Debug, Args)]
pub struct ListDead {
    /// Which letters to select.
    #[command(flatten)]
    pub filter: LetterFilter,
    /// Count the letters by queue and reason instead
    #[arg(long)]
    pub summary: bool,
}

/// Selects the dead letters that meet every given condition.
#[derive(Debug, Clone, Default, Args)]
pub struct LetterFilter {
    /// Ids, as `dead list` prints them
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Letters of this worker's queue; can be repeated
    #[arg(long = "queue", value_name = "WORKER", value_parser = workers())]
    pub queues: Vec<String>,
    /// Letters with this reason, as in object_missing
    #[arg(long)]
    pub reason: Option<String>,
    /// Letters of this batch
    #[arg(long, value_name = "ID")]
    pub batch: Option<String>,
    /// Letters given up at least this long ago, as in 90s, 30m, 2h, 7d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<Duration>,
    /// Letters given up at most this long ago
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub newer_than: Option<Duration>,
    /// Maximum number of letters; 0 for all [default: 100 for `dead list`, otherwise all]
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// `replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// Ids of the batches to publish again
    #[arg(value_name = "BATCH", required_unless_present = "all")]
    pub batches: Vec<String>,
    /// Every batch of the store
    #[arg(long, conflicts_with = "batches")]
    pub all: bool,
    /// Return once the broker has confirmed the batches, without waiting for their datasets
    #[arg(long)]
    pub detach: bool,
    /// Print what would be published, and publish nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Examples of `refresh`.
pub(super) const REFRESH_EXAMPLES: &str = "\
Examples:
  wildrydes refresh 450c7f9391a7a29b                      in this process, with the weather of NOAA's open-data bucket
  wildrydes refresh 450c7f9391a7a29b --weather noaa/      with the weather of a folder
  wildrydes refresh --stale --broker amqp://localhost/%2f     with a fleet: every batch whose weather was not yet published
  wildrydes refresh --stale --no-wait                     for a schedule
  wildrydes refresh --stale --dry-run

Earlier revisions stay as they are. Unchanged weather makes no revision. Training, export and the page use the newest one.";

/// `refresh`
#[derive(Debug, Args)]
pub struct Refresh {
    /// Ids of the batches to join again
    #[arg(value_name = "BATCH", required_unless_present = "stale")]
    pub batches: Vec<String>,
    /// Every batch with rides whose weather was not yet published when they were joined
    #[arg(long, conflicts_with = "batches")]
    pub stale: bool,
    /// Return once the broker has confirmed the messages, without waiting for the outcome
    #[arg(long)]
    pub no_wait: bool,
    /// Print which batches would be joined again, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Weather options, without a fleet.
    #[command(flatten)]
    pub weather: Weather,
}

/// `pause` and `resume`
#[derive(Debug, Args)]
pub struct Pause {
    /// Workers to pause or resume
    #[arg(required = true, value_name = "WORKER", value_parser = workers())]
    pub workers: Vec<String>,
    /// The reason, recorded with the change
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// The author, recorded with the change [default: this user on this machine]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// How long to wait for every process of the worker to follow
    #[arg(long, default_value = "30s", value_name = "AGE", value_parser = age)]
    pub timeout: Duration,
}

/// `drain`
#[derive(Debug, Args)]
pub struct Drain {
    /// How long to wait until no message is in flight [default: no limit]
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub timeout: Option<Duration>,
    /// If the management API is unavailable, report the fleet as drained once the queues have been empty for this long. Required
    /// then, because only that API knows which messages workers have in hand
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub quiet_for: Option<Duration>,
    /// The reason, recorded with the change
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
}

fn workers() -> PossibleValuesParser {
    PossibleValuesParser::new(queue::ALL)
}

/// Parses a duration, as in `90s`, `30m`, `2h`, `7d`.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?}: expected a whole number followed by s, m, h or d, as in 30m or 2h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].trim().parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_has_a_number_and_a_unit() {
        let seconds = |text| age(text).map(|age| age.as_secs());
        let ages = ["90s", "30m", "2h", "7d"].map(seconds);
        assert_eq!(ages, [Ok(90), Ok(1_800), Ok(7_200), Ok(604_800)]);
        for text in ["", "2", "h", "2 weeks", "-1h", "1.5h", "99999999999999999999d", "300000000000000000d", "2é"] {
            assert!(age(text).is_err_and(|why| why.contains("30m")), "{text}");
        }
    }
}

/// `store`
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy every object of a store into another one, and compare the bytes; the same command continues after an interruption
    #[command(after_help = "\
Examples:
  wildrydes store copy wildrydes-data s3://rides/fleet
  AWS_ENDPOINT_URL=https://s3.example wildrydes store copy wildrydes-data s3://rides/fleet
  wildrydes store copy s3://rides/fleet /srv/backup --json

Stop every process that writes to the source first. The target must be empty, or hold objects of an earlier copy. Objects are
compared by their SHA-256, as the target returns them. Afterwards set store.url of every process to the target.")]
    Copy(CopyStore),
}

/// `store copy`
#[derive(Debug, Args)]
pub struct CopyStore {
    /// The store to copy: a folder, file:///…, s3://BUCKET/PREFIX, gs://… or az://…
    pub from: String,
    /// Where to copy it
    pub to: String,
}
