//! Reads what the store knows of one batch.

use super::state::{Letter, State};
use crate::{
    Store, batch_log,
    datasets::{self, StoredManifest},
    layout,
    staging::{self, Staged},
    store,
};
use common::{
    dataset::{Claim, FIRST_REVISION},
    document::Upload,
    outcome::Failure,
};
use futures::TryStreamExt;
use jiff::Timestamp;

/// The records of one batch.
#[derive(Debug, Clone)]
pub struct Records {
    /// Its claim.
    pub claim: Option<Claim>,
    /// When the claim was written, by the store's clock.
    pub claimed_at: Option<Timestamp>,
    /// The record of its upload. A record that cannot be decoded is a failure, which matters only to a caller that needs
    /// the record.
    pub upload: Result<Option<Upload>, Failure>,
    /// Its dataset, once that is complete.
    pub dataset: Option<StoredManifest>,
}

/// Reads the records of a batch. All members are empty if the store does not know it.
///
/// # Errors
/// Fails with an outage if the store cannot be read; permanently if the claim or the manifest cannot be decoded.
pub async fn read(store: &Store, batch_id: &str) -> Result<Records, Failure> {
    let upload = async {
        match store::read_json(store, &layout::upload(batch_id)).await {
            Err(outage @ Failure::Outage { .. }) => Err(outage),
            decoded => Ok(decoded),
        }
    };
    let manifest = async { datasets::manifest(store, batch_id).await.map_err(Failure::from) };
    let (claim, upload, dataset) = futures::try_join!(dated_claim(store, batch_id), upload, manifest)?;
    let (claim, claimed_at) = claim.unzip();
    Ok(Records { claim, claimed_at, upload, dataset })
}

impl Records {
    fn upload(&self) -> Option<&Upload> {
        self.upload.as_ref().ok().and_then(Option::as_ref)
    }

    /// Returns the number of the batch's entry in the batch log; `None` if no record names one.
    pub fn listed(&self) -> Option<u64> {
        batch_log::place(self.claim.as_ref(), self.upload().and_then(|upload| upload.listed))
    }

    /// Returns the SHA-256 of the batch's bytes, 64 hex digits; `None` if the batch is neither claimed nor submitted.
    pub fn sha256(&self) -> Option<&str> {
        let submitted = || self.upload().filter(|upload| upload.confirmed).map(|upload| upload.sha256.as_str());
        self.claim.as_ref().map(|claim| claim.sha256.as_str()).or_else(submitted)
    }

    /// Returns the state of the batch, given its first dead letter.
    pub fn state(&self, letter: Option<Letter>) -> State {
        State::of(self.claim.as_ref(), self.upload(), self.dataset.as_ref().map(|dataset| &dataset.manifest), letter)
    }

    /// Reads how many rides are staged; `None` unless the batch is claimed and its dataset is incomplete.
    ///
    /// # Errors
    /// Fails with an outage if the store cannot be read.
    pub async fn progress(&self, store: &Store) -> Result<Option<Staged>, Failure> {
        match (&self.claim, &self.dataset) {
            (Some(claim), None) => staging::look(store, claim).await.map(Some),
            _ => Ok(None),
        }
    }
}

/// Returns whether the dataset of a batch is complete.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn is_complete(store: &Store, batch_id: &str) -> Result<bool, Failure> {
    store::exists(store, &layout::manifest(batch_id, FIRST_REVISION)).await
}

/// Reads the claim on a batch id; `None` if nobody has claimed it.
///
/// # Errors
/// Fails with an outage if the store cannot be read; permanently if the claim cannot be decoded.
pub async fn read_claim(store: &Store, batch_id: &str) -> Result<Option<Claim>, Failure> {
    Ok(dated_claim(store, batch_id).await?.map(|(claim, _)| claim))
}

/// As [`read_claim`], with the time when the claim was written.
async fn dated_claim(store: &Store, batch_id: &str) -> Result<Option<(Claim, Timestamp)>, Failure> {
    let path = layout::claim(batch_id);
    let Some((bytes, written_at)) = store::read_dated(store, &path).await? else { return Ok(None) };
    Ok(Some((store::decode(&path, &bytes)?, written_at)))
}

/// Returns the ids of all claimed batches, in alphabetical order.
///
/// # Errors
/// Fails with an outage if the store cannot be read.
pub async fn claimed_ids(store: &Store) -> Result<Vec<String>, Failure> {
    let claims = store::list(store, layout::BATCHES);
    let ids = claims.try_filter_map(async |claim| Ok(claim.name().strip_suffix(".json").map(str::to_owned)));
    let mut ids: Vec<String> = ids.try_collect().await?;
    ids.sort_unstable();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use serde_json::json;
    use std::sync::Arc;

    /// A broken record of an upload fails for those alone who need it.
    #[tokio::test]
    async fn a_claimed_batch_is_read_without_the_record_of_its_upload() {
        let store: Store = Arc::new(InMemory::new());
        let empty = read(&store, "b").await.unwrap();
        assert_eq!((empty.state(None), empty.listed(), empty.sha256()), (State::Unknown, None, None));
        store::write(&store, &layout::upload("b"), "{").await.unwrap();
        assert!(matches!(read(&store, "b").await.unwrap().upload, Err(Failure::Permanent { .. })));
        let claim = json!({ "batch_id": "b", "sha256": "0".repeat(64), "chunk_size": 10, "listed": 3 });
        store::write(&store, &layout::claim("b"), claim.to_string()).await.unwrap();
        store::write(&store, &layout::staged_chunk("b", Some("s"), 0), "x").await.unwrap();
        let claimed = read(&store, "b").await.unwrap();
        assert_eq!((claimed.state(None), claimed.listed()), (State::InProgress, Some(3)));
        assert_eq!(claimed.state(Some(Letter::Kept)), State::Refused);
        assert_eq!(claimed.progress(&store).await.unwrap(), Some(Staged { rides: 10, total: None }));
        store::write(&store, &layout::manifest("b", FIRST_REVISION), "{").await.unwrap();
        let broken = read(&store, "b").await;
        assert!(matches!(&broken, Err(Failure::Permanent { why, .. }) if why.starts_with("dataset/b/manifest.json")));
    }
}
