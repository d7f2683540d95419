//! Begins refreshes of batches and publishes them.

use crate::{
    app::App,
    http::problem::{Problem, error_chain, store_failed},
};
use common::outcome::Failure;
use records::refreshes::{self, Begun, NO_BYTES, NO_DATASET, UNKNOWN_BATCH};
use runtime::host;

/// A refresh whose message the broker has confirmed.
pub(crate) struct Accepted {
    pub(crate) begun: Begun,
    pub(crate) trace_id: String,
}

/// Begins a refresh, or joins the one in progress. Returns after the broker has confirmed its message.
///
/// # Errors
/// Fails if the batch is unknown, has no complete dataset or no bytes, or if the broker or the store fails.
pub(crate) async fn accept(app: &App, batch_id: &str, key_name: &str) -> Result<Accepted, Problem> {
    // Checked first: if a refresh is begun and its message is not published, nothing happens until the next request.
    app.link.publisher()?;
    let by = format!("{key_name} (gateway)").trim_start().to_owned();
    let begun = refreshes::begin(&app.store, batch_id, host::now(), &by).await.map_err(|failure| match failure {
        Failure::Permanent { reason: UNKNOWN_BATCH, why } => Problem::not_found(why),
        Failure::Permanent { reason: NO_DATASET, why } => Problem::not_ready("no-dataset", why),
        Failure::Permanent { reason: NO_BYTES, why } => Problem::not_ready("bytes-missing", why),
        other => store_failed(other),
    })?;
    let client = app.link.publisher()?;
    let published = tokio::time::timeout(app.deadline(), client.publish(&begun.message)).await;
    let detail = "the refresh is recorded, but the broker did not confirm it in time; request it again, which joins it";
    let trace_id = published.map_err(|_| Problem::no_answer(detail))?.map_err(|error| {
        let detail = format!("the broker did not accept the refresh: {}; request it again", error_chain(&error));
        Problem::unavailable("not-published", detail)
    })?;
    Ok(Accepted { begun, trace_id })
}
