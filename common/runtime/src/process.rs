//! Runs a worker as a process: arguments, configuration, logs, broker, store, signals.

use super::{
    AmqpBroker,
    config::{
        BrokerSettings, Configuration, LogSettings, RunSettings, Settings, TelemetrySettings, parse_override,
        refuse_visible_password,
    },
    health::{self, Health},
    metrics::{Metrics, metrics},
    proven::{StoreError, await_proof},
    shutdown::{self, Shutdown},
    telemetry,
    trace::exporter,
    worker::{RunError, RunOptions, Worker, run},
};
use clap::Parser;
use futures::FutureExt;
use records::{Store, StoreSettings, store};
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Arguments of every worker.
#[derive(Debug, Parser)]
#[command(after_help = "\
Configuration, later ones override earlier ones: built-in defaults, --config FILE (TOML), WILDRYDES__SECTION__KEY
environment variables, --set SECTION.KEY=VALUE. Sections: broker, store, run, log, telemetry, splitter, weather, merger, trainer,
scorer, gateway.

Examples:
  WILDRYDES__BROKER__URL=amqp://merger@rabbit:5672/%2f WILDRYDES__BROKER__PASSWORD_FILE=/run/secrets/merger merger
  splitter --config wildrydes.toml --set splitter.chunk_size=500 --set run.concurrency=2

After SIGTERM or SIGINT the process finishes running handlers, up to run.drain_deadline_ms. Exit code: 0 after a clean
shutdown, 1 if the broker stayed unreachable or work is unfinished, 2 if arguments or configuration are invalid.")]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "WILDRYDES_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// One setting; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = parse_override)]
    overrides: Vec<(String, String)>,
}

/// The process of a worker with its configuration.
pub struct Process {
    configuration: Configuration,
    store: OnceLock<Store>,
    shutdown: Shutdown,
}

impl Process {
    /// Reads arguments and configuration and starts the logs. Exits with 2 if they are invalid.
    pub fn start(name: &'static str, about: &'static str) -> Self {
        Self::start_documented(name, about, "")
    }

    /// As [`Self::start`]; `--help` ends with `reference`, for example the settings of the worker's section.
    pub fn start_documented(name: &'static str, about: &'static str, reference: &str) -> Self {
        // First of all: the system drops a signal without a handler if this is the first process of a container.
        let shutdown = shutdown::on_signal();
        let command =
            <Arguments as clap::CommandFactory>::command().name(name).about(about).version(env!("CARGO_PKG_VERSION"));
        let general = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let command = command.after_help(format!("{general}\n\n{reference}").trim_end().to_owned());
        let matches = command.get_matches();
        let arguments =
            <Arguments as clap::FromArgMatches>::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let started = refuse_visible_password(&arguments.overrides)
            .and_then(|()| Configuration::load(arguments.config.as_deref(), &arguments.overrides))
            .map_err(anyhow::Error::from)
            .and_then(|configuration| {
                telemetry::start(&configuration.section::<LogSettings>()?)?;
                exporter::start(&configuration.section::<TelemetrySettings>()?, name)?;
                // Their first use is the start of the process.
                metrics();
                Ok(Self { configuration, store: OnceLock::new(), shutdown: shutdown? })
            });
        started.unwrap_or_else(|error| {
            start_logs_anyway(&arguments.overrides);
            exit_misconfigured(&error)
        })
    }

    /// Returns one section of the configuration. Exits with 2 if it is invalid.
    pub fn settings<S: Settings>(&self) -> S {
        self.configuration.section().unwrap_or_else(|error| exit_misconfigured(&error.into()))
    }

    /// Returns the object store; the first call opens it. Exits with 2 if it cannot be used.
    pub fn store(&self) -> Store {
        self.opened(store::open)
    }

    /// As [`Self::store`], before any call of it; this process also removes what killed writers left in the store.
    pub fn swept_store(&self) -> Store {
        self.opened(store::open_swept)
    }

    fn opened(&self, open: fn(&StoreSettings) -> anyhow::Result<Store>) -> Store {
        let opened = || {
            let store = open(&self.settings()).unwrap_or_else(|error| exit_misconfigured(&error));
            store::observed(store, Metrics::store_operation)
        };
        Store::clone(self.store.get_or_init(opened))
    }

    /// Returns the configured broker. Does not connect.
    pub fn broker(&self) -> Arc<AmqpBroker> {
        Arc::new(AmqpBroker::new(self.settings()))
    }

    /// Runs the worker with RabbitMQ until a signal. Fails if the settings are invalid, the broker stays unreachable,
    /// or work is unfinished at the drain deadline; the log names the cause.
    pub async fn run<W: Worker>(&self, worker: anyhow::Result<W>) -> ExitCode {
        let running =
            |worker, shutdown: Shutdown| self.probed(shutdown.clone(), |health| self.running(worker, health, shutdown));
        self.serve(worker, running).await
    }

