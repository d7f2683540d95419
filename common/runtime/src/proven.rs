//! Proves, before a process works, that its store can be the store of a fleet.

use crate::{Shutdown, backoff::Backoff, host};
use records::{
    Store, StoreSettings,
    store::{self, Unproven},
};
use std::time::Duration;
use tokio::time::Instant;

/// Number of races for one object each: some 100 requests in all.
const ROUNDS: usize = 4;
/// First and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Why a process cannot use its store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Waiting does not help: the service is unfit, or refuses the process.
    #[error("store.url = {store}: {why}")]
    Unfit {
        /// Address of the store.
        store: String,
        /// The cause.
        why: Unproven,
    },
    /// The service stayed unreachable.
    #[error("gave up after {} s without the store {store}: {last}", .after.as_secs())]
    GaveUp {
        /// Address of the store.
        store: String,
        /// Time without an answer.
        after: Duration,
        /// The last error.
        last: Unproven,
    },
}

/// Proves that the store creates an object once, however many writers race for it: see [`store::prove`]. Waits for a service that
/// is down, for at most `give_up_after`; ends early at a shutdown. A store that is a folder needs no proof: the system gives
/// the guarantee.
///
/// # Errors
/// Fails if the service is unfit, refuses the process, or stays unreachable.
pub async fn await_proof(
    settings: &StoreSettings,
    store: &Store,
    give_up_after: Duration,
    shutdown: &Shutdown,
) -> Result<(), StoreError> {
    if !settings.is_remote() {
        return Ok(());
    }
    let (began, mut backoff) = (Instant::now(), Backoff::new(PAUSES.0, PAUSES.1));
    loop {
        let proof = store::prove(store, ROUNDS, host::random_range(0..=u128::MAX));
        let Some(proof) = shutdown.run_until_cancelled(proof).await else { return Ok(()) };
        let Err(why) = proof else { return Ok(()) };
        let store = store.to_string();
        if !why.is_temporary() {
            return Err(StoreError::Unfit { store, why });
        }
        let pause = backoff.next_pause();
        if began.elapsed() + pause > give_up_after {
            return Err(StoreError::GaveUp { store, after: began.elapsed(), last: why });
        }
        tracing::warn!(store, %why, retry_in_ms = pause.as_millis() as u64, "the store cannot be used yet");
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{
        memory::InMemory,
        throttle::{ThrottleConfig, ThrottledStore},
    };
    use std::sync::Arc;

    fn settings(url: &str) -> StoreSettings {
        StoreSettings { url: url.to_owned(), ..StoreSettings::default() }
    }

    /// A store that does not answer within a minute.
    fn hanging() -> Store {
        let slow = ThrottleConfig { wait_put_per_call: Duration::from_secs(60), ..ThrottleConfig::default() };
        Arc::new(ThrottledStore::new(InMemory::new(), slow))
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_is_used_without_proof_and_a_service_after_it() {
        let (shutdown, give_up_after) = (Shutdown::new(), Duration::from_secs(1));
        let in_memory: Store = Arc::new(InMemory::new());
        for (url, store) in [("data", hanging()), ("s3://rides", in_memory)] {
            assert!(await_proof(&settings(url), &store, give_up_after, &shutdown).await.is_ok(), "{url}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_does_not_answer_is_awaited_until_the_time_is_over() {
        let (began, give_up_after) = (Instant::now(), Duration::from_secs(300));
        let error =
            await_proof(&settings("s3://rides"), &hanging(), give_up_after, &Shutdown::new()).await.unwrap_err();
        assert!(matches!(error, StoreError::GaveUp { .. }), "{error}");
        assert!((200..=400).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_the_wait() {
        let shutdown = Shutdown::new();
        let stopping = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            shutdown.cancel();
        };
        let (settings, store, began) = (settings("s3://rides"), hanging(), Instant::now());
        let proof = await_proof(&settings, &store, Duration::from_secs(300), &shutdown);
        let (proof, ()) = tokio::join!(proof, stopping);
        assert!(proof.is_ok() && began.elapsed().as_secs() == 3, "{:?}", began.elapsed());
    }
}
