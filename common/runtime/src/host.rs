//! The machine's inputs to a process beside broker and store: time, random numbers and other threads. All code takes
//! them from here, so that a simulation can replace them with values from a seed.
//!
//! Timers are tokio's ([`tokio::time`]), whose clock a simulation controls by itself.

use common::{
    outcome::Failure,
    ride::{InvalidStatusTime, StatusTime},
    text::trimmed,
};
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

/// Simulates this thread's host until it is dropped: random numbers come from a seed, the time starts at `epoch` and
/// follows tokio's clock, and offloaded work runs at once on this thread.
#[derive(Debug)]
#[must_use]
pub struct Simulation(());

impl Simulation {
    /// Starts a simulation. Requires a single-threaded tokio runtime with a paused clock.
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

/// Returns the current time.
pub fn now() -> Timestamp {
    SIMULATED.with_borrow(|simulated| match simulated {
        Some(simulated) => simulated.epoch.saturating_add(simulated.started.elapsed()).unwrap_or(Timestamp::MAX),
        None => Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX),
    })
}

/// Reads a time in one of the forms of [`StatusTime::read`], or `now`.
///
/// # Errors
/// Fails on every other form.
pub fn read_time(text: &str) -> Result<StatusTime, InvalidStatusTime> {
    match trimmed(text).eq_ignore_ascii_case("now") {
        true => Ok(now().to_zoned(jiff::tz::TimeZone::UTC).datetime().into()),
        false => StatusTime::read(text),
    }
}

/// Returns a random number within `range`.
pub fn random_range<T: SampleUniform>(range: impl SampleRange<T>) -> T {
    SIMULATED.with_borrow_mut(|simulated| match simulated {
        Some(simulated) => simulated.random.random_range(range),
        None => rand::random_range(range),
    })
}

/// Runs long work on another thread than those that serve the broker's heartbeats. The work starts at once, even if the
/// future is not awaited. A panic in it continues in the awaiting task.
///
/// # Errors
/// Fails transiently if the process is shutting down.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn now_is_a_time() {
        let _simulation = Simulation::begin(1, "2026-11-30T17:03:05.25Z".parse().unwrap());
        let text = |text: &str| read_time(text).map(|time| String::from_utf8(time.canonical().to_vec()).unwrap());
        for now in ["now", " Now\n"] {
            assert_eq!(text(now).as_deref(), Ok("2026-11-30 17:03:05.250"), "{now:?}");
        }
        assert_eq!(text("2018-04-25T17:03:05+02:00").as_deref(), Ok("2018-04-25 15:03:05.000"));
        assert_eq!(text("tomorrow"), Err(InvalidStatusTime));
    }
}
