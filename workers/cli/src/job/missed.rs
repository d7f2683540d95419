//! Reads what happened to batches while there was no connection, from the store and from the dead-letter queues.

use super::{
    dead_letters,
    outcome::{ModelOutcome, Submission},
};
use common::document::Verdict;
use common::{
    dead_letter::Letter,
    message::DatasetReady,
    model::{AliasName, TrainedOn},
    outcome::Failure,
    topology::queue,
};
use records::{
    Store,
    batch_log::{BatchLog, Limits, Seen},
    batches, datasets, layout, registry,
};
use runtime::client::{Client, ClientError};

/// Returns the dataset of a batch if it is complete and was made from this batch's bytes.
pub(super) async fn dataset(store: &Store, submission: &Submission) -> Result<Option<DatasetReady>, Failure> {
    let claimed = match submission.claim(store).await? {
        Some(claim) => Some(claim.batch_id),
        None => embedded_id(store, submission).await?,
    };
    let Some(batch_id) = claimed else { return Ok(None) };
    Ok(datasets::manifest(store, &batch_id).await?.map(|stored| stored.announcement()))
}

/// Finds the id that a batch's document gives it: the id of the newest batch with the same SHA-256.
async fn embedded_id(store: &Store, submission: &Submission) -> Result<Option<String>, Failure> {
    /// Maximum number of entries of the batch log to read.
    const ENTRIES_MAX: usize = 500;
    let look = |id: String| {
        let (store, sha256) = (store.clone(), submission.sha256.clone());
        async move {
            let claim = batches::read_claim(&store, &id).await?;
            Ok(claim.filter(|claim| claim.sha256 == sha256).map(|claim| Seen { listed: claim.listed, batch: id }))
        }
    };
    let page = BatchLog::new(store.clone()).page(None, Limits { batches: 1, looks: ENTRIES_MAX }, look).await?;
    Ok(page.batches.into_iter().next())
}

/// Reads the dead letters of all workers, the oldest first, each with the id of its trace.
pub(super) async fn letters(client: &Client) -> Result<Vec<(String, Letter)>, ClientError> {
    let mut letters = Vec::new();
    for worker in queue::ALL {
        letters.append(&mut dead_letters::oldest(client, worker, "").await?);
    }
    Ok(letters)
}

/// Returns the trainer's decision on a dataset if the champion or the challenger was trained on it, or on a newer revision of it.
pub(super) async fn model(store: &Store, ready: &DatasetReady) -> Result<Option<ModelOutcome>, Failure> {
    let family = layout::GLOBAL_MODEL;
    let is_in = |TrainedOn { batch_id, manifest_sha256, revision }: &TrainedOn| {
        *batch_id == ready.batch_id && (*manifest_sha256 == ready.manifest_sha256 || *revision > ready.revision)
    };
    for name in [AliasName::Champion, AliasName::Challenger] {
        let Some(alias) = registry::read_alias(store, family, name).await? else { continue };
        let Ok(model) = registry::named_model(store, &alias).await? else { continue };
        if !model.datasets.iter().any(is_in) {
            continue;
        }
        if name == AliasName::Champion {
            return Ok(Some(ModelOutcome::Promoted(registry::announcement(&alias))));
        }
        let verdict = registry::read(store, family, &alias.model_id).await?;
        let verdict = verdict.unwrap_or_else(|| Verdict::new(false, "not_promoted", alias.why));
        return Ok(Some(ModelOutcome::Rejected(registry::rejection(family, &alias.model_id, verdict))));
    }
    Ok(None)
}
