//! Refreshes: a batch is joined again with the weather as of now. A different result becomes the next revision of its dataset.
//!
//! ```text
//! refreshes/<batch>/0000000001.json           attempt 1, from revision n, requested at this time      created once
//! refreshes/<batch>/0000000001.outcome.json   unchanged; or revision n + 1, which has these rows      created once
//! dataset/<batch>/r<n + 1>/…                  written after the outcome, the manifest last
//! ```
//!
//! *One attempt at a time.* An attempt has ended when its outcome says that nothing changed, or when the manifest of its
//! revision exists. The next attempt is created only after that, so its base is the newest revision. A request for a
//! refresh while an attempt is in progress joins that attempt.
//!
//! *One result per revision.* An attempt may be split and joined several times, like any batch, and the weather may change in
//! between. The outcome is created before anything is written to the folder of the revision, and it has the SHA-256 of the rows.
//! Processes write only these rows there, however many they are and however late. So no part is ever replaced by other bytes. A
//! result with other rows is dropped.
//!
//! *Unchanged.* The merger compares the weather of each ride, and nothing else, with that of the base. An attempt that changes no
//! weather leaves its outcome and nothing else. Revisions are never removed or replaced.

use crate::{
    batches, datasets, layout,
    store::{self, Store},
    uploads,
};
use common::{
    dataset::Claim,
    document::{RefreshAttempt, RefreshOutcome},
    message::{BatchContent, Refresh, RideBatch},
    outcome::Failure,
    schema::Described,
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use std::num::NonZeroU32;

/// Maximum number of manifests read at once.
const MANIFESTS_AT_ONCE: usize = 16;
/// Code of a refresh of a batch that nobody has submitted, or that no splitter has read.
pub const UNKNOWN_BATCH: &str = "unknown_batch";
/// Code of a refresh of a batch without a complete dataset.
pub const NO_DATASET: &str = "no_dataset";
/// Code of a refresh of a batch whose bytes are not in the store.
pub const NO_BYTES: &str = "bytes_missing";

/// An attempt to join a batch again.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// Its record.
    pub attempt: RefreshAttempt,
    /// Whether this call created it; otherwise it was in progress.
    pub is_new: bool,
    /// The message that starts it; without effect if the attempt was started before.
    pub message: RideBatch,
}

/// The newest attempt to join a batch again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// Its record.
    pub attempt: RefreshAttempt,
    /// Its outcome; `None` while the attempt is in progress.
    pub outcome: Option<RefreshOutcome>,
}

/// A batch with rides whose weather is still expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// Batch id.
    pub batch_id: String,
    /// Newest complete revision of its dataset.
    pub revision: NonZeroU32,
    /// Number of rides whose weather is still expected, at least 1.
    pub not_yet_published: u64,
}

/// Begins an attempt to join a batch again, at the time `now` by the caller's clock, or returns the one in progress. `by` names
/// the caller for people. The caller publishes the message in both cases.
///
/// # Errors
/// Fails permanently if the batch is unknown ([`UNKNOWN_BATCH`]) or has no complete dataset ([`NO_DATASET`]), or if its bytes are
/// not in the store ([`NO_BYTES`]); with an outage if the store cannot be used.
pub async fn begin(store: &Store, batch_id: &str, now: Timestamp, by: &str) -> Result<Begun, Failure> {
    let Some(claim) = batches::read_claim(store, batch_id).await? else {
        let why = format!("batch {batch_id} is unknown: it was never submitted, or no splitter has read it yet");
        return Err(Failure::permanent(UNKNOWN_BATCH, why));
    };
    let object = object_of(store, &claim).await?;
    loop {
        let last = latest(store, batch_id).await?;
        let number = last.as_ref().map_or(0, |last| last.attempt.refresh.attempt.get());
        if let Some(Latest { attempt, outcome: None }) = last {
            return Ok(Begun { message: message(claim, object, attempt.refresh), attempt, is_new: false });
        }
        // No attempt is in progress, so every caller finds the same base for the next one.
        let Some(base) = datasets::newest_revision(store, batch_id).await? else {
            let why = format!(
                "batch {batch_id} has no complete dataset yet, which a refresh would replace by a newer revision"
            );
            return Err(Failure::permanent(NO_DATASET, why));
        };
        let attempt = RefreshAttempt {
            schema: RefreshAttempt::SCHEMA.name.to_owned(),
            batch_id: batch_id.to_owned(),
            refresh: Refresh { attempt: NonZeroU32::MIN.saturating_add(number), asked_at: now },
            base,
            by: by.to_owned(),
        };
        let path = layout::refresh(batch_id, attempt.refresh.attempt);
        if store::create(store, &path, store::pretty(&attempt)?).await? {
            return Ok(Begun { message: message(claim, object, attempt.refresh), attempt, is_new: true });
        }
    }
}

