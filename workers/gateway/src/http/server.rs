//! The server: takes its port, serves until shutdown, and counts and bounds every request.

use super::{
    body_guard::until_taken,
    headers,
    listener::{BoundedListener, Peer, listen, patient},
    ops,
    problem::Problem,
    request::{answer_in_time, mark_busy},
    traced::{is_probe, traced},
};
use crate::{
    api,
    app::{App, Gateway},
    batches::state::prepare,
    limits::Limit,
    settings::Auth,
};
use anyhow::Context;
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use axum_server::{
    Handle, Server,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use records::uploads;
use runtime::{Shutdown, host};
use std::{
    any::Any,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tower_http::{catch_panic::CatchPanicLayer, csrf::CsrfLayer};

/// How long requests in progress may take to finish after a shutdown was requested.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Interval between two checks for idle connections.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// Descriptors kept free for everything but connections to `gateway.bind`: store, broker, `gateway.ops_bind`, logs.
const DESCRIPTORS_RESERVED: u64 = 256;

/// A gateway that has taken its port.
pub struct Bound {
    gateway: Gateway,
    listener: TcpListener,
    address: SocketAddr,
    ops: Option<TcpListener>,
    tls: Option<RustlsConfig>,
    /// The limit on open descriptors, if the system has one.
    descriptors: Option<u64>,
}

impl Gateway {
    /// Binds to the address of the settings.
    ///
    /// # Errors
    /// Fails if the port is in use, or the certificate is invalid.
    pub async fn bind(self) -> anyhow::Result<Bound> {
        Bound::new(self).await
    }

    /// Binds to the address of the settings and serves until `shutdown`, requests once `proof` of the store is there.
    ///
    /// # Errors
    /// As [`Self::bind`], and fails if `proof` of the store does; only probes are answered before.
    pub async fn serve_after(
        self,
        proof: impl Future<Output = anyhow::Result<()>>,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        self.bind().await?.serve_after(proof, shutdown).await
    }
}

impl Bound {
    pub(crate) async fn new(gateway: Gateway) -> anyhow::Result<Self> {
        let settings = &gateway.settings;
        let bind_address = settings.address().map_err(|problem| anyhow::anyhow!("gateway.{problem}"))?;
        let tls = match (&settings.tls_cert_file, &settings.tls_key_file) {
            (Some(cert), Some(key)) => {
                records::tls::install_cryptography();
                let read = RustlsConfig::from_pem_file(cert, key).await;
                Some(read.with_context(|| format!("gateway.tls_cert_file = {cert}, tls_key_file = {key}"))?)
            }
            _ => None,
        };
        let ops_address = settings.ops_address().map_err(|problem| anyhow::anyhow!("gateway.{problem}"))?;
        let listener = listen("bind", bind_address)?;
        let ops = ops_address.map(|address| listen("ops_bind", address)).transpose()?;
        let address = listener.local_addr()?;
        let descriptors = rlimit::increase_nofile_limit(u64::MAX).ok();
        Ok(Self { gateway, listener, address, ops, tls, descriptors })
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL to open in a browser.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match self.address.ip().is_unspecified() {
            true => format!("{scheme}://localhost:{}", self.address.port()),
            false => format!("{scheme}://{}", self.address),
        }
    }

    /// Serves until `shutdown`, then finishes the requests in progress.
    ///
    /// # Errors
    /// Fails if the socket fails.
    pub async fn serve(self, shutdown: Shutdown) -> anyhow::Result<()> {
        self.serve_after(std::future::ready(Ok(())), shutdown).await
    }

    async fn serve_after(
        self,
        proof: impl Future<Output = anyhow::Result<()>>,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        self.warn();
        let url = self.url();
        let connections_max = connections_max(self.gateway.settings.connections_max, self.descriptors);
        let Self { gateway, listener, ops, tls, address, descriptors } = self;
        let app = App::start(gateway, address, connections_max, descriptors, &shutdown);
        let opened = async {
            proof.await?;
            open(&app).await;
            Ok(())
        };
        let router = layered(&app);
        let handle = Handle::new();
        tokio::spawn(drain(Arc::clone(&app), shutdown.clone(), handle.clone()));
        let ops_handle = Handle::new();
        if let Some(listener) = ops {
            // It outlives the other listener, because `/readyz` reports the shutdown there.
            let address = listener.local_addr()?;
            let serving = ops::serve(Arc::clone(&app), listener, ops_handle.clone());
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "gateway.ops_bind: serving health and metrics ended");
                }
            });
            tracing::info!(url = format!("http://{address}"), "serving health and metrics");
        }
        tracing::info!(url, "listening");
        let idle = tokio::spawn(close_idle(Arc::clone(&app)));
        let answer_in_time =
            BoundedListener::new(listener, Arc::clone(&app.connections), &app.metrics, app.write_timeout())?;
        let server = Server::<Peer>::from_listener(answer_in_time);
        let service = router.into_make_service_with_connect_info::<Peer>();
        let serving = async {
            let served = match tls {
                Some(config) => patient(server.acceptor(RustlsAcceptor::new(config)), handle).serve(service).await,
                None => patient(server, handle).serve(service).await,
            };
            Ok(served?)
        };
        let served = tokio::try_join!(opened, serving).map(|((), ())| ());
        idle.abort();
        ops_handle.shutdown();
        served
    }

    /// Warns about what the settings leave unprotected.
    fn warn(&self) {
        if self.gateway.settings.auth == Auth::Off {
            tracing::warn!(address = %self.address, "API keys are off: whoever can reach this port may do everything");
        }
        if self.tls.is_none() && !self.address.ip().is_loopback() {
            tracing::warn!(address = %self.address, "keys and rides are sent unencrypted: set gateway.tls_cert_file, or put a TLS proxy in front");
        }
    }
}

