//! `up`: all workers in one process, against RabbitMQ.

use crate::{
    job::{fleet::Fleet, serve},
    session::{Failed, Session},
};
use anyhow::Context;
use runtime::shutdown;
use std::net::SocketAddr;

/// `up`. Serves the page and the HTTP API if there is an `address`.
pub(crate) async fn up(session: &Session, address: Option<SocketAddr>) -> Result<(), Failed> {
    let shutdown = shutdown::on_signal().context("installing signal handlers")?;
    let (broker, store) = (session.broker()?, session.swept_store()?);
    session.await_proof(&store, &shutdown).await?;
    let gateway = match address {
        Some(_) => Some(serve::bind(session, broker.clone(), store.clone()).await?),
        None => None,
    };
    let fleet = Fleet::start(session, broker, store, shutdown.clone(), true)?;
    match gateway {
        None => Ok(fleet.finished().await?),
        Some(gateway) => {
            let serving = gateway.serve(shutdown.clone());
            let (served, finished) = tokio::join!(serving, fleet.finished());
            Ok(served.and(finished)?)
        }
    }
}
