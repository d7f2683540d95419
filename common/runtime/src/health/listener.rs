//! The HTTP listener of probes and Prometheus: `/livez`, `/readyz` and `/metrics`.

use super::{Health, unreachable};
use crate::{config::RunSettings, metrics::metrics};
use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use records::Store;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// Maximum number of concurrent connections: a few probes and scrapers. Further ones are closed.
const CONNECTIONS_MAX: usize = 64;
/// Maximum time of a connection, which serves one request.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept, for instance without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that is bound, but does not serve yet.
pub struct Listener(std::net::TcpListener);

/// Binds the listener; `None` if the settings name no address.
///
/// # Errors
/// Fails if the address is invalid, in use or not one of this machine.
pub fn listener(run: &RunSettings) -> anyhow::Result<Option<Listener>> {
    let Some(address) = run.health_address().map_err(|problem| anyhow::anyhow!("run.{problem}"))? else {
        return Ok(None);
    };
    let bound = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        std::io::Result::Ok(Listener(listener))
    };
    bound().map(Some).with_context(|| format!("run.health_bind = {address}"))
}

/// Serves the health of this process until the future is dropped; without a listener, does nothing until then.
pub async fn serve(listener: Option<Listener>, health: Health, store: Store) -> Infallible {
    if let Some(listener) = listener {
        let ended = listener.serve(health, store).await;
        tracing::error!(?ended, "the listener of probes ended");
    }
    std::future::pending().await
}

impl Listener {
    /// # Errors
    /// Fails if the socket cannot be used.
    async fn serve(self, health: Health, store: Store) -> std::io::Result<()> {
        let router = Router::new()
            .route("/livez", get(live))
            .route("/readyz", get(ready))
            .route("/metrics", get(scrape))
            .fallback(|| async { (StatusCode::NOT_FOUND, "this listener has /livez, /readyz and /metrics\n") })
            .with_state((health, store));
        let listener = TcpListener::from_std(self.0)?;
        tracing::info!(url = format!("http://{}", listener.local_addr()?), "serving health and metrics");
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&free).try_acquire_owned() else { continue };
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let connection =
                    http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
                // A client that fails or is too slow asks again.
                let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
                drop(permit);
            });
        }
    }
}

async fn live(State((health, _)): State<(Health, Store)>) -> impl IntoResponse {
    answer("ok", &health.dead())
}

async fn ready(State((health, store)): State<(Health, Store)>) -> impl IntoResponse {
    let mut reasons = health.unready();
    reasons.extend(unreachable(&store).await);
    answer("ready", &reasons)
}

/// Returns 200 with `word`, or 503 with one reason per line.
fn answer(word: &str, reasons: &[String]) -> (StatusCode, String) {
    match reasons.is_empty() {
        true => (StatusCode::OK, format!("{word}\n")),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}

async fn scrape() -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics().text() + "# EOF\n")
}