/// Lets requests in, now that the store is proven, and removes what the last process left there.
async fn open(app: &App) {
    app.set_proven();
    match uploads::sweep(&app.store, host::now()).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed abandoned uploads"),
        Err(error) => tracing::warn!(%error, "cannot look for abandoned uploads"),
    }
    tokio::spawn(prepare(app.batch_log.clone()));
}

/// Returns how many connections fit into the limit on descriptors, beside everything else that the process opens.
fn connections_max(setting: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return setting };
    let reserved = DESCRIPTORS_RESERVED.min(descriptors / 2);
    let fitting = usize::try_from(descriptors - reserved).unwrap_or(usize::MAX).max(1);
    if fitting < setting {
        tracing::warn!(
            descriptors,
            connections_max = fitting,
            "the limit on open files is lower than gateway.connections_max needs: raise it (ulimit -Hn)"
        );
    }
    fitting.min(setting)
}

/// Closes idle connections until it is aborted.
async fn close_idle(app: Arc<App>) {
    loop {
        tokio::time::sleep(IDLE_LOOK).await;
        let now = std::time::Instant::now();
        app.connections.close_idle(now);
        app.ops_connections.close_idle(now);
    }
}

/// After a shutdown was requested: waits for the requests in progress, then releases the port. New requests get 503 meanwhile.
async fn drain(app: Arc<App>, shutdown: Shutdown, handle: Handle<Peer>) {
    shutdown.cancelled().await;
    let latest = Instant::now() + DRAIN_DEADLINE;
    let all = u32::try_from(app.settings.requests_max).unwrap_or(u32::MAX);
    let _answered = tokio::time::timeout_at(latest, app.requests.acquire_many(all)).await;
    // Only the bodies of answers are left.
    let left = latest.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    handle.graceful_shutdown(Some(left));
}

/// Builds the router with its middleware.
fn layered(app: &Arc<App>) -> Router {
    api::router(app)
        .fallback(|| async { Problem::not_found("there is nothing at this path: see /docs") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CsrfLayer::new().with_rejection_response(|_| {
            Problem::foreign("pages of other sites may not send requests that change something").into_response()
        }))
        .layer(middleware::from_fn_with_state(Arc::clone(app), handle))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let why = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    tracing::error!(why = why.unwrap_or("unknown"), "the handler of a request panicked");
    Problem::internal("the gateway failed while handling this request; see its log").into_response()
}

/// Traces, counts and bounds every request: one layer, because each costs allocations per request.
async fn handle(State(app): State<Arc<App>>, path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let route = path.as_ref().map_or("(none)", MatchedPath::as_str);
    traced(route, request, |request| count_and_bound(app, route, request, next)).await
}

/// Counts a request and bounds its time.
async fn count_and_bound(app: Arc<App>, route: &str, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let busy = mark_busy(&mut request);
    let is_http2 = request.version() == Version::HTTP_2;
    let _in_flight = app.metrics.begins();
    let method = request.method().clone();
    let upload = method == Method::POST && route == "/v1/batches";
    let is_protocol = request.uri().path().starts_with("/v2");
    let named = app.hosts.check(request.uri(), request.headers());
    let is_probe = is_probe(route);
    let admitted = if is_probe { named } else { named.and_then(|()| app.check_serving()) };
    let response = match (admitted, app.requests.try_acquire()) {
        (Err(problem), _) => problem.into_response(),
        _ if is_probe => answer_in_time(&app, request, next).await,
        (Ok(()), Err(_)) => {
            app.metrics.limits().refused(Limit::Requests);
            let detail =
                format!("{} requests are in progress, the maximum (gateway.requests_max)", app.settings.requests_max);
            Problem::unavailable("too-busy", detail).into_response()
        }
        // An upload has no deadline: its pace is checked instead.
        (Ok(()), Ok(_permit)) if upload => next.run(request).await,
        (Ok(()), Ok(_permit)) => answer_in_time(&app, request, next).await,
    };
    let mut response = match response.extensions().get::<Problem>() {
        Some(problem) if is_protocol => {
            let mut with_error = problem.clone().in_protocol().into_response();
            if let Some(allowed) = response.headers().get(header::ALLOW) {
                with_error.headers_mut().insert(header::ALLOW, allowed.clone());
            }
            with_error
        }
        _ => response,
    };
    headers::complete(response.headers_mut(), route, app.is_tls);
    let (status, took) = (response.status(), started.elapsed());
    app.metrics.answered(route, method.as_str(), status.as_u16(), took);
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!(%method, route, status = status.as_u16(), took_ms = took.as_millis() as u64, "not answered");
    } else {
        tracing::debug!(%method, route, status = status.as_u16(), took_ms = took.as_millis() as u64, "answered");
    }
    match busy {
        Some(busy) => until_taken(response, busy, is_http2, app.write_timeout()),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        for (setting, descriptors, expected) in [
            (16_384, Some(1_048_576), 16_384),
            (16_384, Some(1_024), 768),
            (100, Some(1_024), 100),
            (16_384, Some(64), 32),
            (16_384, None, 16_384),
        ] {
            assert_eq!(connections_max(setting, descriptors), expected, "{setting} {descriptors:?}");
        }
    }
}
