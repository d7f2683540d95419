//! The `wildrydes` command: the whole job in one process, or the developer's and operator's hands on a fleet.
//!
//! ```text
//! arguments   the command line                 fleet     the five workers in this process
//! job         upload → publish → follow        report    what one shows a colleague
//! demo, bench, score, status, topology, users  generate  made-up rides and weather with a known truth
//! serve       the page and the HTTP API            keys for them
//! export, describe    the joined dataset for a notebook, and in numbers
//! dataset, dictionary     its rows, checked, and what each column is
//! model       the registry by hand: list, show, diff, promote, rollback, retrain, export; drift
//! output      to whoever still reads it
//! reference   every setting there is
//! dead, replay, control, doctor                what an operator does when something does fail
//! ```

#[macro_use]
mod output;

mod arguments;
mod bench;
mod control;
mod dataset;
mod dead;
mod demo;
mod describe;
mod dictionary;
mod doctor;
mod export;
mod fleet;
pub mod generate;
mod job;
mod model;
mod progress;
mod reference;
mod remote;
mod replay;
mod report;
mod score;
mod serve;
mod status;
mod topology;
mod users;

use anyhow::Context;
use arguments::{Arguments, Command, Shared};
use clap::{CommandFactory, Parser};
use jiff::Timestamp;
use records::{Store, StoreSettings, store};
use runtime::{
    AmqpBroker,
    config::{BrokerSettings, ConfigError, Configuration, LogFormat, LogSettings, Settings, refuse_visible_password},
    shutdown, telemetry,
};
use std::{net::SocketAddr, process::ExitCode, sync::Arc};

/// What ended the command short of success.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Something broke: exit code 1.
    Broken(anyhow::Error),
    /// Arguments or configuration are wrong: exit code 2.
    Misused(anyhow::Error),
    /// A batch was refused: exit code 3.
    Refused(String),
    /// No model came of the rides, as was printed: exit code 4.
    NoModel,
    /// Something broke, as was printed: exit code 1.
    Told,
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// Everything a command needs.
pub(crate) struct Session {
    configuration: Configuration,
    shared: Shared,
    /// When the command began.
    started: Timestamp,
}

impl Session {
    fn section<S: Settings>(&self) -> Result<S, Failed> {
        self.configuration.section().map_err(|error| Failed::Misused(error.into()))
    }

    fn store(&self) -> Result<Store, Failed> {
        store::open(&self.section::<StoreSettings>()?).map_err(Failed::Misused)
    }

    /// As [`Self::store`], for a command that stays: it removes what killed writers left there.
    fn swept_store(&self) -> Result<Store, Failed> {
        store::open_swept(&self.section::<StoreSettings>()?).map_err(Failed::Misused)
    }

    /// For those who only look: a store that is not there is not made.
    fn store_if_there(&self) -> Result<Option<Store>, Failed> {
        store::open_existing(&self.section::<StoreSettings>()?).map_err(Failed::Misused)
    }

    /// That there is no store, and which option names it.
    fn no_store(&self) -> Result<String, Failed> {
        let place = self.store_place()?;
        Ok(format!(
            "there is no store {place}: nothing was ever handed in there. --store (store.url) names the folder of a fleet"
        ))
    }

    fn store_place(&self) -> Result<String, Failed> {
        Ok(self.section::<StoreSettings>()?.url)
    }

    fn broker(&self) -> Result<Arc<AmqpBroker>, Failed> {
        Ok(Arc::new(AmqpBroker::new(self.section::<BrokerSettings>()?)))
    }
}

/// Runs the command that the arguments name.
pub async fn run() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Completions { shell } = arguments.command {
        clap_complete::generate(shell, &mut Arguments::command(), "wildrydes", &mut output::Output);
        return ExitCode::SUCCESS;
    }
    let json = arguments.shared.json;
    let is_fleet = matches!(arguments.command, Command::Up(_));
    let (told, code) = match dispatch(arguments).await {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failed::Broken(error)) => (format!("{error:#}"), 1),
        Err(Failed::Misused(error)) => (format!("{error:#}"), 2),
        // The report says it all, and is the one document on standard output.
        Err(Failed::Refused(_)) if json => return ExitCode::from(3),
        Err(Failed::Refused(why)) => (why, 3),
        Err(Failed::NoModel) => return ExitCode::from(4),
        Err(Failed::Told) => return ExitCode::FAILURE,
    };
    match json {
        true => println!("{}", serde_json::json!({ "error": told, "exit_code": code })),
        // A fleet's last word belongs into its log.
        false if is_fleet => telemetry::fatal(&anyhow::anyhow!(told)),
        false => eprintln!("error: {told}"),
    }
    ExitCode::from(code)
}

