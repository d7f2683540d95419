//! The command line.

mod model;
mod notebook;
mod operator;
mod reading;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use model::{Family, ModelCommand, ModelFormat, Prune, Word};
pub use notebook::{Chosen, Describe, Export, ExportFormat};
pub use operator::{DeadCommand, Drain, ListDead, Pause, Replay, Which};
pub use reading::ReadingOptions;
use runtime::config::parse_override;
use std::{net::SocketAddr, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  wildrydes demo                                     the whole job on made-up rides, no server, no network
  wildrydes run rides.json --weather noaa/           the whole job on your rides, in this process
  wildrydes score --distance 30 --healthpoints 300 --magicpoints 300 --tmin 18 --tmax 27 --prcp 0 --units celsius
  wildrydes up --broker amqp://localhost             all five workers in one process on RabbitMQ
  wildrydes ingest rides.json --broker amqp://localhost
  wildrydes export --out rides.parquet               the joined dataset, for a notebook
  wildrydes doctor                                   is everything as it should be? Each finding with its remedy
  wildrydes dead list                                what could not be processed, and why

Exit codes: 0 done, 1 failed (for doctor: something is broken; for pause, resume and drain: not done in time), 2 wrong
arguments or configuration, 3 a batch was refused or no ride of it could
be used, 4 no model came of the rides.";

/// Rides in, probability out: joins unicorn rides with NOAA's weather and tells how likely a ride ends in a service
/// request.
#[derive(Debug, Parser)]
#[command(name = "wildrydes", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub shared: Shared,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Shared {
    /// Object store: a folder that all workers of a fleet see [default: wildrydes-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<String>,
    /// RabbitMQ, as amqp://user@host:5672/vhost; a password belongs into the environment (WILDRYDES__BROKER__URL) or into
    /// a file (broker.password_file) [default: that of the configuration]
    #[arg(long, global = true, value_name = "URL")]
    pub broker: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "WILDRYDES_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// One setting, as in trainer.alpha=0.5; may be given several times
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE", value_parser = parse_override)]
    pub overrides: Vec<(String, String)>,
    /// Results as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Log what happens on standard error (twice: every delivery)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make up rides and weather with a known truth and run the whole job on them, in this process
    #[command(after_help = "\
Examples:
  wildrydes demo                        20,000 rides, a few seconds
  wildrydes demo --rides 1000000 --seed 7 --dir /tmp/demo
  wildrydes demo --serve                then page and API on http://127.0.0.1:8080, until Ctrl-C")]
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
  wildrydes run rides.json --serve                        then page and API on http://127.0.0.1:8080, until Ctrl-C
  wildrydes run --serve=127.0.0.1:9000                    the page takes the rides")]
    Run(Run),
    /// Hand files in to a fleet and follow them to their dataset, and to the model when a trainer is running
    #[command(after_help = "\
Examples:
  wildrydes ingest rides.json --until dataset
  zcat rides.json.gz | wildrydes ingest - --detach
  wildrydes ingest api.json --rides-at payload.items --map statustime=ended_at
  wildrydes ingest rides.json --broker amqp://publisher@rabbit/%2f --set broker.password_file=secret
  wildrydes ingest rides.json --detach && wildrydes status")]
    Ingest(Ingest),
    /// How likely does a ride end in a service request?
    #[command(after_help = "\
Examples:
  wildrydes score --distance 30 --healthpoints 300 --magicpoints 300 --tmin 18 --tmax 27 --prcp 0 --units celsius
  wildrydes score --fleet --distance 30 --healthpoints 300 --magicpoints 300 --tmin 180 --tmax 270 --prcp 0 --json
  wildrydes score --url http://127.0.0.1:8080 --distance 30 --healthpoints 300 --magicpoints 300 --tmin 180 --tmax 270 --prcp 0
  wildrydes score --breed Qilin --distance 30 --healthpoints 300 --magicpoints 300 --tmin 180 --tmax 270 --prcp 0")]
    Score(Score),
    /// What has become of the batches, the newest last, and what waits in the queues
    #[command(after_help = "\
Examples:
  wildrydes status                                        all batches of the store
  wildrydes status 450c7f9391a7a29b                       one batch with its manifest
  wildrydes status --broker amqp://localhost/%2f              the queues as well
  wildrydes status --url http://127.0.0.1:8080             batches and queues, as a gateway sees them")]
    Status(Status),
    /// Write the joined dataset as one CSV or Parquet file, with a data dictionary
    #[command(after_help = notebook::EXPORT_EXAMPLES)]
    Export(Export),
    /// Counts, quantiles, missing values and correlations of the joined dataset
    #[command(after_help = notebook::DESCRIBE_EXAMPLES)]
    Describe(Describe),
    /// Look at the versions of the model, promote one, take one back, train anew, export
    #[command(
        subcommand,
        after_help = "\
Examples:
  wildrydes model list
  wildrydes model show challenger
  wildrydes model rollback --why 'too many false alarms since noon'"
    )]
    Model(ModelCommand),
    /// Look at the dead letters, replay them, export them, drop them
    #[command(
        subcommand,
        after_help = "\
Examples:
  wildrydes dead list --summary
  wildrydes dead replay --reason attempts_exhausted --dry-run"
    )]
    Dead(DeadCommand),
    /// Publish batches again from their bytes in the object store, to the same ids
    #[command(after_help = "\
