//! `/v1/batches/{batch_id}/refresh`: join a batch again with the weather as of now.

use crate::{
    app::App,
    batches::{refreshes, state::Links},
    http::{
        auth::Caller,
        extract::Path,
        problem::{Answer, Problem, store_failed},
    },
};
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::document::RefreshOutcome;
use records::refreshes::{self as stored, Latest};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The answer to an accepted refresh.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefreshAccepted {
    batch_id: String,
    /// Number of the attempt, from 1.
    #[schema(minimum = 1)]
    attempt: u32,
    /// Number of the revision that the result is compared with.
    #[schema(minimum = 1)]
    base_revision: u32,
    /// Whether the attempt was in progress already; then this request joined it.
    joined: bool,
    /// Id of the trace of this request's message, in the log of every worker.
    trace_id: String,
    links: Links,
}

/// The newest attempt to join a batch again.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefreshState {
    batch_id: String,
    /// Number of the attempt, from 1.
    #[schema(minimum = 1)]
    attempt: u32,
    /// When it was requested, RFC 3339.
    asked_at: String,
    /// Number of the revision that the result is compared with.
    #[schema(minimum = 1)]
    base_revision: u32,
    /// What changed; absent while the attempt is in progress.
    #[schema(nullable = false)]
    outcome: Option<Changes>,
}

/// What a refresh changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changes {
    /// Number of the revision with the result: the base if nothing changed.
    #[schema(minimum = 1)]
    revision: u32,
    /// Rides that gained weather.
    gained: u64,
    /// Rides with other weather.
    altered: u64,
    /// Rides that lost their weather.
    lost: u64,
    /// Rides whose weather is still expected.
    not_yet_published: u64,
}

impl From<RefreshOutcome> for Changes {
    fn from(outcome: RefreshOutcome) -> Self {
        let RefreshOutcome { revision, gained, altered, lost, not_yet_published, .. } = outcome;
        Self { revision: revision.get(), gained, altered, lost, not_yet_published }
    }
}

/// Joins a batch again with the weather as of now.
///
/// Other weather becomes the next revision of its dataset, and a training follows. Unchanged weather makes no revision. A request
/// while a refresh is in progress joins it.
#[utoipa::path(post, path = "/v1/batches/{batch_id}/refresh", tag = "Batches", params(("batch_id" = String, Path, description = "Batch")),
    responses((status = 202, description = "The refresh is queued", body = RefreshAccepted,
        headers(("Location" = String, description = "The refresh")))))]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Option<Extension<Caller>>,
) -> Result<Response, Problem> {
    super::batches::known(&id)?;
    let key_name = caller.map(|Extension(caller)| caller.0).unwrap_or_default();
    let refreshes::Accepted { begun, trace_id } = refreshes::accept(&app, &id, &key_name).await?;
    tracing::info!(
        batch_id = id,
        trace_id,
        attempt = begun.attempt.refresh.attempt,
        who = key_name,
        "a refresh was submitted"
    );
    app.observer.changed(&id);
    let location = HeaderValue::from_str(&format!("/v1/batches/{id}/refresh"));
    let location = location.map_err(|error| Problem::internal(error.to_string()))?;
    let accepted = RefreshAccepted {
        attempt: begun.attempt.refresh.attempt.get(),
        base_revision: begun.attempt.base.get(),
        joined: !begun.is_new,
        trace_id,
        links: Links::of(&id),
        batch_id: id,
    };
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)).into_response())
}

/// Returns the newest refresh of a batch.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/refresh", tag = "Batches", params(("batch_id" = String, Path, description = "Batch")),
    responses((status = 200, description = "The refresh", body = RefreshState)))]
pub(crate) async fn latest(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<RefreshState> {
    super::batches::known(&id)?;
    match stored::latest(&app.store, &id).await.map_err(store_failed)? {
        Some(Latest { attempt, outcome }) => Ok(Json(RefreshState {
            batch_id: id,
            attempt: attempt.refresh.attempt.get(),
            asked_at: attempt.refresh.asked_at.to_string(),
            base_revision: attempt.base.get(),
            outcome: outcome.map(Changes::from),
        })),
        None => Err(Problem::not_found(format!("no refresh of batch {id:?} was ever requested"))),
    }
}
