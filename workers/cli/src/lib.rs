//! The `wildrydes` command: the whole job in one process, and the tools of data scientists, developers and operators.
//!
//! ```text
//! arguments  the command line
//! session    settings, store and broker of a command, and its exit code
//! output     standard output and error, questions, progress
//! generate   synthetic rides and weather with known coefficients
//! ask        score a ride
//! notebook   export and describe joined datasets
//! model      the model registry
//! job        submit rides and follow them to their dataset and model: run, demo, ingest, refresh, bench
//! operate    status, dead letters, doctor, pause, replay, topology, users
//! ```
//!
//! A room depends only on those above it.

#[macro_use]
mod output;

mod arguments;
mod ask;
pub mod generate;
mod job;
mod model;
mod notebook;
mod operate;
mod session;

use arguments::{Arguments, Command};
use clap::{CommandFactory, Parser};
use common::topology::process::{GATEWAY, MERGER, SCORER, SPLITTER, TRAINER, WEATHER_FETCHER};
use runtime::{telemetry, trace::exporter};
use session::{Failed, Session};
use std::{ffi::OsStr, path::Path, process::ExitCode};

/// Runs the command that the arguments name; under the name of a process of the fleet, that process. An image needs one executable.
pub async fn run() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some(name) if name == SPLITTER.name => splitter::process::run().await,
        Some(name) if name == WEATHER_FETCHER.name => weather_fetcher::process::run().await,
        Some(name) if name == MERGER.name => merger::process::run().await,
        Some(name) if name == TRAINER.name => trainer::process::run().await,
        Some(name) if name == SCORER.name => scorer::process::run().await,
        Some(name) if name == GATEWAY.name => gateway::process::run().await,
        _ => command().await,
    }
}

async fn command() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Completions { shell } = arguments.command {
        clap_complete::generate(shell, &mut Arguments::command(), "wildrydes", &mut output::Output);
        return ExitCode::SUCCESS;
    }
    let json = arguments.shared.json;
    let is_fleet = matches!(arguments.command, Command::Up(_));
    let ended = dispatch(arguments).await;
    // It may wait for a collector, for a limited time.
    let _ = tokio::task::spawn_blocking(exporter::stop).await;
    let (error, code) = match ended {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failed::Broken(error)) => (format!("{error:#}"), 1),
        Err(Failed::Misused(error)) => (format!("{error:#}"), 2),
        // The report on standard output contains the refusal, and is the only document there.
        Err(Failed::Refused(_)) if json => return ExitCode::from(3),
        Err(Failed::Refused(why)) => (why, 3),
        Err(Failed::NoModel) => return ExitCode::from(4),
        Err(Failed::Reported) => return ExitCode::FAILURE,
    };
    match json {
        true => println!("{}", serde_json::json!({ "error": error, "exit_code": code })),
        false if is_fleet => telemetry::fatal(&anyhow::anyhow!(error)),
        false => eprintln!("error: {error}"),
    }
    ExitCode::from(code)
}

async fn dispatch(arguments: Arguments) -> Result<(), Failed> {
    let Arguments { command, shared } = arguments;
    let session = Session::new(shared, &command)?;
    session.start_logs(&command)?;
    exporter::start(&session.section()?, "wildrydes").map_err(Failed::Misused)?;
    if session.shared.broker.is_some() && matches!(command, Command::Demo(_) | Command::Run(_)) {
        return Err(Failed::Misused(anyhow::anyhow!(
            "this command runs everything in this process, without a broker: omit --broker, or use `wildrydes ingest`"
        )));
    }
    match command {
        Command::Demo(options) => job::demo(&session, &options).await,
        Command::Run(options) => job::run(&session, &options).await,
        Command::Ingest(options) => job::ingest(&session, &options).await,
        Command::Bench(options) => job::bench(&session, &options).await,
        Command::Score(options) => ask::score(&session, &options).await,
        Command::Export(options) => notebook::export(&session, &options).await,
        Command::Describe(options) => notebook::describe(&session, &options).await,
        Command::Model(command) => model::model(&session, &command).await,
        Command::Generate(options) => generate::generate(&options),
        Command::Status(options) => operate::status(&session, &options).await,
        Command::Dead(command) => operate::dead(&session, &command).await,
        Command::Replay(options) => operate::replay(&session, &options).await,
        Command::Refresh(options) => job::refresh(&session, &options).await,
        Command::Pause(options) => operate::pause(&session, &options).await,
        Command::Resume(options) => operate::resume(&session, &options).await,
        Command::Drain(options) => operate::drain(&session, &options).await,
        Command::Store(command) => operate::store(&session, &command).await,
        Command::Doctor { only } => operate::doctor(&session, only).await,
        Command::Topology(command) => operate::topology(&session, &command).await,
        Command::Up(options) => operate::up(&session, options.serve).await,
        Command::Key(options) => operate::key(&session, &options),
        Command::Config(command) => operate::config(&session, &command),
        Command::Schema { name } => operate::schema(&session, name.as_deref()),
        Command::Completions { .. } => Ok(()),
    }
}
