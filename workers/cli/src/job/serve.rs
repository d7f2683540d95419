//! `--serve`: the page and the HTTP API in this process.

use super::{
    fleet::Fleet,
    in_process::{Files, to_the_model},
    report, schedule,
};
use crate::{
    generate::Truth,
    session::{Failed, Session},
};
use gateway::{Bound, Gateway};
use records::Store;
use runtime::{Broker, MemoryBroker, Shutdown, client::Client, config::BrokerSettings, shutdown};
use std::sync::Arc;

/// Binds the address of the page and the API.
pub(crate) async fn bind(session: &Session, broker: Arc<dyn Broker>, store: Store) -> Result<Bound, Failed> {
    let gateway = Gateway::new(session.section()?, broker, store).map_err(Failed::Misused)?;
    let gateway = gateway.watching(&session.section::<BrokerSettings>()?).map_err(Failed::Misused)?;
    gateway.bind().await.map_err(Failed::Misused)
}

/// Runs the whole job in this process and serves the page and the API until Ctrl-C.
pub(crate) async fn run(
    session: &Session,
    store: &Store,
    files: Files<'_>,
    truth: Option<&Truth>,
) -> Result<(), Failed> {
    let shutdown = shutdown::on_signal()?;
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
    let settings = session.section::<gateway::Settings>()?;
    let gateway = Gateway::new(settings, Arc::clone(&broker), store.clone()).map_err(Failed::Misused)?;
    let gateway = gateway.bind().await.map_err(Failed::Misused)?;
    let url = gateway.url();
    eprintln!("page and API: {url}   (docs: {url}/docs)");
    let mut fleet = Fleet::start(session, Arc::clone(&broker), store.clone(), shutdown.clone(), None)?;
    let _schedule = schedule::refresh_stale(session, &broker, store)?;
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
            Ok(()) | Err(Failed::NoModel | Failed::Reported) => {}
        }
        eprintln!("\nserving on {url} until Ctrl-C");
    }
    wait_for_shutdown(&shutdown, &mut fleet).await?;
    fleet.stop().await?;
    serving.await??;
    done
}

async fn job(
    session: &Session,
    broker: &Arc<dyn Broker>,
    store: &Store,
    files: Files<'_>,
    truth: Option<&Truth>,
) -> Result<(), Failed> {
    if files.paths.is_empty() {
        return Ok(());
    }
    let client = Client::connect(broker.as_ref(), "wildrydes").await?;
    let outcome = to_the_model(session, broker, &client, store, files).await?;
    client.close().await;
    report::print(session, store, &outcome, truth).await
}

/// Waits for the shutdown. Fails if a worker fails first.
async fn wait_for_shutdown(shutdown: &Shutdown, fleet: &mut Fleet) -> Result<(), Failed> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        error = fleet.failure() => Err(Failed::Broken(error)),
    }
}