Examples:
  wildrydes replay 450c7f9391a7a29b                       and follow it until its dataset is ready
  wildrydes replay --all --detach                         every batch of the store
  wildrydes replay 450c7f9391a7a29b --dry-run

A batch whose dataset is there changes nothing. To make a dataset anew, remove its folder dataset/<batch_id> first.")]
    Replay(Replay),
    /// Have every process of a worker stop reading its queue; kept over restarts until `resume`
    #[command(after_help = "\
Examples:
  wildrydes pause weather-fetcher --why 'NOAA sends garbage'
  wildrydes pause splitter merger

What was begun is finished; what waits, waits. A paused worker keeps running and connected.")]
    Pause(Pause),
    /// Have a paused worker go on
    #[command(after_help = "\
Examples:
  wildrydes resume weather-fetcher
  wildrydes resume splitter weather-fetcher merger trainer scorer weather-lookup")]
    Resume(Pause),
    /// Pause the splitter and wait until nothing is in flight between the stages
    #[command(after_help = "\
Examples:
  wildrydes drain --timeout 30m --why 'upgrade of the broker'
  wildrydes resume splitter                               afterwards

New batches wait in the splitter's queue. Scores are answered all the while.")]
    Drain(Drain),
    /// Check broker, permissions, queues, store, weather and clock; each finding with its remedy
    #[command(after_help = "\
Examples:
  wildrydes doctor
  wildrydes doctor --broker amqp://user:password@rabbit/%2f --store /srv/wildrydes --json
  wildrydes doctor --set broker.management_url=https://rabbit.example:15671

Ends with 0 when all is well, warnings included, and with 1 when something is broken.")]
    Doctor,
    /// Make up believable rides or weather
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
    /// Make a key for the HTTP API: what its bearer keeps, and what the gateway's configuration takes
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
    /// Measure rides per second from file to model, in process and (with --broker) on RabbitMQ
    #[command(after_help = "\
Examples:
  wildrydes bench --rides 200000
  wildrydes bench --broker amqp://guest:guest@127.0.0.1:5672/%2f --runs 5 --json")]
    Bench(Bench),
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

/// `config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every setting, as a configuration file in which each is commented out (--json for machines)
    Reference {
        /// One section [default: all]
        section: Option<String>,
    },
}

/// `demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// How many rides to make up
    #[arg(long, default_value_t = 20_000)]
    pub rides: u64,
    /// Same seed, same rides
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Where input and results go
    #[arg(long, default_value = "wildrydes-demo", value_name = "DIR")]
    pub dir: PathBuf,
    /// Page and API.
    #[command(flatten)]
    pub serve: Serve,
}

/// Whether the page and the HTTP API are served as well.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Serve the page and the HTTP API as well, until Ctrl-C; --serve=ADDRESS:PORT where not on 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, require_equals = true,
        default_missing_value = "127.0.0.1:8080")]
    pub serve: Option<SocketAddr>,
}

