//! `up`: all workers in one process, against RabbitMQ.

use crate::{
    job::{fleet::Fleet, schedule, serve},
    session::{Failed, Session},
};
use anyhow::Context;
use records::{Store, store};
use runtime::{
    Broker, Shutdown,
    health::{self, Health},
    metrics::Metrics,
    shutdown,
};
use std::{net::SocketAddr, sync::Arc};

/// `up`. Serves the page and the HTTP API if there is an `address`.
pub(crate) async fn up(session: &Session, address: Option<SocketAddr>) -> Result<(), Failed> {
    let shutdown = shutdown::on_signal().context("installing signal handlers")?;
    let listener = health::listener(&session.section()?).map_err(Failed::Misused)?;
    let (health, store) = (Health::default(), store::observed(session.swept_store()?, Metrics::store_operation));
    let probes = health::serve(listener, health.clone(), store.clone());
    tokio::select! {
        ended = working(session, address, store, health, shutdown) => ended,
        never = probes => match never {},
    }
}

/// Runs the workers once the store is proven, and beside them the page and the HTTP API if there is an `address`.
async fn working(
    session: &Session,
    address: Option<SocketAddr>,
    store: Store,
    health: Health,
    shutdown: Shutdown,
) -> Result<(), Failed> {
    let broker: Arc<dyn Broker> = session.broker()?;
    session.await_proof(&store, &shutdown).await?;
    let gateway = match address {
        Some(_) => Some(serve::bind(session, broker.clone(), store.clone()).await?),
        None => None,
    };
    let _schedule = schedule::refresh_stale(session, &broker, &store)?;
    let fleet = Fleet::start(session, broker, store, shutdown.clone(), Some(health))?;
    match gateway {
        None => Ok(fleet.finished().await?),
        Some(gateway) => {
            let serving = gateway.serve(shutdown);
            let (served, finished) = tokio::join!(serving, fleet.finished());
            Ok(served.and(finished)?)
        }
    }
}
