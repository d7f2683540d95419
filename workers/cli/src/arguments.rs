//! The command line: commands, options and their help. Depends on `common` and `runtime` only.

mod features;
mod model;
mod notebook;
mod operator;
mod place;
mod reading;
mod topology;
mod weather;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use features::{RideFeatures, UnitSystem};
pub use model::{AliasChange, Family, ModelCommand, ModelFormat, Prune};
pub use notebook::{Describe, Export, ExportFormat, Selection};
pub use operator::{CopyStore, DeadCommand, Drain, LetterFilter, ListDead, Pause, Refresh, Replay, StoreCommand};
pub use place::PlaceAndTime;
pub use reading::ReadingOptions;
use runtime::config::parse_override;
use serde::Serialize;
use std::{net::SocketAddr, path::PathBuf};
pub use topology::{Manifests, TopologyCommand, Users};
pub use weather::Weather;

const EXAMPLES: &str = "\
Examples:
  wildrydes demo                                     the whole job on synthetic rides, no server, no network
  wildrydes run rides.json --weather noaa/           the whole job on your rides, in this process
  wildrydes score --distance 30 --healthpoints 300 --magicpoints 300 --tmin 18 --tmax 27 --prcp 0 --units celsius
  wildrydes up --broker amqp://localhost             all five workers in one process on RabbitMQ
  wildrydes ingest rides.json --broker amqp://localhost
  wildrydes export --out rides.parquet               the joined dataset, for a notebook
  wildrydes doctor                                   checks the fleet; each finding comes with its remedy
  wildrydes dead list                                messages that could not be processed, and why

Exit codes: 0 success, 1 failure (doctor: a check failed; pause, resume and drain: not done in time), 2 wrong arguments
or configuration, 3 a batch was refused or none of its rides could be used, 4 the rides yielded no model.";

/// Joins unicorn rides with NOAA's weather and predicts how likely a ride ends in a service request.
#[derive(Debug, Parser)]
#[command(name = "wildrydes", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub shared: Shared,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Shared {
    /// Object store of the fleet: a folder, s3://BUCKET/PREFIX, gs://… or az://… [default: wildrydes-data]
    #[arg(long, global = true, value_name = "DIR|URL")]
    pub store: Option<String>,
    /// RabbitMQ, as amqp://user@host:5672/vhost; put a password into the environment (WILDRYDES__BROKER__URL) or into
    /// a file (broker.password_file) [default: from the configuration]
    #[arg(long, global = true, value_name = "URL")]
    pub broker: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "WILDRYDES_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Set one setting, as in trainer.alpha=0.5; can be repeated
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE", value_parser = parse_override)]
    pub overrides: Vec<(String, String)>,
    /// Print results as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Log to standard error (-vv: every delivery)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Generate rides and weather with known coefficients and run the whole job on them, in this process
    #[command(after_help = "\
Examples:
  wildrydes demo                        20,000 rides, a few seconds
  wildrydes demo --rides 1000000 --seed 7 --dir /tmp/demo
  wildrydes demo --serve                then the page and the API on http://127.0.0.1:8080, until Ctrl-C")]
    Demo(Demo),
    /// Run the whole job on files, in this process, without any server
    #[command(after_help = "\
Examples:
  wildrydes run rides.json                                weather from NOAA's open-data bucket, over the network
  wildrydes run rides.json.gz --weather noaa/             from a folder in that bucket's layout, no network
  wildrydes run a.json b.ndjson --store results --json
  curl https://rides.example/today | wildrydes run -      from a pipe; also <(command) and named pipes
  wildrydes run api.json --rides-at data --map latitude=lat --map longitude=lng --map 'distance=km*0.621371'
  wildrydes run map.geojson --rides-at 'features[].properties'
  wildrydes run rides.json --serve                        then the page and the API on http://127.0.0.1:8080, until Ctrl-C
  wildrydes run --serve=127.0.0.1:9000                    upload the rides on the page")]
    Run(Run),
    /// Submit files to a fleet and follow them to their datasets, and to the model if a trainer is running
    #[command(after_help = "\
Examples:
  wildrydes ingest rides.json --until dataset
  zcat rides.json.gz | wildrydes ingest - --detach
  wildrydes ingest api.json --rides-at payload.items --map statustime=ended_at
  wildrydes ingest rides.json --broker amqp://publisher@rabbit/%2f --set broker.password_file=secret
  wildrydes ingest rides.json --detach && wildrydes status")]
    Ingest(Ingest),
    /// Predict how likely a ride ends in a service request
    #[command(after_help = "\