fn message(claim: Claim, object: String, refresh: Refresh) -> RideBatch {
    RideBatch {
        batch_id: Some(claim.batch_id),
        source: claim.source,
        reading: claim.reading,
        refresh: Some(refresh),
        content: BatchContent::Reference { object, sha256: claim.sha256 },
    }
}

/// Returns the path of a batch's bytes. Some claims do not name it.
async fn object_of(store: &Store, claim: &Claim) -> Result<String, Failure> {
    let named = claim.object.clone();
    let candidates = match named {
        Some(object) => vec![object],
        None => uploads::named_after(store, &claim.sha256).await?,
    };
    for object in &candidates {
        if store::exists(store, object).await? {
            return Ok(object.clone());
        }
    }
    let looked_for = candidates.first().cloned().unwrap_or_else(|| layout::raw_upload_prefix(&claim.sha256));
    let why = format!(
        "the bytes of batch {}, sha256 {}, are not in the store: {looked_for} is missing; restore it under this name",
        claim.batch_id, claim.sha256
    );
    Err(Failure::permanent(NO_BYTES, why))
}

/// Returns the newest attempt to join a batch again; `None` if there was none.
///
/// # Errors
/// Fails with an outage if the store cannot be read; permanently if a record cannot be decoded.
pub async fn latest(store: &Store, batch_id: &str) -> Result<Option<Latest>, Failure> {
    let objects: Vec<_> = store::list(store, &layout::refreshes(batch_id)).try_collect().await?;
    let numbers = objects.iter().filter_map(|object| object.name().strip_suffix(".json")?.parse::<NonZeroU32>().ok());
    let Some(number) = numbers.max() else { return Ok(None) };
    let Some(record) = attempt(store, batch_id, number).await? else { return Ok(None) };
    Ok(Some(Latest { attempt: record, outcome: ended(store, batch_id, number).await? }))
}

/// Reads the record of an attempt; `None` if there is none.
///
/// # Errors
/// Fails with an outage if the store cannot be read; permanently if the record cannot be decoded.
pub async fn attempt(store: &Store, batch_id: &str, number: NonZeroU32) -> Result<Option<RefreshAttempt>, Failure> {
    store::read_json(store, &layout::refresh(batch_id, number)).await
}

/// Reads the outcome of an attempt; `None` until it is decided. The revision that it names may be incomplete.
///
/// # Errors
/// Fails with an outage if the store cannot be read; permanently if the outcome cannot be decoded.
pub async fn outcome(store: &Store, batch_id: &str, attempt: NonZeroU32) -> Result<Option<RefreshOutcome>, Failure> {
    store::read_json(store, &layout::refresh_outcome(batch_id, attempt)).await
}

/// Reads the outcome of an attempt once the attempt has ended; `None` while it is in progress.
///
/// # Errors
/// As for [`outcome`].
pub async fn ended(store: &Store, batch_id: &str, attempt: NonZeroU32) -> Result<Option<RefreshOutcome>, Failure> {
    let Some(decided) = outcome(store, batch_id, attempt).await? else { return Ok(None) };
    let is_complete =
        !decided.is_changed() || store::exists(store, &layout::manifest(batch_id, decided.revision)).await?;
    Ok(Some(decided).filter(|_| is_complete))
}

