//! The commands about models.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `model`
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// The versions there are, which of them is champion and which challenger
    #[command(after_help = "\
Examples:
  wildrydes model list
  wildrydes model list --breeds                       and the champions of the breeds
  wildrydes model list --model service-request--qilin --json")]
    List {
        /// Model family.
        #[command(flatten)]
        family: Family,
        /// The models of breeds as well, one line each
        #[arg(long)]
        breeds: bool,
    },
    /// One version: coefficients, evidence, quality, what it was made of, who promoted it and why
    #[command(after_help = "\
Examples:
  wildrydes model show                                the champion
  wildrydes model show challenger
  wildrydes model show 1a8fdbd4 --json                the artefact itself")]
    Show {
        /// champion, challenger, or a model id or its beginning
        #[arg(default_value = "champion")]
        version: String,
        /// Model family.
        #[command(flatten)]
        family: Family,
    },
    /// Two versions side by side
    #[command(after_help = "\
Examples:
  wildrydes model diff                                the champion and the challenger
  wildrydes model diff 1a8fdbd4 champion")]
    Diff {
        /// champion, challenger, or a model id or its beginning
        #[arg(default_value = "champion")]
        from: String,
        /// The other one
        #[arg(default_value = "challenger")]
        to: String,
        /// Model family.
        #[command(flatten)]
        family: Family,
    },
    /// Make a version the champion, whatever the rule says; scorers follow within a second
    #[command(after_help = "\
Examples:
  wildrydes model promote challenger --why 'looked at its report'
  wildrydes model promote 1a8fdbd4 --why 'the new stations are right' --broker amqp://operator@rabbit/%2f")]
    Promote {
        /// challenger, or a model id or its beginning
        version: String,
        /// Model family, and the word.
        #[command(flatten)]
        word: Word,
    },
    /// Make the champion before this one champion again; scorers follow within a second
    #[command(after_help = "\
Examples:
  wildrydes model rollback --why 'too many false alarms since noon'
  wildrydes model rollback --to 1a8fdbd4

The version that is taken back is not promoted again by the trainer, whatever events come.")]
    Rollback {
        /// Which one, by its id or its beginning [default: the champion before this one]
        #[arg(long, value_name = "ID")]
        to: Option<String>,
        /// Model family, and the word.
        #[command(flatten)]
        word: Word,
    },
    /// Train on every dataset of the store, in this process, with the configured settings
    #[command(after_help = "\
Examples:
  wildrydes model retrain                             nothing, when that was done before
  wildrydes model retrain --set trainer.features=mileage --set trainer.promotion=by_hand
  wildrydes model retrain --set trainer.threshold=cost --set trainer.cost_false_negative=10")]
    Retrain,
    /// Remove what nobody will ask for any more: old versions, and old days of what was served and scored
    #[command(after_help = "\
Examples:
  wildrydes model prune --dry-run
  wildrydes model prune --keep 3 --days 7 --yes

Of every model family the champion, the challenger and the last champions before stay, with the models of breeds that were
trained beside them, and whatever was written in the last days. Rides that come with a label later than that tell nothing about
the scores they got. Which version was champion when, and why, stays for ever.")]
    Prune(Prune),
    /// Write a version in a form that needs none of this software
    #[command(after_help = "\
Examples:
  wildrydes model export --format python --out score.py
  wildrydes model export 1a8fdbd4 --format pmml
  wildrydes model export --format sql                 an expression over the columns of the dataset")]
    Export {
        /// champion, challenger, or a model id or its beginning
        #[arg(default_value = "champion")]
        version: String,
        /// In which form
        #[arg(long, value_enum, default_value_t = ModelFormat::Formula)]
        format: ModelFormat,
        /// Where to [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replace FILE where it is there already
        #[arg(long)]
        force: bool,
        /// Model family.
        #[command(flatten)]
        family: Family,
    },
    /// Is what the scorers are asked like what a version was trained on, and what would the challenger say?
    #[command(after_help = "\
Examples:
  wildrydes model drift                               the champion, the last 7 days
  wildrydes model drift 1a8fdbd4 --days 30 --json
  wildrydes model drift --model service-request--qilin

PSI is the population stability index, the sum of (a - e) ln(a / e) over the bins, e being the share of a bin in training and
a that in service. By custom up to 0.1 passes for no shift, up to 0.25 for a moderate one.")]
    Drift {
        /// champion, challenger, or a model id or its beginning
        #[arg(default_value = "champion")]
        version: String,
        /// Days back, today (UTC) included
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
    /// Model family: that of all rides, or of one breed, as in service-request--qilin
    #[arg(long, default_value = "service-request", value_name = "NAME")]
    pub model: String,
}

/// What `model prune` leaves.
#[derive(Debug, Clone, Args)]
pub struct Prune {
    /// Champions before the present one that stay, in each model family
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u8).range(..=50))]
    pub keep: u8,
    /// Days of which everything stays, today (UTC) included
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// Remove without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Only tell what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// Somebody's word on a model.
#[derive(Debug, Clone, Args)]
pub struct Word {
    /// Model family.
    #[command(flatten)]
    pub family: Family,
    /// Why, for those who ask later
    #[arg(long, default_value = "by hand", value_name = "TEXT")]
    pub why: String,
    /// Who says so [default: this user on this machine]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Forms of a model outside of this software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelFormat {
    /// In words and numbers, for people
    Formula,
    /// The artefact, as schemas/model.v1.json describes it
    Json,
    /// A Python function without dependencies
    Python,
    /// A SQL expression
    Sql,
    /// PMML 4.4, as scoring engines read it
    Pmml,
}
