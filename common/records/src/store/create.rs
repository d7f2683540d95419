//! Creates an object that must not exist yet: the one operation on which the claims, the aliases and the batch log rely.

use super::{Store, outage};
use common::outcome::Failure;
use futures::TryStreamExt;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use std::time::Duration;

/// Maximum number of attempts of one call, if the store says that the object exists, and it does not.
const ATTEMPTS_MAX: u32 = 6;
/// Wait before the third attempt; it doubles before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// Creates an object. Returns whether the object has these bytes because of this call: `false` if it exists with others. Of
/// several racing writers of different bytes exactly one gets `true`.
///
/// Bytes that are the same count as written by this call. A service may have stored an object and lost its answer: the
/// repeated request then finds the object.
///
/// # Errors
/// Fails with an [`outage`] if the store cannot be used.
pub async fn create(store: &Store, path: &str, body: impl Into<PutPayload>) -> Result<bool, Failure> {
    try_create(store, &Path::from(path), body.into()).await.map_err(outage)
}

/// As [`create`], with the error of the store.
///
/// # Errors
/// Fails as the store does, or with `AlreadyExists` if it repeats that of an object that it does not have.
pub(super) async fn try_create(store: &Store, path: &Path, body: PutPayload) -> object_store::Result<bool> {
    let mut attempt = 1;
    loop {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let refusal = match store.put_opts(path, body.clone(), options).await {
            Ok(_) => return Ok(true),
            Err(error @ Error::AlreadyExists { .. }) => error,
            Err(error) => return Err(error),
        };
        // A service answers two simultaneous writers with a conflict, and may have written neither object.
        match has_bytes(store, path, &body).await? {
            Some(are_equal) => return Ok(are_equal),
            None if attempt == ATTEMPTS_MAX => return Err(refusal),
            None if attempt > 1 => tokio::time::sleep(FIRST_WAIT * 2u32.pow(attempt - 2)).await,
            None => {}
        }
        attempt += 1;
    }
}

/// Returns whether an object has exactly these bytes; `None` if it does not exist.
async fn has_bytes(store: &Store, path: &Path, expected: &PutPayload) -> object_store::Result<Option<bool>> {
    let object = match store.get(path).await {
        Ok(object) => object,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if object.meta.size != expected.content_length() as u64 {
        return Ok(Some(false));
    }
    let mut rest = expected.iter().flat_map(|piece| piece.iter());
    let mut pieces = object.into_stream();
    while let Some(piece) = pieces.try_next().await? {
        if !piece.iter().all(|byte| rest.next() == Some(byte)) {
            return Ok(Some(false));
        }
    }
    Ok(Some(rest.next().is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        read,
        stub::{Fault, Stub},
    };

    fn stub(fault: Fault) -> Store {
        Stub::store(fault)
    }

    /// As Ceph and Amazon answer simultaneous writers: 409 although nothing was written.
    #[tokio::test(start_paused = true)]
    async fn a_conflict_without_an_object_is_tried_again() {
        let store = stub(Fault::ConflictWithoutObject { times: 3 });
        assert_eq!(create(&store, "batches/a.json", "mine").await, Ok(true));
        assert_eq!(read(&store, "batches/a.json").await, Ok(Some("mine".into())));
        assert_eq!(create(&store, "batches/a.json", "other").await, Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_never_ends_is_an_outage() {
        let store = stub(Fault::ConflictWithoutObject { times: u32::MAX });
        let failure = create(&store, "batches/a.json", "mine").await.unwrap_err();
        assert!(
            matches!(failure, Failure::Outage { .. }) && failure.to_string().contains("already exists"),
            "{failure}"
        );
    }

    /// The client repeats a request that failed with 5xx, and finds its own object.
    #[tokio::test]
    async fn an_object_of_this_call_counts_as_created() {
        let store = stub(Fault::RepeatsAfterWriting);
        assert_eq!(create(&store, "batches/a.json", "mine").await, Ok(true));
        assert_eq!(create(&store, "batches/b.json", vec![7; 100_000]).await, Ok(true));
        // Another writer comes first, with other bytes of the same length.
        super::super::write(&store, "batches/c.json", "hers").await.unwrap();
        assert_eq!(create(&store, "batches/c.json", "mine").await, Ok(false));
    }

    /// The call fails after the object was written; the worker calls again.
    #[tokio::test]
    async fn a_failure_after_writing_loses_no_object() {
        let store = stub(Fault::FailsAfterWriting { times: 1 });
        assert!(matches!(create(&store, "batches/a.json", "mine").await, Err(Failure::Outage { .. })));
        assert_eq!(create(&store, "batches/a.json", "mine").await, Ok(true));
        assert_eq!(create(&store, "batches/a.json", "hers").await, Ok(false));
    }
}