/// Decides the outcome of an attempt, or returns the outcome that was decided before.
///
/// # Errors
/// Fails with an outage if the store cannot be used; permanently if the stored outcome cannot be decoded.
pub async fn decide(store: &Store, proposed: &RefreshOutcome) -> Result<RefreshOutcome, Failure> {
    let path = layout::refresh_outcome(&proposed.batch_id, proposed.attempt);
    if store::create(store, &path, store::pretty(proposed)?).await? {
        return Ok(proposed.clone());
    }
    let decided = outcome(store, &proposed.batch_id, proposed.attempt).await?;
    decided.ok_or_else(|| Failure::transient(format!("{path} disappeared")))
}

/// Returns the batches with rides whose weather is still expected, by batch id. Lists all datasets and reads the manifest of
/// each. Leaves out a dataset whose manifest is damaged, with a warning.
///
/// # Errors
/// Fails with an outage if the store cannot be read; permanently if the record of an attempt cannot be decoded.
pub async fn stale(store: &Store) -> Result<Vec<Stale>, Failure> {
    let newest = datasets::list(store).await?;
    let checks = stream::iter(newest).map(|(batch_id, revision)| stale_revision(store, batch_id, revision));
    checks.buffered(MANIFESTS_AT_ONCE).try_filter_map(async |stale| Ok(stale)).try_collect().await
}

