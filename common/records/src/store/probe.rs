//! Proves that a store creates an object once, however many writers race for it.
//!
//! Claims, aliases and the batch log rely on it. Some services accept the condition `If-None-Match: *` and ignore it: then two
//! batches share an id, and rides are lost silently. So a store must prove itself before a fleet uses it.

use super::{Store, create::try_create, remove_each};
use crate::layout;
use common::outcome::Failure;
use futures::future;
use object_store::{Error, ObjectStoreExt, path::Path};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Number of simultaneous writers of one object.
const WRITERS: usize = 16;
/// Parts of errors that no other attempt changes: codes of S3, and the word for a missing bucket.
const REFUSALS: [&str; 5] = [
    "501 Not Implemented",
    "the bucket does not exist",
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "InvalidBucketName",
];
/// Maximum duration of a proof.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Why a store is not proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Not exactly one writer created the object.
    #[error(
        "{winners} of {WRITERS} simultaneous writers created the same object. The service ignores the condition of a \
         conditional write (If-None-Match: *), so two batches could get one id: it cannot be the store of a fleet"
    )]
    Conditions {
        /// The number of writers that were told that they created the object.
        winners: usize,
    },
    /// The service refuses; waiting does not help.
    #[error("the service refuses a conditional write: {0}")]
    Refused(String),
    /// The service cannot be reached now.
    #[error("{0}")]
    Unavailable(String),
}

impl Unproven {
    /// Returns whether another attempt may succeed without a change of the settings.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    fn of(error: &Error) -> Self {
        let refuses = matches!(
            error,
            Error::NotImplemented { .. }
                | Error::NotSupported { .. }
                | Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. }
                | Error::NotFound { .. }
        );
        let text = error.to_string();
        match refuses || REFUSALS.iter().any(|part| text.contains(part)) {
            true => Self::Refused(text),
            false => Self::Unavailable(text),
        }
    }
}

/// Races 16 writers for each of `rounds` objects, whose names contain `random`, and removes the objects.
///
/// # Errors
/// Fails if a round has no or several winners, if the object is not the winner's, or if the store cannot be used.
pub async fn prove(store: &Store, rounds: usize, random: u128) -> Result<(), Unproven> {
    let paths: Vec<String> =
        (0..rounds).map(|round| layout::scratch(&format!("probe-{random:032x}-{round}"))).collect();
    let racing = async {
        for path in &paths {
            race(store, &Path::from(path.as_str())).await?;
        }
        Ok(())
    };
    let proven = tokio::time::timeout(TIME_MAX, racing)
        .await
        .unwrap_or_else(|_| Err(Unproven::Unavailable(format!("no result after {} seconds", TIME_MAX.as_secs()))));
    let removed = tokio::time::timeout(TIME_MAX, remove_each(store, paths.into_iter())).await;
    if let Ok(Err(Failure::Outage { why, .. })) = removed
        && proven.is_ok()
    {
        return Err(Unproven::Unavailable(format!("removing objects: {why}")));
    }
    proven
}

async fn race(store: &Store, path: &Path) -> Result<(), Unproven> {
    let body = |writer: usize| format!("writer {writer:02}");
    let writers = (0..WRITERS).map(|writer| {
        let (store, path, body) = (Store::clone(store), path.clone(), body(writer));
        AbortOnDropHandle::new(tokio::spawn(async move { try_create(&store, &path, body.into()).await }))
    });
    let mut won = Vec::new();
    for (writer, outcome) in future::join_all(writers).await.into_iter().enumerate() {
        let outcome = outcome.map_err(|error| Unproven::Unavailable(error.to_string()))?;
        if outcome.map_err(|error| Unproven::of(&error))? {
            won.push(writer);
        }
    }
    let [winner] = won[..] else { return Err(Unproven::Conditions { winners: won.len() }) };
    let stored = async { store.get(path).await?.bytes().await };
    // If another writer has replaced the object, its condition was ignored.
    match stored.await.map_err(|error| Unproven::of(&error))? == body(winner).as_bytes() {
        true => Ok(()),
        false => Err(Unproven::Conditions { winners: 2 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        cloud::Cloud,
        list,
        stub::{Fault, Stub},
    };
    use futures::TryStreamExt;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_store_that_creates_once_is_proven_and_left_as_it_was() {
        for store in [Arc::new(InMemory::new()) as Store, Arc::new(Cloud::around(Arc::new(InMemory::new())))] {
            assert_eq!(prove(&store, 8, 1).await, Ok(()));
            assert_eq!(list(&store, "scratch").try_collect::<Vec<_>>().await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn a_store_that_ignores_conditions_is_refused() {
        let store = Stub::store(Fault::IgnoresConditions);
        let unproven = prove(&store, 1, 1).await.unwrap_err();
        assert!(matches!(unproven, Unproven::Conditions { winners } if winners > WRITERS / 2), "{unproven}");
        assert!(!unproven.is_temporary() && unproven.to_string().contains("If-None-Match"), "{unproven}");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_an_outage_is_not() {
        let refused = prove(&Stub::store(Fault::Unsupported), 1, 1).await.unwrap_err();
        assert!(matches!(refused, Unproven::Refused(_)), "{refused}");
        let down = prove(&Stub::store(Fault::Down), 1, 1).await.unwrap_err();
        assert!(down.is_temporary() && down.to_string().contains("503"), "{down}");
    }
}
