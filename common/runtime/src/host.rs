//! What a process takes from the machine it runs on, beside the broker and the store: the date, random numbers, another
//! thread. All of it comes from here, so that a simulation can give it from a seed instead: the same on every run.
//!
//! Time that passes is tokio's ([`tokio::time`]), which a simulation lets pass by itself.

use common::outcome::Failure;
use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use jiff::Timestamp;
use rand::{
    RngExt, SeedableRng,
    distr::uniform::{SampleRange, SampleUniform},
    rngs::SmallRng,
};
use std::{cell::RefCell, time::SystemTime};
use tokio::time::Instant;

thread_local! {
    static SIMULATED: RefCell<Option<Simulated>> = const { RefCell::new(None) };
}

struct Simulated {
    random: SmallRng,
    epoch: Timestamp,
    started: Instant,
}

/// While it lives, this thread's host is simulated: random numbers from a seed, a date that begins at `epoch` and goes on
/// with tokio's clock, and work for other threads done at once on this one.
#[derive(Debug)]
#[must_use]
pub struct Simulation(());

impl Simulation {
    /// Begins, within a tokio runtime of one thread whose clock is paused.
    pub fn begin(seed: u64, epoch: Timestamp) -> Self {
        let simulated = Simulated { random: SmallRng::seed_from_u64(seed), epoch, started: Instant::now() };
        SIMULATED.set(Some(simulated));
        Self(())
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        SIMULATED.set(None);
    }
}

/// The date and time of day.
pub fn now() -> Timestamp {
    SIMULATED.with_borrow(|simulated| match simulated {
        Some(simulated) => simulated.epoch.saturating_add(simulated.started.elapsed()).unwrap_or(Timestamp::MAX),
        None => Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX),
    })
}

/// A random number within `range`.
pub fn random_range<T: SampleUniform>(range: impl SampleRange<T>) -> T {
    SIMULATED.with_borrow_mut(|simulated| match simulated {
        Some(simulated) => simulated.random.random_range(range),
        None => rand::random_range(range),
    })
}

/// Runs work that takes long away from the threads that serve the broker's heartbeats; it begins at once, awaited or not.
/// A panic in it goes on in whoever awaits it.
///
/// # Errors
/// Transient when the process is shutting down.
pub fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> BoxFuture<'static, Result<T, Failure>> {
    if SIMULATED.with_borrow(Option::is_some) {
        return future::ready(Ok(work())).boxed();
    }
    let running = tokio::task::spawn_blocking(work);
    let ended = |joined: Result<T, tokio::task::JoinError>| {
        joined.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Failure::transient(error),
        })
    };
    running.map(ended).boxed()
}