    /// Runs two workers with RabbitMQ, each over its own connection, until a signal or until either ends. Fails as
    /// [`Self::run`] for either.
    pub async fn run_both<A: Worker, B: Worker>(&self, workers: anyhow::Result<(A, B)>) -> ExitCode {
        let running = |(first, second): (A, B), shutdown: Shutdown| {
            self.probed(shutdown.clone(), |health| async move {
                let first = self.running(first, health.clone(), shutdown.clone());
                let second = self.running(second, health, shutdown.clone());
                both(first, second, &shutdown).await
            })
        };
        self.serve(workers, running).await
    }

    /// Runs `serve` until a signal.
    pub async fn serve<S, F>(&self, started: anyhow::Result<S>, serve: impl FnOnce(S, Shutdown) -> F) -> ExitCode
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let started = started.unwrap_or_else(|error| exit_misconfigured(&error));
        let served = serve(started, self.shutdown.clone()).await;
        // It may wait for a collector, for a limited time.
        let _ = tokio::task::spawn_blocking(exporter::stop).await;
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                telemetry::fatal(&error);
                ExitCode::FAILURE
            }
        }
    }

    /// Runs workers once the store is proven, and beside them the listener of their health.
    async fn probed<F>(&self, shutdown: Shutdown, run: impl FnOnce(Health) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = Result<(), RunError>>,
    {
        let health = Health::default();
        let listener = health::listener(&self.settings()).unwrap_or_else(|error| exit_misconfigured(&error));
        let probes = health::serve(listener, health.clone(), self.store());
        let working = async {
            self.proven(&shutdown).await?;
            Ok(run(health).await?)
        };
        tokio::select! {
            ended = working => ended,
            never = probes => match never {},
        }
    }

    /// Waits until the store is proven ([`await_proof`]). Exits with 2 if it is unfit.
    ///
    /// # Errors
    /// Fails if the store stays unreachable.
    pub async fn proven(&self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let give_up_after = Duration::from_millis(self.settings::<BrokerSettings>().give_up_after_ms);
        match await_proof(&self.settings(), &self.store(), give_up_after, shutdown).await {
            Err(unfit @ StoreError::Unfit { .. }) => exit_misconfigured(&unfit.into()),
            proven => Ok(proven?),
        }
    }

    fn running<W: Worker>(
        &self,
        worker: W,
        health: Health,
        shutdown: Shutdown,
    ) -> impl Future<Output = Result<(), RunError>> + use<W> {
        let broker = self.settings::<BrokerSettings>();
        let (control, waiting) = (Some(self.store()), Some(self.store()));
        let health = Some(health);
        let options =
            RunOptions { control, waiting, health, ..run_options::<W>(&self.settings(), &broker, &self.store()) };
        run(Arc::new(worker), Arc::new(AmqpBroker::new(broker)), options, shutdown)
    }
}

/// Runs two workers together: when either ends, the other is shut down.
///
/// # Errors
/// Fails with the error of the first worker, else with that of the second.
pub async fn both(
    first: impl Future<Output = Result<(), RunError>>,
    second: impl Future<Output = Result<(), RunError>>,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    let first = first.inspect(|_| shutdown.cancel());
    let second = second.inspect(|_| shutdown.cancel());
    let (first, second) = futures::future::join(first, second).await;
    first.and(second)
}

/// Returns the options of a worker with these settings and this store.
pub fn run_options<W: Worker>(run: &RunSettings, broker: &BrokerSettings, store: &Store) -> RunOptions {
    let default = if store::is_remote(store) { W::CONCURRENCY_REMOTE } else { W::CONCURRENCY };
    let concurrency = run.concurrency.unwrap_or(default);
    RunOptions {
        concurrency: concurrency.into(),
        prefetch: run.prefetch.unwrap_or(W::PREFETCH.max(concurrency)),
        drain_deadline: Duration::from_millis(run.drain_deadline_ms),
        handle_timeout: Duration::from_millis(run.handle_timeout_ms),
        give_up_after: Duration::from_millis(broker.give_up_after_ms),
        version: env!("CARGO_PKG_VERSION"),
        control: None,
        waiting: None,
        health: None,
    }
}

/// Starts the logs if the configuration as a whole is invalid: with its `[log]` section alone, without the file.
fn start_logs_anyway(overrides: &[(String, String)]) {
    let about_logs: Vec<_> = overrides.iter().filter(|(key, _)| key.starts_with("log.")).cloned().collect();
    let settings = Configuration::load(None, &about_logs).and_then(|some| some.section::<LogSettings>());
    // If this section is invalid as well, the defaults apply.
    let _ = telemetry::start(&settings.unwrap_or_default());
}

fn exit_misconfigured(error: &anyhow::Error) -> ! {
    telemetry::fatal(error);
    std::process::exit(2);
}