Examples:
  wildrydes score --distance 30 --healthpoints 300 --magicpoints 300 --tmin 18 --tmax 27 --prcp 0 --units celsius
  wildrydes score --fleet --distance 30 --healthpoints 300 --magicpoints 300 --tmin 180 --tmax 270 --prcp 0 --json
  wildrydes score --url http://127.0.0.1:8080 --distance 30 --healthpoints 300 --magicpoints 300 --tmin 180 --tmax 270 --prcp 0
  wildrydes score --breed Qilin --distance 30 --healthpoints 300 --magicpoints 300 --tmin 180 --tmax 270 --prcp 0
  wildrydes score --at 40.7,-74.0 --time now --distance 12 --healthpoints 300 --magicpoints 300")]
    Score(Box<Score>),
    /// Show the state of the batches, newest last, and of the queues
    #[command(after_help = "\
Examples:
  wildrydes status                                        all batches of the store
  wildrydes status 450c7f9391a7a29b                       one batch with its manifest
  wildrydes status --broker amqp://localhost/%2f              the queues as well
  wildrydes status --url http://127.0.0.1:8080             batches and queues, as a gateway reports them")]
    Status(Status),
    /// Write the joined dataset as one CSV or Parquet file, with a data dictionary
    #[command(after_help = notebook::EXPORT_EXAMPLES)]
    Export(Export),
    /// Show counts, quantiles, missing values and correlations of the joined dataset
    #[command(after_help = notebook::DESCRIBE_EXAMPLES)]
    Describe(Describe),
    /// Inspect, compare, promote, roll back, train, prune and export model versions
    #[command(
        subcommand,
        after_help = "\
Examples:
  wildrydes model list
  wildrydes model show challenger
  wildrydes model rollback --why 'too many false alarms since noon'"
    )]
    Model(ModelCommand),
    /// Inspect, replay, export, drop and restore dead letters
    #[command(
        subcommand,
        after_help = "\
Examples:
  wildrydes dead list --summary
  wildrydes dead replay --reason attempts_exhausted --dry-run"
    )]
    Dead(DeadCommand),
    /// Publish batches again from their bytes in the object store, with the same ids
    #[command(after_help = "\
Examples:
  wildrydes replay 450c7f9391a7a29b                       and follow it until its dataset is ready
  wildrydes replay --all --detach                         every batch of the store
  wildrydes replay 450c7f9391a7a29b --dry-run

A batch that has its dataset changes nothing; `wildrydes refresh` joins it again with the weather as of now.")]
    Replay(Replay),
    /// Join batches again with the weather as of now; other weather becomes the next revision of the dataset
    #[command(after_help = operator::REFRESH_EXAMPLES)]
    Refresh(Refresh),
    /// Make every process of a worker stop reading its queue; holds across restarts until `resume`
    #[command(after_help = "\
Examples:
  wildrydes pause weather-fetcher --why 'NOAA sends garbage'
  wildrydes pause splitter merger

A paused worker finishes the messages in hand, leaves the others in its queue, and stays connected.")]
    Pause(Pause),
    /// Make a paused worker read its queue again
    #[command(after_help = "\
Examples:
  wildrydes resume weather-fetcher
  wildrydes resume splitter weather-fetcher merger trainer scorer weather-lookup")]
    Resume(Pause),
    /// Pause the splitter and wait until no message is in flight between the stages
    #[command(after_help = "\
Examples:
  wildrydes drain --timeout 30m --why 'upgrade of the broker'
  wildrydes resume splitter                               afterwards

New batches wait in the splitter's queue. Score requests are still answered.")]
    Drain(Drain),
    /// Check broker, permissions, queues, store, weather and clocks; each finding comes with its remedy
    #[command(after_help = "\
Examples:
  wildrydes doctor
  wildrydes doctor --broker amqp://user:password@rabbit/%2f --store /srv/wildrydes --json
  wildrydes doctor --set broker.management_url=https://rabbit.example:15671
  wildrydes doctor --only store

Exit code 0 if nothing is broken (warnings are allowed), 1 otherwise.")]
    Doctor {
        /// What to check [default: everything]
        #[arg(long, value_enum, value_name = "PART")]
        only: Option<DoctorPart>,
    },
    /// Copy a fleet's object store
    #[command(
        subcommand,
        after_help = "\
Examples:
  wildrydes store copy wildrydes-data s3://rides/fleet
  wildrydes store copy s3://rides/fleet /srv/backup"
    )]
    Store(StoreCommand),
    /// Generate synthetic rides or weather
    #[command(
        subcommand,
        after_help = "\
Examples:
  wildrydes generate rides rides.json --rides 100000
  wildrydes generate weather weather/ && wildrydes run rides.json --weather weather/"
    )]
    Generate(Generate),
    /// Show or declare exchanges, queues and users
    #[command(
        subcommand,
        after_help = "\
Examples:
  wildrydes topology show --dot | dot -Tsvg > topology.svg
  wildrydes topology apply --broker amqp://localhost/%2f
  wildrydes topology users --passwords secrets --generate --definitions > definitions.json"
    )]
    Topology(TopologyCommand),
    /// Run all workers in one process against RabbitMQ
    #[command(after_help = "\