/// `key`
#[derive(Debug, Args)]
pub struct NewKey {
    /// Who is to bear it, for the gateway's logs
    pub name: String,
    /// What it opens: scores and everything one looks at (read), handing in batches (write)
    #[arg(long = "scope", value_enum, default_values_t = [KeyScope::Read])]
    pub scopes: Vec<KeyScope>,
    /// Requests per second it may make [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_second: Option<u32>,
}

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyScope {
    /// Scores, and everything one looks at
    Read,
    /// Handing in batches
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
    /// Page and API.
    #[command(flatten)]
    pub serve: Serve,
    /// Weather options.
    #[command(flatten)]
    pub weather: Weather,
    /// Rides per message
    #[arg(long, value_name = "N")]
    pub chunk_size: Option<u32>,
}

/// Where weather comes from.
#[derive(Debug, Clone, Args)]
pub struct Weather {
    /// A folder in the layout of NOAA's bucket, or a URL [default: NOAA's open-data bucket]
    #[arg(long, value_name = "URL|DIR")]
    pub weather: Option<String>,
    /// NOAA's station list, ghcnd-stations.txt[.gz] [default: the one beside the weather]
    #[arg(long, value_name = "URL|FILE")]
    pub stations: Option<String>,
    /// How far a ride's station may be
    #[arg(long, value_name = "KM")]
    pub max_station_km: Option<f64>,
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
    /// Batch id, for one file [default: derived from its bytes]
    #[arg(long, value_name = "ID")]
    pub batch_id: Option<String>,
    /// Return once the broker has confirmed, without waiting for the dataset
    #[arg(long)]
    pub detach: bool,
    /// How far to follow; to the model: exit code 4 when none comes of it [default: to the dataset, then, when a trainer is
    /// running, up to 10 minutes for the model]
    #[arg(long, value_enum, conflicts_with = "detach")]
    pub until: Option<Until>,
}

/// How far `ingest` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// Every batch has its dataset, or is refused
    Dataset,
    /// The trainer has made a model of it, or refused to
    Model,
}

/// A number that is neither NaN nor infinite.
fn finite(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number, as in 29.5".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("expected a finite number, as in 29.5".to_owned()) }
}

/// `score`
#[derive(Debug, Args)]
pub struct Score {
    /// Miles
    #[arg(long, allow_negative_numbers = true, value_parser = finite)]
    pub distance: f64,
    /// Health points at the end of the ride
    #[arg(long, allow_negative_numbers = true, value_parser = finite)]
    pub healthpoints: f64,
    /// Magic points burnt
    #[arg(long, allow_negative_numbers = true, value_parser = finite)]
    pub magicpoints: f64,
    /// Lowest temperature of the day
    #[arg(long, allow_negative_numbers = true, value_parser = finite)]
    pub tmin: f64,
    /// Highest temperature of the day
    #[arg(long, allow_negative_numbers = true, value_parser = finite)]
    pub tmax: f64,
    /// Precipitation of the day
    #[arg(long, allow_negative_numbers = true, value_parser = finite)]
    pub prcp: f64,
    /// Breed of the unicorn: where it has a model of its own, that one scores the ride [default: the model of all rides]
    #[arg(long)]
    pub breed: Option<String>,
    /// Units of the weather: tenths of °C and mm as NOAA writes them, °C and mm, or °F and inches [default: noaa]
    #[arg(long, value_enum)]
    pub units: Option<UnitSystem>,
    /// How long to wait for an answer
    #[arg(long, default_value_t = 5_000, value_name = "MS")]
    pub timeout_ms: u64,
    /// Ask the fleet on the configured broker instead of scoring in this process with the store's champion
    #[arg(long)]
    pub fleet: bool,
    /// Ask a gateway.
    #[command(flatten)]
    pub remote: Remote,
}

/// A gateway to talk to over HTTP.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// Ask a gateway at this address, as in http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// File with the API key, where the gateway asks for one [default: the environment variable WILDRYDES_API_KEY]
    #[arg(long, value_name = "FILE", requires = "url")]
    pub key_file: Option<PathBuf>,
}