async fn stale_revision(store: &Store, batch_id: String, revision: NonZeroU32) -> Result<Option<Stale>, Failure> {
    let stored = match datasets::revision(store, &batch_id, revision).await.map_err(Failure::from) {
        Err(Failure::Permanent { why, .. }) => {
            tracing::warn!(batch_id, %why, "a dataset is left out, because its manifest is damaged");
            return Ok(None);
        }
        other => other?,
    };
    let expected = stored.map_or(0, |stored| stored.manifest.not_yet_published());
    if expected == 0 {
        return Ok(None);
    }
    // Rides may have become too old for their weather to be expected, which changes no dataset.
    let outcome = latest(store, &batch_id).await?.and_then(|latest| latest.outcome);
    let outcome = outcome.filter(|outcome| outcome.revision == revision);
    let not_yet_published = outcome.map_or(expected, |outcome| outcome.not_yet_published);
    Ok((not_yet_published > 0).then_some(Stale { batch_id, revision, not_yet_published }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::dataset::{FIRST_REVISION, Manifest};
    use object_store::memory::InMemory;
    use serde_json::json;
    use std::sync::Arc;

    async fn manifest(store: &Store, batch_id: &str, revision: u32, not_yet_published: u64) {
        let mut manifest: Manifest = serde_json::from_value(json!({
            "schema": "dataset-manifest.v1", "batch_id": batch_id, "sha256": "0".repeat(64), "columns": [], "received": 9,
            "accepted": 9, "rejected": 0, "rejected_by_reason": {}, "labelled": 0, "trainable": 0, "stations": {}, "files": [],
            "without_weather": { "no_station_in_reach": 1 },
        }))
        .unwrap();
        manifest.revision = NonZeroU32::new(revision).filter(|revision| *revision > FIRST_REVISION);
        if not_yet_published > 0 {
            manifest.without_weather.insert("not_yet_published".to_owned(), not_yet_published);
        }
        datasets::create_manifest(store, &manifest).await.unwrap();
    }

    async fn claimed(batch_id: &str) -> Store {
        let store: Store = Arc::new(InMemory::new());
        let claim = json!({ "batch_id": batch_id, "sha256": "0".repeat(64), "chunk_size": 10, "object": "raw/a" });
        store::write(&store, &layout::claim(batch_id), claim.to_string()).await.unwrap();
        store::write(&store, "raw/a", "[]").await.unwrap();
        store
    }

    fn outcome(attempt: u32, revision: u32, gained: u64, not_yet_published: u64) -> RefreshOutcome {
        RefreshOutcome {
            schema: RefreshOutcome::SCHEMA.name.to_owned(),
            batch_id: "b".to_owned(),
            attempt: attempt.try_into().unwrap(),
            revision: revision.try_into().unwrap(),
            gained,
            altered: 0,
            lost: 0,
            not_yet_published,
            split_id: "s".to_owned(),
            rows_sha256: "0".repeat(64),
        }
    }

    async fn began(store: &Store) -> (u32, u32, bool) {
        let Begun { attempt, is_new, message } = begin(store, "b", Timestamp::UNIX_EPOCH, "test").await.unwrap();
        assert_eq!(message.refresh, Some(attempt.refresh));
        (attempt.refresh.attempt.get(), attempt.base.get(), is_new)
    }

    /// The next attempt begins only after the last one has ended; until then every request joins it.
    #[tokio::test]
    async fn one_attempt_is_in_progress_at_a_time() {
        let store = claimed("b").await;
        manifest(&store, "b", 1, 0).await;
        assert_eq!(began(&store).await, (1, 1, true));
        assert_eq!(began(&store).await, (1, 1, false));
        let decided = decide(&store, &outcome(1, 2, 1, 0)).await.unwrap();
        assert_eq!(decide(&store, &outcome(1, 1, 0, 0)).await.unwrap(), decided, "the first decision holds");
        assert_eq!(began(&store).await, (1, 1, false), "its revision is incomplete");
        manifest(&store, "b", 2, 0).await;
        assert_eq!(began(&store).await, (2, 2, true));
        decide(&store, &outcome(2, 2, 0, 0)).await.unwrap();
        assert_eq!(latest(&store, "b").await.unwrap().unwrap().outcome, Some(outcome(2, 2, 0, 0)));
        assert_eq!(began(&store).await, (3, 2, true));
    }

    /// Racing requests share one attempt.
    #[tokio::test]
    async fn refreshes_at_the_same_time_are_one_attempt() {
        let store = claimed("b").await;
        manifest(&store, "b", 1, 0).await;
        let by = ["a", "b", "c", "d"];
        let all = by.map(|by| begin(&store, "b", Timestamp::UNIX_EPOCH, by));
        let all = futures::future::try_join_all(all).await.unwrap();
        assert_eq!(all.iter().filter(|begun| begun.is_new).count(), 1);
        assert!(all.iter().all(|begun| begun.attempt == all[0].attempt));
    }

    #[tokio::test]
    async fn a_batch_without_dataset_or_bytes_is_not_refreshed() {
        let store = claimed("b").await;
        let code = async |batch_id| match begin(&store, batch_id, Timestamp::UNIX_EPOCH, "test").await {
            Err(Failure::Permanent { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!((code("c").await, code("b").await), (UNKNOWN_BATCH, NO_DATASET));
        manifest(&store, "b", 1, 0).await;
        store::remove(&store, "raw/a").await.unwrap();
        assert_eq!(code("b").await, NO_BYTES);
    }

    #[tokio::test]
    async fn a_batch_is_stale_while_weather_of_its_newest_revision_is_expected() {
        let store = claimed("b").await;
        manifest(&store, "a", 1, 0).await;
        manifest(&store, "b", 1, 5).await;
        store::write(&store, &layout::manifest("damaged", FIRST_REVISION), "{").await.unwrap();
        let stale = async || -> Vec<(String, u32, u64)> {
            let stale = stale(&store).await.unwrap();
            stale.into_iter().map(|one| (one.batch_id, one.revision.get(), one.not_yet_published)).collect()
        };
        assert_eq!(stale().await, [("b".to_owned(), 1, 5)]);
        began(&store).await;
        decide(&store, &outcome(1, 2, 2, 3)).await.unwrap();
        manifest(&store, "b", 2, 3).await;
        assert_eq!(stale().await, [("b".to_owned(), 2, 3)]);
        // Nothing was published, and the rides are too old now.
        began(&store).await;
        decide(&store, &outcome(2, 2, 0, 0)).await.unwrap();
        assert!(stale().await.is_empty());
    }
}
