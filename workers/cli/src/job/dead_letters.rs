//! The dead letters of a worker.

use common::{dead_letter::Letter, topology::dead_queue};
use gateway::LETTERS_READ_MAX;
use runtime::{
    client::{Client, ClientError},
    trace::TraceContext,
};

/// Reads the oldest dead letters of a worker, at most [`LETTERS_READ_MAX`], each with the id of its trace (empty if unknown).
///
/// # Errors
/// Fails if the broker cannot be used, or has no such queue.
pub(crate) async fn oldest(
    client: &Client,
    worker: &str,
    namespace: &str,
) -> Result<Vec<(String, Letter)>, ClientError> {
    let mut browser = client.browse(&dead_queue(worker)).await?;
    let mut letters = Vec::new();
    while letters.len() < LETTERS_READ_MAX
        && let Some(found) = browser.next().await?
    {
        let trace_id = TraceContext::of(&found.properties).map(TraceContext::trace_id).unwrap_or_default();
        letters.push((trace_id, Letter::read(worker, namespace, &found.properties, &found.body)));
    }
    browser.close().await?;
    Ok(letters)
}
