//! The claims: which bytes a batch id stands for.

use super::records::read_claim;
use crate::{Store, batch_log::BatchLog, datasets, layout, store};
use bytes::Bytes;
use common::{
    dataset::{Claim, Manifest},
    dead_letter::BATCH_ID_CONFLICT,
    outcome::Failure,
    reading::Reading,
    text::shorten,
};

/// Where the bytes of a batch are, from which it can be replayed.
#[derive(Debug, Clone)]
pub enum Raw {
    /// The object that the publisher uploaded.
    Object(String),
    /// The body of an inline batch, and the object to write it to.
    Inline {
        /// Path of the object.
        object: String,
        /// The body of the message.
        body: Bytes,
    },
}

/// Claims the batch id of `proposed` for its bytes and reading, or returns the existing claim of the same bytes, whose chunk
/// size is at least 1. Also returns the manifest of the dataset if that is complete already. Writes the bytes and the entry in
/// the batch log before the claim that names them, so that every claim has both. Does not write the bytes of a batch that it
/// refuses.
///
/// # Errors
/// Fails permanently (`batch_id_conflict`) if the id stands for other bytes or another reading; with an outage if the store
/// cannot be read or written.
pub async fn claim(
    store: &Store,
    log: &BatchLog,
    mut proposed: Claim,
    raw: Raw,
) -> Result<(Claim, Option<Manifest>), Failure> {
    let manifest = datasets::manifest(store, &proposed.batch_id).await?.map(|dataset| dataset.manifest);
    if let Some(manifest) = &manifest {
        check_same_bytes(&proposed, &manifest.sha256)?;
    }
    let mut existing = read_claim(store, &proposed.batch_id).await?;
    if existing.is_none() {
        proposed.object = Some(raw.keep(store, &proposed.sha256).await?);
        proposed.listed = Some(log.enter(&proposed.batch_id).await?);
        let json = serde_json::to_vec(&proposed).map_err(|error| Failure::permanent("unencodable", error))?;
        if store::create(store, &layout::claim(&proposed.batch_id), json).await? {
            return Ok((proposed, manifest));
        }
        existing = read_claim(store, &proposed.batch_id).await?;
    }
    let Some(existing) = existing else {
        return Err(Failure::transient(format!("{} disappeared", layout::claim(&proposed.batch_id))));
    };
    check_same_bytes(&proposed, &existing.sha256)?;
    check_same_reading(&proposed, &existing.reading)?;
    Ok((Claim { chunk_size: existing.chunk_size.max(1), ..existing }, manifest))
}

impl Raw {
    /// Makes sure that an inline batch is stored with the bytes of this SHA-256. Returns the path of the object.
    async fn keep(self, store: &Store, sha256: &str) -> Result<String, Failure> {
        match self {
            Self::Object(object) => Ok(object),
            Self::Inline { object, body } => {
                let exists = !store::create(store, &object, body.clone()).await?;
                if exists && store::sha256(store, &object).await?.as_deref() != Some(sha256) {
                    tracing::warn!(object, sha256, "the stored copy of this batch is damaged and is replaced");
                    store::write(store, &object, body).await?;
                }
                Ok(object)
            }
        }
    }
}

fn check_same_bytes(proposed: &Claim, taken_by: &str) -> Result<(), Failure> {
    let Claim { batch_id, sha256, .. } = proposed;
    if sha256 == taken_by {
        return Ok(());
    }
    let why =
        format!("batch {batch_id} is taken by bytes with sha256 {taken_by}, these have {sha256}; choose another id");
    Err(Failure::permanent(BATCH_ID_CONFLICT, why))
}

fn check_same_reading(proposed: &Claim, taken_by: &Reading) -> Result<(), Failure> {
    let Claim { batch_id, reading, .. } = proposed;
    if reading == taken_by {
        return Ok(());
    }
    let named = |reading: &Reading| match reading.to_string() {
        text if text.is_empty() => "the default reading".to_owned(),
        text => format!("`{}`", shorten(&text, 200)),
    };
    let why = format!(
        "batch {batch_id} is taken by the same bytes read with {}, this time it is {}; choose another id",
        named(taken_by),
        named(reading)
    );
    Err(Failure::permanent(BATCH_ID_CONFLICT, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::claimed_ids;
    use object_store::memory::InMemory;
    use sha2::{Digest, Sha256};
    use std::sync::Arc;

    fn proposed(bytes: &str) -> Claim {
        Claim {
            batch_id: "b".to_owned(),
            sha256: hex::encode(Sha256::digest(bytes)),
            chunk_size: 10,
            source: None,
            object: None,
            listed: None,
            reading: Reading::default(),
        }
    }

    async fn claim_inline(
        store: &Store,
        proposed: Claim,
        body: &'static str,
    ) -> Result<(Claim, Option<Manifest>), Failure> {
        let raw = Raw::Inline { object: "raw/inline/x".to_owned(), body: body.into() };
        claim(store, &BatchLog::new(store.clone()), proposed, raw).await
    }

    fn conflict(claimed: Result<(Claim, Option<Manifest>), Failure>) -> String {
        match claimed {
            Err(Failure::Permanent { reason: BATCH_ID_CONFLICT, why }) => why,
            other => panic!("{other:?}"),
        }
    }

    /// The first claim of an id is kept with its chunk size; other bytes and other readings are refused, and not stored.
    #[tokio::test]
    async fn an_id_is_claimed_once() {
        let store: Store = Arc::new(InMemory::new());
        store::write(&store, "raw/inline/x", "[{").await.unwrap();
        let first = claim_inline(&store, proposed("[{}]"), "[{}]").await.unwrap().0;
        assert_eq!((first.object.as_deref(), first.listed, first.chunk_size), (Some("raw/inline/x"), Some(1), 10));
        let stored = async || store::read(&store, "raw/inline/x").await.unwrap().unwrap();
        assert_eq!(stored().await, "[{}]", "the damaged copy is replaced");
        let again = claim_inline(&store, Claim { chunk_size: 7, ..proposed("[{}]") }, "[{}]").await.unwrap();
        assert_eq!(again, (first, None));
        let why = conflict(claim_inline(&store, proposed("[1]"), "[1]").await);
        assert!(why.starts_with("batch b is taken by bytes with sha256"), "{why}");
        let mut mapped = proposed("[{}]");
        mapped.reading.map.add("distance=km").unwrap();
        let why = conflict(claim_inline(&store, mapped, "[{}]").await);
        assert!(why.contains("read with the default reading, this time it is `--map distance=km`"), "{why}");
        assert_eq!((stored().await, claimed_ids(&store).await.unwrap()), ("[{}]".into(), vec!["b".to_owned()]));
    }

    /// A batch whose claim was lost is claimed again for the bytes of its dataset only.
    #[tokio::test]
    async fn a_complete_dataset_keeps_its_id() {
        let store: Store = Arc::new(InMemory::new());
        let manifest = serde_json::json!({
            "schema": "dataset-manifest.v1", "batch_id": "b", "sha256": proposed("[{}]").sha256, "columns": [],
            "received": 0, "accepted": 0, "rejected": 0, "rejected_by_reason": {}, "without_weather": {}, "labelled": 0,
            "trainable": 0, "stations": {}, "files": [],
        });
        store::write(&store, &layout::manifest("b", common::dataset::FIRST_REVISION), manifest.to_string())
            .await
            .unwrap();
        conflict(claim_inline(&store, proposed("[1]"), "[1]").await);
        assert_eq!(read_claim(&store, "b").await.unwrap(), None);
        assert!(claim_inline(&store, proposed("[{}]"), "[{}]").await.unwrap().1.is_some());
    }
}
