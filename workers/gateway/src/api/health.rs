//! Liveness, readiness and metrics.

use crate::{
    app::App,
    http::problem::{Answer, Problem},
};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use common::topology::queue;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The health of the gateway.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok` or `ready`.
    status: &'static str,
}

/// Returns whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "Operation", security(()), responses((status = 200, description = "It is alive", body = Health)))]
pub(crate) async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Returns whether requests can be answered: not while the store is not proven yet, the broker is away or blocked, no scorer runs, or
/// the gateway shuts down.
#[utoipa::path(get, path = "/readyz", tag = "Operation", security(()), responses((status = 200, description = "It is ready", body = Health)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Answer<Health> {
    readiness(&app)?;
    Ok(Json(Health { status: "ready" }))
}

/// Checks whether requests can be answered.
///
/// # Errors
/// 503 with the reason why not.
pub(crate) fn readiness(app: &App) -> Result<(), Problem> {
    app.check_serving()?;
    app.link.requester(queue::SCORER).map(drop)
}

/// Returns metrics for Prometheus, in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "Operation", security(()),
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.observer.snapshot(app.draining.is_cancelled()).await;
    app.observer.update_serving_metrics().await;
    app.show_limits();
    let text = app.metrics.text().map_err(|error| Problem::internal(error.to_string()))?;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
