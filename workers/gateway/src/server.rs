//! The socket, and what every request passes on its way in and out.

use crate::{
    App, Gateway, api,
    problem::Problem,
    settings::{Auth, Scope},
    uploads,
};
use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use axum_server::{
    Handle, Server,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use common::runtime::Shutdown;
use hyper_util::rt::TokioTimer;
use std::{
    any::Any,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tower_http::{catch_panic::CatchPanicLayer, csrf::CsrfLayer};

/// How long a client may take over the head of a request, from its first byte or from the answer before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests that are being answered may take to finish once a shutdown was asked for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// How much later than its own deadline a request is ended whatever it does.
const GRACE: Duration = Duration::from_millis(500);

/// A gateway that has its port.
pub struct Bound {
    gateway: Gateway,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
}

impl Bound {
    pub(crate) async fn new(gateway: Gateway) -> anyhow::Result<Self> {
        let settings = &gateway.settings;
        let wanted = settings.address().map_err(|problem| anyhow::anyhow!("gateway.{problem}"))?;
        let tls = match (&settings.tls_cert_file, &settings.tls_key_file) {
            (Some(cert), Some(key)) => {
                rustls::crypto::ring::default_provider().install_default().ok();
                let read = RustlsConfig::from_pem_file(cert, key).await;
                Some(read.with_context(|| format!("gateway.tls_cert_file = {cert}, tls_key_file = {key}"))?)
            }
            _ => None,
        };
        let listener = TcpListener::bind(wanted).with_context(|| {
            format!(
                "gateway.bind = {wanted}: cannot listen there; is something else on that port? (:0 takes a free one)"
            )
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { gateway, listener, address, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as one opens it in a browser.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match self.address.ip().is_unspecified() {
            true => format!("{scheme}://localhost:{}", self.address.port()),
            false => format!("{scheme}://{}", self.address),
        }
    }

    /// Serves until `shutdown`, then finishes what it is answering.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self, shutdown: Shutdown) -> anyhow::Result<()> {
        if self.gateway.settings.auth == Auth::Off {
            tracing::warn!(address = %self.address, "no keys are asked for: whoever reaches this port may do everything");
        }
        if self.tls.is_none() && !self.address.ip().is_loopback() {
            tracing::warn!(address = %self.address, "keys and rides travel in the clear: set gateway.tls_cert_file, or put a proxy with TLS before it");
        }
        let url = self.url();
        let Self { gateway, listener, tls, address } = self;
        let app = App::start(gateway, address, &shutdown);
        match uploads::sweep(app.store.as_ref()).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "uploads that broke off long ago are removed"),
            Err(error) => tracing::warn!(%error, "uploads that broke off cannot be looked for"),
        }
        let router = layered(&app);
        let handle = Handle::new();
        tokio::spawn(drain(Arc::clone(&app), shutdown.clone(), handle.clone()));
        tracing::info!(url, "listening");
        let server = axum_server::from_tcp(listener)?;
        match tls {
            Some(config) => {
                let server = patient(server.acceptor(RustlsAcceptor::new(config)), handle);
                server.serve(router.into_make_service()).await?;
            }
            None => patient(server, handle).serve(router.into_make_service()).await?,
        }
        Ok(())
    }
}

/// Once a shutdown was asked for: those who come are told so, `/readyz` says so, and the port is given back when the last request
/// under way is answered.
async fn drain(app: Arc<App>, shutdown: Shutdown, handle: Handle<SocketAddr>) {
    shutdown.cancelled().await;
    let latest = Instant::now() + DRAIN_DEADLINE;
    let all = u32::try_from(app.settings.requests_max).unwrap_or(u32::MAX);
    let _answered = tokio::time::timeout_at(latest, app.requests.acquire_many(all)).await;
    // What is left is the bodies of answers.
    let left = latest.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    handle.graceful_shutdown(Some(left));
}

/// Whether a path is answered however the gateway is.
fn always_answered(route: &str) -> bool {
    matches!(route, "/healthz" | "/readyz" | "/metrics" | "/v2/health/live" | "/v2/health/ready")
}

/// Waits for heads of requests only so long.
fn patient<A>(server: Server<SocketAddr, A>, handle: Handle<SocketAddr>) -> Server<SocketAddr, A> {
    let mut server = server.handle(handle).first_request_timeout(HEAD_TIMEOUT);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    server
}

/// The paths with all that surrounds them.
fn layered(app: &Arc<App>) -> Router {
    api::router(app)
        .fallback(|| async { Problem::not_found("nothing is at this path: /docs says what there is") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CsrfLayer::new().with_rejection_response(|_| {
            Problem::foreign("a page of another site may not change anything here").into_response()
        }))
        .layer(middleware::from_fn_with_state(Arc::clone(app), watch))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let why = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    tracing::error!(why = why.unwrap_or("unknown"), "a request's handler panicked");
    Problem::internal("the gateway failed at this request; its log says why").into_response()
}

/// Counts and bounds every request.
async fn watch(State(app): State<Arc<App>>, path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _in_flight = app.metrics.begins();
    let method = request.method().clone();
    let route = path.as_ref().map_or("(none)", MatchedPath::as_str).to_owned();
    let upload = method == Method::POST && route == "/v1/batches";
    let is_protocol = request.uri().path().starts_with("/v2");
    let response = match app.requests.try_acquire() {
        _ if app.is_private && !names_this_machine(&request) => {
            let detail = "no key is asked for on this machine alone: the header Host must name it, as in localhost";
            Problem::foreign(detail).into_response()
        }
        _ if always_answered(&route) => bounded(&app, request, next).await,
        _ if app.draining.is_cancelled() => {
            Problem::unavailable("shutting-down", "the gateway is shutting down").into_response()
        }
        Err(_) => {
            let detail =
                format!("{} requests are being worked on, no more are taken at once", app.settings.requests_max);
            Problem::unavailable("too-busy", detail).into_response()
        }
        // An upload takes as long as it takes, if only something comes.
        Ok(_permit) if upload => next.run(request).await,
        Ok(_permit) => bounded(&app, request, next).await,
    };
    let response = match response.extensions().get::<Problem>() {
        Some(problem) if is_protocol => {
            let mut told = problem.clone().in_protocol().into_response();
            if let Some(allowed) = response.headers().get(header::ALLOW) {
                told.headers_mut().insert(header::ALLOW, allowed.clone());
            }
            told
        }
        _ => response,
    };
    let (status, took) = (response.status(), started.elapsed());
    app.metrics.answered(&route, method.as_str(), status.as_u16(), took);
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!(%method, route, status = status.as_u16(), took_ms = took.as_millis() as u64, "not answered");
    } else {
        tracing::debug!(%method, route, status = status.as_u16(), took_ms = took.as_millis() as u64, "answered");
    }
    response
}

async fn bounded(app: &App, request: Request, next: Next) -> Response {
    let patience = app.deadline() + GRACE;
    tokio::time::timeout(patience, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("the object store or the broker took longer than {} ms", patience.as_millis());
        Problem::no_answer(detail).into_response()
    })
}

/// Whether the header Host names this machine. The page of another site can make its own name mean this address, and would then
/// count as being from here.
fn names_this_machine(request: &Request) -> bool {
    // HTTP/2 has it in the place of the URL.
    let named = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let Some(host) = named.or(request.uri().authority().map(|authority| authority.as_str())) else { return true };
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whose key a request bears; empty where none is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) String);

/// Lets in who has a key for this scope.
pub(crate) async fn guard(
    State((app, scope)): State<(Arc<App>, Scope)>,
    headers: HeaderMap,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    match app.doorkeeper.admit(&headers, scope) {
        Ok(who) => {
            let caller = Caller(who.to_owned());
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let named = |host: &str| Request::builder().header(header::HOST, host).body(Body::empty()).unwrap();
        for own in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.8.9.1", "[::1]:8080", "[::1]"] {
            assert!(names_this_machine(&named(own)), "{own}");
        }
        for other in ["example.org", "localhost.example.org:8080", "10.0.0.1", "127.0.0.1.example.org", ""] {
            assert!(!names_this_machine(&named(other)), "{other}");
        }
    }
}