/// Units of the weather on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnitSystem {
    /// Tenths of °C, tenths of mm
    Noaa,
    /// °C, mm
    Celsius,
    /// °F, inches
    Fahrenheit,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// One batch, in detail [default: the newest batches, one line each]
    pub batch: Option<String>,
    /// How many of the newest batches; those refused or with something staged are shown however old they are
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["batch", "all"])]
    pub limit: u32,
    /// Show all batches; reads every claim in the store
    #[arg(long, conflicts_with = "batch")]
    pub all: bool,
    /// Ask a gateway instead of the store.
    #[command(flatten)]
    pub remote: Remote,
}

/// `generate`
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Rides around Manhattan, some of them bad, labelled from a known truth
    #[command(after_help = "\
Examples:
  wildrydes generate rides rides.json
  wildrydes generate rides rides.ndjson --form ndjson --rides 2000000 --seed 7 --unlabelled")]
    Rides {
        /// Where to
        file: PathBuf,
        /// How many
        #[arg(long, default_value_t = 20_000)]
        rides: u64,
        /// Same seed, same rides
        #[arg(long, default_value_t = 42)]
        seed: u64,
        /// Form of the document
        #[arg(long, value_enum, default_value_t = Form::TravelData)]
        form: Form,
        /// Share of bad rides
        #[arg(long, default_value_t = 0.002)]
        bad_share: f64,
        /// Leave the labels out
        #[arg(long)]
        unlabelled: bool,
        /// Replace FILE where it is there already
        #[arg(long)]
        force: bool,
    },
    /// A folder in the layout of NOAA's bucket
    #[command(after_help = "\
Examples:
  wildrydes generate weather weather/ && wildrydes run rides.json --weather weather/")]
    Weather {
        /// Where to
        dir: PathBuf,
        /// Same seed, same weather
        #[arg(long, default_value_t = 42)]
        seed: u64,
        /// Replace the weather in DIR where there is some already
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
    /// One object a line
    Ndjson,
    /// Objects one after the other
    Concatenated,
}

/// `topology`
#[derive(Debug, Subcommand)]
pub enum TopologyCommand {
    /// Print every exchange, queue, binding and rung (--json for machines)
    #[command(after_help = "\
Examples:
  wildrydes topology show
  wildrydes topology show --json
  wildrydes topology show --dot | dot -Tsvg > topology.svg")]
    Show {
        /// As a picture, for Graphviz: wildrydes topology show --dot | dot -Tsvg > topology.svg
        #[arg(long)]
        dot: bool,
    },
    /// Declare it on the broker; changes nothing where it is there already
    Apply,
    /// Print one RabbitMQ user for each worker and outsider, with the least it needs (--json for machines)
    Users(Users),
}

/// `topology users`
#[derive(Debug, Args)]
pub struct Users {
    /// As definitions for RabbitMQ (load_definitions, rabbitmqctl import_definitions), the passwords hashed
    #[arg(long, requires = "passwords", conflicts_with = "rabbitmqctl")]
    pub definitions: bool,
    /// As commands that make the users
    #[arg(long)]
    pub rabbitmqctl: bool,
    /// Where the passwords are: the file USER/password of each user below this folder
    #[arg(long, value_name = "DIR")]
    pub passwords: Option<PathBuf>,
    /// Make up the passwords that are not there yet
    #[arg(long, requires = "passwords")]
    pub generate: bool,
}

/// `bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// Rides
    #[arg(long, default_value_t = 1_000_000)]
    pub rides: u64,
    /// Rides per message
    #[arg(long, default_value_t = 1_000)]
    pub chunk_size: u32,
    /// Runs of each; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Where input and results go; removed afterwards [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::finite;

    #[test]
    fn a_number_is_finite() {
        assert_eq!(finite("-2.5e1"), Ok(-25.0));
        for text in ["nan", "inf", "-Infinity", "1e400", "", "29,5"] {
            assert!(finite(text).is_err_and(|why| why.contains("expected a")), "{text:?}");
        }
    }
}