async fn dispatch(arguments: Arguments) -> Result<(), Failed> {
    let Arguments { command, shared } = arguments;
    let configuration = configuration(&shared, &command)?;
    start_logs(&configuration, &shared, &command)?;
    if shared.broker.is_some() && matches!(command, Command::Demo(_) | Command::Run(_)) {
        return Err(Failed::Misused(anyhow::anyhow!(
            "this command runs everything in this process, without a broker: leave --broker out, or use `wildrydes ingest`"
        )));
    }
    let context = Session { configuration, shared, started: Timestamp::now() };
    match command {
        Command::Demo(options) => demo::demo(&context, &options).await,
        Command::Run(options) => job::run(&context, &options).await,
        Command::Ingest(options) => job::ingest(&context, &options).await,
        Command::Score(options) => score::score(&context, &options).await,
        Command::Status(options) => status::status(&context, &options).await,
        Command::Export(options) => export::export(&context, &options).await,
        Command::Describe(options) => describe::describe(&context, &options).await,
        Command::Model(command) => model::model(&context, &command).await,
        Command::Dead(command) => dead::dead(&context, &command).await,
        Command::Replay(options) => replay::replay(&context, &options).await,
        Command::Pause(options) => control::pause(&context, &options).await,
        Command::Resume(options) => control::resume(&context, &options).await,
        Command::Drain(options) => control::drain(&context, &options).await,
        Command::Doctor => doctor::doctor(&context).await,
        Command::Generate(options) => demo::generate(&options),
        Command::Topology(command) => topology::topology(&context, &command).await,
        Command::Up(options) => up(&context, options.serve).await,
        Command::Key(options) => serve::key(&context, &options),
        Command::Config(command) => reference::config(&context, &command),
        Command::Bench(options) => bench::bench(&context, &options).await,
        Command::Completions { .. } => Ok(()),
    }
}

/// The layers of the configuration, flags last.
fn configuration(shared: &Shared, command: &Command) -> Result<Configuration, Failed> {
    let mut overrides = shared.overrides.clone();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            overrides.push((key.to_owned(), value));
        }
    };
    set("store.url", shared.store.clone());
    set("broker.url", shared.broker.clone());
    if let Command::Run(run) = command {
        set("weather.source", run.weather.weather.clone());
        set("weather.stations", run.weather.stations.clone());
        set("weather.max_station_km", run.weather.max_station_km.map(|km| km.to_string()));
        set("splitter.chunk_size", run.chunk_size.map(|size| size.to_string()));
    }
    let served = match command {
        Command::Demo(demo) => demo.serve.serve,
        Command::Run(run) => run.serve.serve,
        Command::Up(up) => up.serve,
        _ => None,
    };
    let misused = |error: ConfigError| Failed::Misused(error.into());
    refuse_visible_password(&overrides).map_err(misused)?;
    let mut configuration = Configuration::load(shared.config.as_deref(), &overrides).map_err(misused)?;
    if let Some(address) = served {
        overrides.extend(serve::overrides(&configuration, address));
        configuration = Configuration::load(shared.config.as_deref(), &overrides).map_err(misused)?;
    }
    Ok(configuration)
}

/// A fleet logs; a command that a person waits for shows progress and a result, and logs when asked.
fn start_logs(configuration: &Configuration, shared: &Shared, command: &Command) -> Result<(), Failed> {
    let mut settings: LogSettings = configuration.section().map_err(|error| Failed::Misused(error.into()))?;
    if !matches!(command, Command::Up(_)) {
        settings.level = match shared.verbose {
            0 => "error".to_owned(),
            1 => "info".to_owned(),
            _ => "debug".to_owned(),
        };
        settings.format = LogFormat::Human;
    }
    telemetry::start(&settings).map_err(Failed::Misused)
}

/// `up`: all workers in one process.
async fn up(context: &Session, address: Option<SocketAddr>) -> Result<(), Failed> {
    let shutdown = shutdown::on_signal().context("installing signal handlers")?;
    let (broker, store) = (context.broker()?, context.swept_store()?);
    let gateway = match address {
        Some(_) => Some(serve::bind(context, broker.clone(), store.clone()).await?),
        None => None,
    };
    let fleet = fleet::Fleet::start(context, broker, store, shutdown.clone(), true)?;
    match gateway {
        None => Ok(fleet.finished().await?),
        Some(gateway) => {
            let serving = gateway.serve(shutdown.clone());
            let (served, finished) = tokio::join!(serving, fleet.finished());
            Ok(served.and(finished)?)
        }
    }
}
