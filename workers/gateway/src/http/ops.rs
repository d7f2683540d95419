//! A second listener with health and metrics alone: probes and Prometheus reach it however busy the first one is.

use super::{
    body_guard::until_sent,
    headers,
    listener::{BoundedListener, Peer, patient},
    problem::Problem,
    request::{self, mark_busy},
};
use crate::{api::health, app::App};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_server::{Handle, Server};
use std::{net::TcpListener, sync::Arc};

/// Builds the router. It accepts every host name, because probes use the address of the pod.
pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/livez", get(health::alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(health::metrics))
        .with_state(Arc::clone(app))
        .fallback(|| async { Problem::not_found("this listener has /livez, /readyz and /metrics") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn_with_state(Arc::clone(app), bounded))
}

/// As `/readyz` of the other listener, and checks the store. Clients there could make the gateway read it as often as they like.
async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let answer = health::ready(State(Arc::clone(&app))).await?;
    match runtime::health::unreachable(&app.store).await {
        None => Ok(answer.into_response()),
        Some(why) => Err(Problem::unavailable("store-away", why)),
    }
}

async fn bounded(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let busy = mark_busy(&mut request);
    let mut response = request::answer_in_time(&app, request, next).await;
    headers::complete(response.headers_mut(), "(ops)", false);
    match busy {
        Some(busy) => until_sent(response, busy),
        None => response,
    }
}

/// Serves until `handle` shuts the server down.
///
/// # Errors
/// Fails if the socket fails.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, handle: Handle<Peer>) -> std::io::Result<()> {
    let bounded = BoundedListener::new(listener, Arc::clone(&app.ops_connections), &app.metrics, app.write_timeout())?;
    let server = patient(Server::<Peer>::from_listener(bounded), handle);
    server.serve(router(&app).into_make_service_with_connect_info::<Peer>()).await
}
