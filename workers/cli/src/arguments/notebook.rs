//! `export` and `describe`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  wildrydes export --out rides.parquet                    every complete dataset of the store
  wildrydes export 450c7f9391a7a29b --out rides.csv       one batch
  wildrydes export --labelled --unique --out rides.csv    rides with a label, each ride once
  wildrydes export --out - | head                         CSV to standard output
  wildrydes export --dictionary                           the meaning of each column

In pandas: pandas.read_parquet('rides.parquet'), or pandas.read_csv('rides.csv', parse_dates=['statustime']).

Rows are ordered by batch id, then as in the batch; the same datasets give the same bytes. Every dataset file is checked
against its manifest; if one is damaged, nothing is exported. FILE appears once it is complete. A Parquet row group holds
100,000 rides.";

pub(super) const DESCRIBE_EXAMPLES: &str = "\
Examples:
  wildrydes describe                                      every complete dataset of the store
  wildrydes describe 450c7f9391a7a29b --labelled
  wildrydes describe --unique --json | jq '.columns[] | {name, mean, missing}'

Quantiles are exact up to 500,000 rides; beyond that they are those of an evenly spread sample, and the output says so.";

/// A selection of rides.
#[derive(Debug, Clone, Args)]
pub struct Selection {
    /// Batch ids, as `status` prints them [default: all batches with a complete dataset]
    #[arg(value_name = "BATCH")]
    pub batches: Vec<String>,
    /// Only rides with a label
    #[arg(long)]
    pub labelled: bool,
    /// Each ride id once, as in training: its first ride with label and weather, by batch id
    #[arg(long)]
    pub unique: bool,
}

/// `export`
#[derive(Debug, Args)]
pub struct Export {
    /// The rides.
    #[command(flatten)]
    pub selection: Selection,
    /// CSV or Parquet [default: by the extension of FILE, else CSV]
    #[arg(long, value_enum)]
    pub format: Option<ExportFormat>,
    /// The file to write, or - for standard output [default: rides.csv or rides.parquet]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace FILE if it exists
    #[arg(long)]
    pub force: bool,
    /// Do not write FILE.dictionary.json beside FILE
    #[arg(long)]
    pub no_dictionary: bool,
    /// Print the meaning of each column and export nothing (--json for machines)
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
    /// The rides.
    #[command(flatten)]
    pub selection: Selection,
}