Examples:
  WILDRYDES__BROKER__URL=amqp://user:password@rabbit/%2f wildrydes up --store /srv/wildrydes
  wildrydes up --config wildrydes.toml --set splitter.chunk_size=500
  wildrydes up --serve                                    with the page and the HTTP API on http://127.0.0.1:8080")]
    Up(Serve),
    /// Create a key for the HTTP API: prints the key and the entry for the gateway's configuration
    #[command(after_help = "\
Examples:
  wildrydes key dashboard                                 may look and score
  wildrydes key feeder --scope write --requests-per-second 10
  wildrydes key ops --scope read --scope write --json")]
    Key(NewKey),
    /// Print every setting with its type, unit, range and default
    #[command(
        subcommand,
        after_help = "\
Examples:
  wildrydes config reference > wildrydes.toml             a configuration file, every setting commented out
  wildrydes config reference weather
  wildrydes config reference --json"
    )]
    Config(ConfigCommand),
    /// Measure rides per second from file to model, in process, (with --broker) on RabbitMQ and (with --store) in that store
    #[command(after_help = "\
Examples:
  wildrydes bench --rides 200000
  wildrydes bench --broker amqp://guest:guest@127.0.0.1:5672/%2f --runs 5 --json
  wildrydes bench --store s3://rides/bench          a bucket beside a folder")]
    Bench(Bench),
    /// List the JSON Schemas of messages and stored documents, or print one
    #[command(after_help = "\
Examples:
  wildrydes schema
  wildrydes schema ride-batch.v1 > ride-batch.v1.json
  wildrydes schema --json | jq -r '.[].name'")]
    Schema {
        /// The schema to print, such as `score-request.v1`; without it, all names
        name: Option<String>,
    },
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  wildrydes completions bash > ~/.local/share/bash-completion/completions/wildrydes
  wildrydes completions zsh > ~/.zfunc/_wildrydes")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// A part of the fleet that `doctor` checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DoctorPart {
    /// Broker, permissions and queues
    Broker,
    /// The object store
    Store,
    /// The weather service
    Weather,
}

/// `config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting, as a configuration file in which each is commented out (--json for machines)
    Reference {
        /// One section [default: all]
        section: Option<String>,
    },
}

/// `demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Number of rides
    #[arg(long, default_value_t = 20_000)]
    pub rides: u64,
    /// Seed; the same seed gives the same rides
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Folder for input and results
    #[arg(long, default_value = "wildrydes-demo", value_name = "DIR")]
    pub dir: PathBuf,
    /// The page and the HTTP API.
    #[command(flatten)]
    pub serve: Serve,
}

/// `--serve`
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Also serve the page and the HTTP API until Ctrl-C, on 127.0.0.1:8080 or on --serve=ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, require_equals = true,
        default_missing_value = "127.0.0.1:8080")]
    pub serve: Option<SocketAddr>,
}

/// `key`
#[derive(Debug, Args)]
pub struct NewKey {
    /// Name of the key's owner, for the gateway's logs
    pub name: String,
    /// What the key allows: scoring and reading (read), submitting batches (write)
    #[arg(long = "scope", value_enum, default_values_t = [KeyScope::Read])]
    pub scopes: Vec<KeyScope>,
    /// Maximum number of requests per second [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_second: Option<u32>,
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyScope {
    /// Scoring and reading
    Read,
    /// Submitting batches
    Write,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    /// Ride files: a JSON array, {"travel_data": […]}, NDJSON, concatenated objects, CSV with a header or Parquet; plain, gzip or zstd; `-` for standard input
    #[arg(required_unless_present = "serve", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How the files are read.
    #[command(flatten)]
    pub reading: ReadingOptions,
    /// The page and the HTTP API.
    #[command(flatten)]
    pub serve: Serve,
    /// Weather options.
    #[command(flatten)]
    pub weather: Weather,
    /// Rides per message
    #[arg(long, value_name = "N")]
    pub chunk_size: Option<u32>,
    /// Join the rides of an earlier run again with the weather as of now
    #[arg(long)]
    pub refresh: bool,
}

/// `ingest`
#[derive(Debug, Args)]
pub struct Ingest {
    /// Ride files, as for `run`
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How the files are read.
    #[command(flatten)]
    pub reading: ReadingOptions,
    /// Batch id, for a single file [default: derived from its bytes]
    #[arg(long, value_name = "ID")]
    pub batch_id: Option<String>,
    /// Return once the broker has confirmed, without waiting for the dataset
    #[arg(long)]
    pub detach: bool,
    /// How far to follow; with `model`, exit code 4 if there is none [default: to the dataset, then, if a trainer is
    /// running, up to 10 minutes for the model]
    #[arg(long, value_enum, conflicts_with = "detach")]
    pub until: Option<Until>,
}

/// How far `ingest` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// Every batch has its dataset, or is refused
    Dataset,
    /// The trainer has trained a model on it, or rejected it
    Model,
}

