//! The commands for the notebook.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  wildrydes export --out rides.parquet                    every complete dataset of the store
  wildrydes export 450c7f9391a7a29b --out rides.csv       one batch
  wildrydes export --labelled --unique --out rides.csv    what a model can learn from, each ride once
  wildrydes export --out - | head                         CSV to standard output
  wildrydes export --dictionary                           what each column is

In pandas: pandas.read_parquet('rides.parquet'), or pandas.read_csv('rides.csv', parse_dates=['statustime']).

Rows come in the order of the batch ids, then in that of the batch; the same datasets give the same bytes. Every dataset file
is held against its manifest: of a damaged one nothing is exported. FILE appears when it is whole. A Parquet row group holds
100,000 rides.";

pub(super) const DESCRIBE_EXAMPLES: &str = "\
Examples:
  wildrydes describe                                      every complete dataset of the store
  wildrydes describe 450c7f9391a7a29b --labelled
  wildrydes describe --unique --json | jq '.columns[] | {name, mean, missing}'

Quantiles are exact up to 500,000 rides, beyond that from an evenly spread sample, as the output then says.";

/// Which rides.
#[derive(Debug, Clone, Args)]
pub struct Chosen {
    /// Batches, as `status` names them [default: all that have a complete dataset]
    #[arg(value_name = "BATCH")]
    pub batches: Vec<String>,
    /// Only rides whose label is known
    #[arg(long)]
    pub labelled: bool,
    /// Each ride id once, as training counts it: where it first stands with label and weather, by batch id
    #[arg(long)]
    pub unique: bool,
}

/// `export`
#[derive(Debug, Args)]
pub struct Export {
    /// Which rides.
    #[command(flatten)]
    pub chosen: Chosen,
    /// CSV or Parquet [default: as FILE ends, else CSV]
    #[arg(long, value_enum)]
    pub format: Option<ExportFormat>,
    /// Where to; - for standard output [default: rides.csv or rides.parquet]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace FILE where it is there already
    #[arg(long)]
    pub force: bool,
    /// Do not write FILE.dictionary.json beside FILE
    #[arg(long)]
    pub no_dictionary: bool,
    /// Print what each column is, and export nothing (--json for machines)
    #[arg(long, conflicts_with_all = ["batches", "labelled", "unique", "format", "out", "force", "no_dictionary"])]
    pub dictionary: bool,
}

/// Form of an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated text with a header line; a missing value is an empty field. Text values are exported unchanged:
    /// a spreadsheet reads one that starts with =, +, - or @ as a formula unless the column is imported as text
    Csv,
    /// Typed columns, compressed; a missing value is null
    Parquet,
}

/// `describe`
#[derive(Debug, Args)]
pub struct Describe {
    /// Which rides.
    #[command(flatten)]
    pub chosen: Chosen,
}
