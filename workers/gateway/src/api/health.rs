//! Whether the gateway lives and is ready, and what it counts.

use crate::{app::App, http::problem::Problem};
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

/// In a word.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok` or `ready`.
    status: &'static str,
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "Operation", security(()), responses((status = 200, description = "It does", body = Health)))]
pub(crate) async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether requests can be answered: not while the broker is away or blocked, no scorer runs, or the gateway is shutting down.
#[utoipa::path(get, path = "/readyz", tag = "Operation", security(()), responses((status = 200, description = "They can", body = Health)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Health>, Problem> {
    readiness(&app)?;
    Ok(Json(Health { status: "ready" }))
}

/// Why requests cannot be answered.
pub(crate) fn readiness(app: &App) -> Result<(), Problem> {
    if app.draining.is_cancelled() {
        return Err(Problem::unavailable("shutting-down", "the gateway is shutting down"));
    }
    app.link.asker(queue::SCORER).map(drop)
}

/// Counters for Prometheus, in OpenMetrics' text format.
#[utoipa::path(get, path = "/metrics", tag = "Operation", security(()),
    responses((status = 200, description = "The counters", body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.observer.snapshot(app.draining.is_cancelled()).await;
    app.observer.watch_served().await;
    app.show_limits();
    let text = app.metrics.text().map_err(|error| Problem::internal(error.to_string()))?;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
