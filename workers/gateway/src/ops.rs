//! Health and counters on a listener of their own: for probes and Prometheus, whatever the other listener has to do.

use crate::{
    App,
    api::health,
    headers,
    limits::Limit,
    listener::{Bounded, Peer},
    problem::Problem,
    server,
};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use axum_server::{Handle, Server};
use std::{net::TcpListener, sync::Arc};

/// Connections at once.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// The paths; any host name is answered, since probes name the address of the pod.
pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .with_state(Arc::clone(app))
        .fallback(|| async { Problem::not_found("this listener has /healthz, /readyz and /metrics") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn_with_state(Arc::clone(app), bounded))
}

async fn bounded(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let busy = server::begins(&mut request);
    let mut response = server::bounded(&app, request, next).await;
    headers::complete(response.headers_mut(), "(ops)", false);
    match busy {
        Some(busy) => crate::held::until_sent(response, busy),
        None => response,
    }
}

/// Serves until the handle is told to end.
///
/// # Errors
/// When the socket cannot be used.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, handle: Handle<Peer>) -> std::io::Result<()> {
    let bounded = Bounded::new(listener, Arc::clone(&app.ops_connections), &app.metrics, app.write_timeout())?;
    let server = server::patient(Server::<Peer>::from_listener(bounded), handle);
    server.serve(router(&app).into_make_service_with_connect_info::<Peer>()).await
}

/// The limits and their use, into the counters.
pub(crate) fn show_limits(app: &App) {
    let (limits, settings) = (app.metrics.limits(), &app.settings);
    let count = |count: usize| count as f64;
    let of = app.connections.usage();
    limits.show(Limit::Connections, count(of.total_max), Some(count(of.open)));
    limits.show(Limit::ConnectionsPerPeer, count(of.per_peer_max), Some(count(of.open_of_a_peer)));
    limits.show(Limit::Head, server::HEAD_TIMEOUT.as_secs_f64(), Some(of.headless.as_secs_f64()));
    limits.show(Limit::Write, app.write_timeout().as_secs_f64(), Some(of.write.as_secs_f64()));
    if settings.ops_bind.is_some() {
        let of = app.ops_connections.usage();
        limits.show(Limit::OpsConnections, count(of.total_max), Some(count(of.open)));
    }
    if let Some(descriptors) = app.descriptors {
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|open| count(open.count()));
        limits.show(Limit::Descriptors, descriptors as f64, open);
    }
    let requests = settings.requests_max.saturating_sub(app.requests.available_permits());
    limits.show(Limit::Requests, count(settings.requests_max), Some(count(requests)));
    limits.show(Limit::RequestsPerKey, count(settings.requests_per_key_max), Some(count(app.doorkeeper.at_once())));
    let bodies = crate::BODIES_KIB_MAX.saturating_sub(app.bodies.available_permits());
    limits.show(Limit::Bodies, count(crate::BODIES_KIB_MAX), Some(count(bodies)));
    let (of, demands) = (app.uploads.usage(), app.uploads.demands());
    limits.show(Limit::Uploads, count(demands.uploads_max), Some(count(of.uploads)));
    limits.show(Limit::UploadRate, demands.rate_min as f64, of.bytes_per_second);
    limits.show(Limit::UploadTime, demands.time_max.as_secs_f64(), of.longest.map(|longest| longest.as_secs_f64()));
}
