//! `--serve` and `key`: the page and the HTTP API, and who may use them.

use crate::{
    Failed, Session,
    arguments::{KeyScope, NewKey},
    fleet::Fleet,
    job::{self, Files},
    report::{self, KnownTruth},
};
use gateway::{Bound, Gateway, settings::Auth};
use rand::RngExt;
use records::Store;
use runtime::{
    Broker, MemoryBroker, Shutdown,
    client::Client,
    config::{BrokerSettings, Configuration},
    shutdown,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{net::SocketAddr, sync::Arc};

/// What `--serve` says to the section `[gateway]`: where, and, on this machine alone, that no key is asked for unless the
/// configuration says otherwise.
pub(crate) fn overrides(configuration: &Configuration, address: SocketAddr) -> Vec<(String, String)> {
    let mut overrides = vec![("gateway.bind".to_owned(), address.to_string())];
    let told = configuration.sets("gateway.keys") || configuration.sets("gateway.auth");
    if address.ip().is_loopback() && !told {
        overrides.push(("gateway.auth".to_owned(), "off".to_owned()));
    }
    overrides
}

/// The same once it is decided.
pub(crate) fn decided(settings: &gateway::Settings, address: SocketAddr) -> Vec<(String, String)> {
    let mut overrides = vec![("gateway.bind".to_owned(), address.to_string())];
    if settings.auth == Auth::Off {
        overrides.push(("gateway.auth".to_owned(), "off".to_owned()));
    }
    overrides
}

/// Takes the port for the page and the API.
pub(crate) async fn bind(session: &Session, broker: Arc<dyn Broker>, store: Store) -> Result<Bound, Failed> {
    let gateway = Gateway::new(session.section()?, broker, store).map_err(Failed::Misused)?;
    let gateway = gateway.watching(&session.section::<BrokerSettings>()?).map_err(Failed::Misused)?;
    gateway.bind().await.map_err(Failed::Misused)
}

/// The whole job in this process, watched and scored from over HTTP, until Ctrl-C.
pub(crate) async fn run(
    session: &Session,
    store: &Store,
    files: Files<'_>,
    truth: Option<&KnownTruth>,
) -> Result<(), Failed> {
    let shutdown = shutdown::on_signal()?;
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
    let settings = session.section::<gateway::Settings>()?;
    let gateway = Gateway::new(settings, Arc::clone(&broker), store.clone()).map_err(Failed::Misused)?;
    let gateway = gateway.bind().await.map_err(Failed::Misused)?;
    let url = gateway.url();
    eprintln!("page and API: {url}   (docs: {url}/docs)");
    let mut fleet = Fleet::start(session, Arc::clone(&broker), store.clone(), shutdown.clone(), false)?;
    let mut serving = tokio::spawn(gateway.serve(shutdown.clone()));
    let done = tokio::select! {
        biased;
        done = job(session, &broker, store, files, truth) => done,
        error = fleet.failure() => return Err(Failed::Broken(error)),
        () = shutdown.cancelled() => Ok(()),
        ended = &mut serving => return Ok(ended??),
    };
    if !shutdown.is_cancelled() {
        match &done {
            Err(Failed::Refused(why)) => eprintln!("error: {why}"),
            Err(Failed::Broken(error) | Failed::Misused(error)) => eprintln!("error: {error:#}"),
            Ok(()) | Err(Failed::NoModel | Failed::Told) => {}
        }
        eprintln!("\nserving on {url}, until Ctrl-C");
    }
    until(&shutdown, &mut fleet).await?;
    fleet.stop().await?;
    serving.await??;
    done
}

async fn job(
    session: &Session,
    broker: &Arc<dyn Broker>,
    store: &Store,
    files: Files<'_>,
    truth: Option<&KnownTruth>,
) -> Result<(), Failed> {
    if files.paths.is_empty() {
        return Ok(());
    }
    let client = Client::connect(broker.as_ref(), "wildrydes").await?;
    let outcome = job::to_the_model(session, broker, &client, store, files).await?;
    client.close().await;
    report::print(session, store, &outcome, truth).await
}

async fn until(shutdown: &Shutdown, fleet: &mut Fleet) -> Result<(), Failed> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        error = fleet.failure() => Err(Failed::Broken(error)),
    }
}

/// `key`
pub(crate) fn key(session: &Session, options: &NewKey) -> Result<(), Failed> {
    let bytes: [u8; 32] = rand::rng().random();
    let key = format!("wr_{}", hex::encode(bytes));
    let sha256 = hex::encode(Sha256::digest(&key));
    let scopes: Vec<&str> = options
        .scopes
        .iter()
        .map(|scope| match scope {
            KeyScope::Read => "read",
            KeyScope::Write => "write",
        })
        .collect();
    if session.shared.json {
        let NewKey { name, requests_per_second, .. } = options;
        println!(
            "{}",
            json!({ "key": key, "name": name, "sha256": sha256, "scopes": scopes, "requests_per_second": requests_per_second })
        );
        return Ok(());
    }
    println!("# The key, for {} alone; it is kept nowhere else:\n#   {key}", options.name);
    println!("# For the gateway's configuration file:");
    println!("[[gateway.keys]]\nname = {}\nsha256 = \"{sha256}\"", json!(options.name));
    println!("scopes = {}", json!(scopes));
    if let Some(rate) = options.requests_per_second {
        println!("requests_per_second = {rate}");
    }
    Ok(())
}
