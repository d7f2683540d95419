//! What every command needs: its settings, the store, the broker, and the ways in which it fails.

use crate::arguments::{Command, Shared};
use anyhow::anyhow;
use gateway::settings::Auth;
use jiff::Timestamp;
use records::{Store, StoreSettings, store};
use runtime::{
    AmqpBroker, Shutdown,
    config::{BrokerSettings, ConfigError, Configuration, LogFormat, LogSettings, Settings, refuse_visible_password},
    proven::{StoreError, await_proof},
    telemetry,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Why a command did not succeed. Determines the exit code.
#[derive(Debug)]
pub(crate) enum Failed {
    /// An operation failed: exit code 1.
    Broken(anyhow::Error),
    /// Arguments or configuration are wrong: exit code 2.
    Misused(anyhow::Error),
    /// A batch was refused: exit code 3.
    Refused(String),
    /// The rides yielded no model; the command has printed why: exit code 4.
    NoModel,
    /// An operation failed, and the command has printed why: exit code 1.
    Reported,
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// The options and the configuration of the running command.
pub(crate) struct Session {
    pub(crate) configuration: Configuration,
    pub(crate) shared: Shared,
    /// Location of a store that the command makes for itself, in the place of the configured one.
    own_store: Option<String>,
    /// When the command began.
    pub(crate) started: Timestamp,
}

impl Session {
    /// Loads the configuration, with the flags of `command` as its last layer.
    pub(crate) fn new(shared: Shared, command: &Command) -> Result<Self, Failed> {
        let configuration = configuration(&shared, command)?;
        Ok(Self { configuration, shared, own_store: None, started: Timestamp::now() })
    }

    /// Returns the same session with other overrides and a store that the command makes for itself.
    pub(crate) fn with_own_store(&self, location: String, overrides: Vec<(String, String)>) -> Result<Self, Failed> {
        let shared = Shared { overrides, ..self.shared.clone() };
        let configuration = load(&shared, &shared.overrides)?;
        Ok(Self { configuration, shared, own_store: Some(location), started: self.started })
    }

    /// Returns the settings of one section of the configuration.
    pub(crate) fn section<S: Settings>(&self) -> Result<S, Failed> {
        self.configuration.section().map_err(misused)
    }

    /// Returns the settings of the store. Those of the configured store apply to one that the command makes for itself as far as they
    /// can: a folder has no endpoint.
    pub(crate) fn store_settings(&self) -> Result<StoreSettings, Failed> {
        let configured: StoreSettings = self.section()?;
        Ok(self.own_store.as_ref().map_or_else(|| configured.clone(), |location| configured.at(location)))
    }

    /// Opens the store and creates it if it is missing.
    pub(crate) fn store(&self) -> Result<Store, Failed> {
        store::open(&self.store_settings()?).map_err(Failed::Misused)
    }

    /// Opens the store as [`Self::store`] does and removes what killed writers left there: for a process that stays.
    pub(crate) fn swept_store(&self) -> Result<Store, Failed> {
        store::open_swept(&self.store_settings()?).map_err(Failed::Misused)
    }

    /// Proves that the store can be that of a fleet, for a command that runs one. Waits for a service that is down as long as a
    /// worker would.
    pub(crate) async fn await_proof(&self, store: &Store, shutdown: &Shutdown) -> Result<(), Failed> {
        let give_up_after = Duration::from_millis(self.section::<BrokerSettings>()?.give_up_after_ms);
        self.prove_within(give_up_after, store, shutdown).await
    }

    /// As [`Self::await_proof`], without waiting.
    pub(crate) async fn prove(&self, store: &Store) -> Result<(), Failed> {
        self.prove_within(Duration::ZERO, store, &Shutdown::new()).await
    }

    async fn prove_within(&self, give_up_after: Duration, store: &Store, shutdown: &Shutdown) -> Result<(), Failed> {
        let proof = await_proof(&self.store_settings()?, store, give_up_after, shutdown).await;
        proof.map_err(|error| match error {
            StoreError::Unfit { .. } => Failed::Misused(error.into()),
            StoreError::GaveUp { .. } => Failed::Broken(error.into()),
        })
    }

    /// Opens the store for a command that only reads: does not create a missing one.
    pub(crate) fn store_if_there(&self) -> Result<Option<Store>, Failed> {
        store::open_existing(&self.store_settings()?).map_err(Failed::Misused)
    }

    /// Opens the store; fails if it does not exist.
    pub(crate) fn existing_store(&self) -> Result<Store, Failed> {
        match self.store_if_there()? {
            Some(store) => Ok(store),
            None => Err(Failed::Broken(anyhow!(self.no_store()?))),
        }
    }

    /// Returns the message that there is no store, with the option that names one.
    pub(crate) fn no_store(&self) -> Result<String, Failed> {
        let location = self.store_location()?;
        Ok(format!(
            "there is no store {location}: no batch was ever submitted there. --store (store.url) names the store of a fleet"
        ))
    }

    /// Returns the location of the store, as configured.
    pub(crate) fn store_location(&self) -> Result<String, Failed> {
        Ok(self.store_settings()?.url)
    }

    /// Returns the broker that the configuration names. Does not connect.
    pub(crate) fn broker(&self) -> Result<Arc<AmqpBroker>, Failed> {
        Ok(Arc::new(AmqpBroker::new(self.section::<BrokerSettings>()?)))
    }

    /// Starts logging. A fleet always logs; a command that a person waits for logs errors only, or more with `-v`.
    pub(crate) fn start_logs(&self, command: &Command) -> Result<(), Failed> {
        let mut settings: LogSettings = self.section()?;
        if !matches!(command, Command::Up(_)) {
            settings.level = match self.shared.verbose {
                0 => "error".to_owned(),
                1 => "info".to_owned(),
                _ => "debug".to_owned(),
            };
            settings.format = LogFormat::Human;
        }
        telemetry::start(&settings).map_err(Failed::Misused)
    }
}

fn misused(error: ConfigError) -> Failed {
    Failed::Misused(error.into())
}

fn load(shared: &Shared, overrides: &[(String, String)]) -> Result<Configuration, Failed> {
    Configuration::load(shared.config.as_deref(), overrides).map_err(misused)
}

/// Merges the layers of the configuration, flags last.
fn configuration(shared: &Shared, command: &Command) -> Result<Configuration, Failed> {
    let mut overrides = shared.overrides.clone();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            overrides.push((key.to_owned(), value));
        }
    };
    set("store.url", shared.store.clone());
    set("broker.url", shared.broker.clone());
    let weather = match command {
        Command::Run(run) => Some(&run.weather),
        Command::Refresh(refresh) => Some(&refresh.weather),
        _ => None,
    };
    if let Some(weather) = weather {
        set("weather.source", weather.weather.clone());
        set("weather.stations", weather.stations.clone());
        set("weather.max_station_km", weather.max_station_km.map(|km| km.to_string()));
    }
    if let Command::Run(run) = command {
        set("splitter.chunk_size", run.chunk_size.map(|size| size.to_string()));
    }
    let address = match command {
        Command::Demo(demo) => demo.serve.serve,
        Command::Run(run) => run.serve.serve,
        Command::Up(up) => up.serve,
        _ => None,
    };
    refuse_visible_password(&overrides).map_err(misused)?;
    let configuration = load(shared, &overrides)?;
    let Some(address) = address else { return Ok(configuration) };
    // On the loopback address no key is required, unless the configuration requires one.
    let is_open =
        address.ip().is_loopback() && !(configuration.sets("gateway.keys") || configuration.sets("gateway.auth"));
    overrides.extend(serve_overrides(address, is_open));
    load(shared, &overrides)
}

/// Returns the settings that `--serve` sets in the section `[gateway]`, given the decision in `settings` whether keys are
/// required.
pub(crate) fn decided_serve_overrides(settings: &gateway::Settings, address: SocketAddr) -> Vec<(String, String)> {
    serve_overrides(address, settings.auth == Auth::Off)
}

fn serve_overrides(address: SocketAddr, is_open: bool) -> Vec<(String, String)> {
    let mut overrides = vec![("gateway.bind".to_owned(), address.to_string())];
    if is_open {
        overrides.push(("gateway.auth".to_owned(), "off".to_owned()));
    }
    overrides
}

/// Returns the user and the machine, as in `ann@laptop`.
pub(crate) fn user_and_host() -> String {
    let variable =
        |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let user = variable(&["USER", "LOGNAME", "USERNAME"]).unwrap_or_else(|| "somebody".to_owned());
    let file = || std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    match variable(&["HOSTNAME"]).or_else(file) {
        Some(host) => format!("{user}@{host}"),
        None => user,
    }
}
