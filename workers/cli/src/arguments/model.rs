//! `model`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `model`
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List the versions of a model family, with champion and challenger
    #[command(after_help = "\
Examples:
  wildrydes model list
  wildrydes model list --breeds                       and the champions of the breed models
  wildrydes model list --model service-request--qilin --json")]
    List {
        /// Model family.
        #[command(flatten)]
        family: Family,
        /// List the breed models as well, one line each
        #[arg(long)]
        breeds: bool,
    },
    /// Show one version: coefficients, evidence, quality, training data, who promoted it and why
    #[command(after_help = "\
Examples:
  wildrydes model show                                the champion
  wildrydes model show challenger
  wildrydes model show 1a8fdbd4 --json                the artefact itself")]
    Show {
        /// champion, challenger, or a model id or a prefix of one
        #[arg(default_value = "champion")]
        version: String,
        /// Model family.
        #[command(flatten)]
        family: Family,
    },
    /// Compare two versions
    #[command(after_help = "\
Examples:
  wildrydes model diff                                the champion and the challenger
  wildrydes model diff 1a8fdbd4 champion")]
    Diff {
        /// champion, challenger, or a model id or a prefix of one
        #[arg(default_value = "champion")]
        from: String,
        /// The other version
        #[arg(default_value = "challenger")]
        to: String,
        /// Model family.
        #[command(flatten)]
        family: Family,
    },
    /// Make a version the champion, regardless of the promotion rule; scorers follow within a second
    #[command(after_help = "\
Examples:
  wildrydes model promote challenger --why 'looked at its report'
  wildrydes model promote 1a8fdbd4 --why 'the new stations are right' --broker amqp://operator@rabbit/%2f")]
    Promote {
        /// challenger, or a model id or a prefix of one
        version: String,
        /// Model family, reason and author.
        #[command(flatten)]
        change: AliasChange,
    },
    /// Make the previous champion champion again; scorers follow within a second
    #[command(after_help = "\
Examples:
  wildrydes model rollback --why 'too many false alarms since noon'
  wildrydes model rollback --to 1a8fdbd4

The trainer does not promote the rolled-back version again.")]
    Rollback {
        /// Id of a version, or a prefix of it [default: the previous champion]
        #[arg(long, value_name = "ID")]
        to: Option<String>,
        /// Model family, reason and author.
        #[command(flatten)]
        change: AliasChange,
    },
    /// Train a model on every dataset of the store, in this process, with the configured settings
    #[command(after_help = "\
Examples:
  wildrydes model retrain                             no effect if that model exists
  wildrydes model retrain --set trainer.features=mileage --set trainer.promotion=by_hand
  wildrydes model retrain --set trainer.threshold=cost --set trainer.cost_false_negative=10")]
    Retrain,
    /// Remove old model versions, and serving statistics and scored ride ids of old days
    #[command(after_help = "\
Examples:
  wildrydes model prune --dry-run
  wildrydes model prune --keep 3 --days 7 --yes

Every model family keeps its champion, its challenger and the last champions before, with the breed models of their releases,
and everything written in the last days. Labels that arrive later than that cannot be matched with their scores. The history
of champions, with dates and reasons, is never removed.")]
    Prune(Prune),
    /// Export a version to a format that works without this software
    #[command(after_help = "\
Examples:
  wildrydes model export --format python --out score.py
  wildrydes model export 1a8fdbd4 --format pmml
  wildrydes model export --format sql                 an expression over the columns of the dataset")]
    Export {
        /// champion, challenger, or a model id or a prefix of one
        #[arg(default_value = "champion")]
        version: String,
        /// The format
        #[arg(long, value_enum, default_value_t = ModelFormat::Formula)]
        format: ModelFormat,
        /// The file to write [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replace FILE if it exists
        #[arg(long)]
        force: bool,
        /// Model family.
        #[command(flatten)]
        family: Family,
    },
    /// Compare the rides that scorers score with the training data of a version, and its scores with the challenger's
    #[command(after_help = "\
Examples:
  wildrydes model drift                               the champion, the last 7 days
  wildrydes model drift 1a8fdbd4 --days 30 --json
  wildrydes model drift --model service-request--qilin

PSI is the population stability index: the sum of (a - e) ln(a / e) over the bins, where e is the share of a bin in training
and a its share in service. By convention, up to 0.1 is no shift and up to 0.25 a moderate one.")]
    Drift {
        /// champion, challenger, or a model id or a prefix of one
        #[arg(default_value = "champion")]
        version: String,
        /// Number of days, today (UTC) included
        #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3_650))]
        days: u32,
        /// Model family.
        #[command(flatten)]
        family: Family,
    },
}

/// A model family.
#[derive(Debug, Clone, Args)]
pub struct Family {
    /// Model family: the global model's, or a breed model's, as in service-request--qilin
    #[arg(long, default_value = "service-request", value_name = "NAME")]
    pub model: String,
}

/// `model prune`
#[derive(Debug, Clone, Args)]
pub struct Prune {
    /// Number of previous champions to keep in each model family
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u8).range(..=50))]
    pub keep: u8,
    /// Number of days of which everything is kept, today (UTC) included
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// Remove without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A change of the served version.
#[derive(Debug, Clone, Args)]
pub struct AliasChange {
    /// Model family.
    #[command(flatten)]
    pub family: Family,
    /// The reason, recorded with the change
    #[arg(long, default_value = "by hand", value_name = "TEXT")]
    pub why: String,
    /// The author, recorded with the change [default: this user on this machine]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Formats of an exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelFormat {
    /// Words and numbers, for people
    Formula,
    /// The artefact, as schemas/model.v1.json describes it
    Json,
    /// A Python function without dependencies
    Python,
    /// A SQL expression
    Sql,
    /// PMML 4.4, for scoring engines
    Pmml,
}