/// `score`
#[derive(Debug, Args)]
pub struct Score {
    /// The features of the ride.
    #[command(flatten)]
    pub features: RideFeatures,
    /// The place and time whose weather is looked up.
    #[command(flatten)]
    pub place: PlaceAndTime,
    /// Breed of the unicorn; its breed model, if there is one, scores the ride [default: the global model scores]
    #[arg(long)]
    pub breed: Option<String>,
    /// Fail if a feature of the model is missing, instead of imputing it from the others
    #[arg(long)]
    pub no_impute: bool,
    /// Units of the weather: tenths of °C and mm as NOAA writes them, °C and mm, or °F and inches [default: noaa]
    #[arg(long, value_enum)]
    pub units: Option<UnitSystem>,
    /// How long to wait for an answer [default: 5000, with --at 30000]
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Ask the fleet on the configured broker instead of scoring in this process with the store's champion
    #[arg(long)]
    pub fleet: bool,
    /// The gateway to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// A gateway to talk to over HTTP.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// Ask a gateway at this address, as in http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// File with the API key, if the gateway requires one [default: the environment variable WILDRYDES_API_KEY]
    #[arg(long, value_name = "FILE", requires = "url")]
    pub key_file: Option<PathBuf>,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// One batch, in detail [default: the newest batches, one line each]
    pub batch: Option<String>,
    /// Number of newest batches to show; refused batches and those with staged chunks are shown however old they are
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["batch", "all"])]
    pub limit: u32,
    /// Show all batches; reads every claim in the store
    #[arg(long, conflicts_with = "batch")]
    pub all: bool,
    /// The gateway to ask instead of the store.
    #[command(flatten)]
    pub remote: Remote,
}

/// `generate`
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Generate rides around Manhattan, some of them invalid, labelled with known coefficients
    #[command(after_help = "\
Examples:
  wildrydes generate rides rides.json
  wildrydes generate rides rides.ndjson --form ndjson --rides 2000000 --seed 7 --unlabelled")]
    Rides {
        /// The file to write
        file: PathBuf,
        /// Number of rides
        #[arg(long, default_value_t = 20_000)]
        rides: u64,
        /// Seed; the same seed gives the same rides
        #[arg(long, default_value_t = 42)]
        seed: u64,
        /// Form of the document
        #[arg(long, value_enum, default_value_t = Form::TravelData)]
        form: Form,
        /// Share of invalid rides, 0 to 1
        #[arg(long, default_value_t = 0.002)]
        bad_share: f64,
        /// Omit the labels
        #[arg(long)]
        unlabelled: bool,
        /// Replace FILE if it exists
        #[arg(long)]
        force: bool,
    },
    /// Generate a folder of weather in the layout of NOAA's bucket
    #[command(after_help = "\
Examples:
  wildrydes generate weather weather/ && wildrydes run rides.json --weather weather/")]
    Weather {
        /// The folder to write
        dir: PathBuf,
        /// Seed; the same seed gives the same weather
        #[arg(long, default_value_t = 42)]
        seed: u64,
        /// Replace the weather in DIR if there is any
        #[arg(long)]
        force: bool,
    },
}

/// Form of a ride document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// {"travel_data": […]}
    TravelData,
    /// A JSON array
    Array,
    /// One object per line
    Ndjson,
    /// Objects one after the other
    Concatenated,
}

/// `bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// Number of rides
    #[arg(long, default_value_t = 1_000_000)]
    pub rides: u64,
    /// Rides per message
    #[arg(long, default_value_t = 1_000)]
    pub chunk_size: u32,
    /// Runs per broker; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Folder for input and results, removed afterwards [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
