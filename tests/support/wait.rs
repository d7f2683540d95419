//! The one way to wait: looks at a condition until it holds. A wait in vain fails with what it waited for and what it saw last.

use std::{
    fmt::{Debug, Display},
    panic::Location,
    time::{Duration, Instant},
};

/// Timeout of every wait, long enough for a loaded machine.
pub const SOON: Duration = Duration::from_secs(120);

/// Bounds of the pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What one look at a condition found.
pub trait Look {
    /// What the wait returns.
    type Value;

    /// The value if the condition holds, else what was seen instead; empty if there is nothing to say.
    ///
    /// # Errors
    /// If the condition does not hold.
    fn value(self) -> Result<Self::Value, String>;
}

impl Look for bool {
    type Value = ();

    fn value(self) -> Result<(), String> {
        self.then_some(()).value()
    }
}

impl<T> Look for Option<T> {
    type Value = T;

    fn value(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

/// Whether the condition holds, and what was seen.
impl<T: Debug> Look for (bool, T) {
    type Value = T;

    fn value(self) -> Result<T, String> {
        let (holds, seen) = self;
        if holds { Ok(seen) } else { Err(format!("{seen:?}")) }
    }
}

impl<T, E: Display> Look for Result<T, E> {
    type Value = T;

    fn value(self) -> Result<T, String> {
        self.map_err(|seen| seen.to_string())
    }
}

/// Waits for `what` until a look finds it.
///
/// # Panics
/// After [`SOON`].
#[track_caller]
pub fn until<L: Look>(what: impl Display, look: impl AsyncFnMut() -> L) -> impl Future<Output = L::Value> {
    let caller = Location::caller();
    async move { within(SOON, what, look).await.unwrap_or_else(|failure| panic!("{caller}: {failure}")) }
}

/// The same on a thread that may block.
///
/// # Panics
/// After [`SOON`].
#[track_caller]
pub fn until_blocking<L: Look>(what: impl Display, look: impl FnMut() -> L) -> L::Value {
    // No closure, which would hide the caller's place.
    match within_blocking(SOON, what, look) {
        Ok(value) => value,
        Err(failure) => panic!("{failure}"),
    }
}

/// Waits for a future.
///
/// # Panics
/// After [`SOON`].
#[track_caller]
pub fn soon<T>(what: impl Display, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    let late = move |_| panic!("{caller}: waited {SOON:?} in vain for {what}");
    async move { tokio::time::timeout(SOON, future).await.unwrap_or_else(late) }
}

/// Waits for `what` until a look finds it, at most for `timeout`; a look that takes longer is abandoned.
///
/// # Errors
/// After the timeout: what was waited for, and what was seen last.
pub async fn within<L: Look>(
    timeout: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> L,
) -> Result<L::Value, String> {
    let (began, mut before) = (Instant::now(), String::new());
    loop {
        let looked = Instant::now();
        let left = timeout.saturating_sub(began.elapsed());
        let seen = match tokio::time::timeout(left, look()).await.map(Look::value) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => seen,
            Err(_) if before.is_empty() => "the last look took too long".to_owned(),
            Err(_) => format!("{before} (the last look took too long)"),
        };
        ended(began, timeout, &what, &seen)?;
        before = seen;
        tokio::time::sleep(pause(looked)).await;
    }
}

/// The same on a thread that may block; waits for the end of the last look.
///
/// # Errors
/// After the timeout: what was waited for, and what was seen last.
pub fn within_blocking<L: Look>(
    timeout: Duration,
    what: impl Display,
    mut look: impl FnMut() -> L,
) -> Result<L::Value, String> {
    let began = Instant::now();
    loop {
        let looked = Instant::now();
        match look().value() {
            Ok(value) => return Ok(value),
            Err(seen) => ended(began, timeout, &what, &seen)?,
        }
        std::thread::sleep(pause(looked));
    }
}

fn ended(began: Instant, timeout: Duration, what: &impl Display, seen: &str) -> Result<(), String> {
    match (began.elapsed() < timeout, seen) {
        (true, _) => Ok(()),
        (false, "") => Err(format!("waited {timeout:?} in vain for {what}")),
        (false, seen) => Err(format!("waited {timeout:?} in vain for {what}; seen last: {seen}")),
    }
}

/// The pause after a look: as long as the look, so that a wait takes half of a core at most.
fn pause(looked: Instant) -> Duration {
    looked.elapsed().clamp(PAUSE_MIN, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_wait_returns_what_the_first_successful_look_finds() {
        let mut looks = 0..;
        let seen = until_blocking("the third look", || looks.next().map(|look| (look == 2, look)).expect("endless"));
        assert_eq!(seen, 2);
    }

    #[tokio::test]
    async fn a_wait_in_vain_says_what_was_seen_last() {
        let failure = "waited 20ms in vain for a message; seen last: an empty queue";
        let empty = || Err::<(), _>("an empty queue");
        assert_eq!(within_blocking(SHORT, "a message", empty), Err(failure.to_owned()));
        assert_eq!(within(SHORT, "a message", async || empty()).await, Err(failure.to_owned()));
        assert_eq!(within_blocking(SHORT, "a message", || false), Err("waited 20ms in vain for a message".to_owned()));
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_abandoned() {
        let failure = within(SHORT, "an answer", std::future::pending::<bool>).await.unwrap_err();
        assert!(failure.ends_with("the last look took too long"), "{failure}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_hides_nothing_that_was_seen_before() {
        let mut looks = 0;
        let look = async || {
            looks += 1;
            if looks > 1 {
                std::future::pending::<()>().await;
            }
            Err::<(), _>("an empty queue")
        };
        let failure = within(SHORT, "a message", look).await.unwrap_err();
        assert!(failure.ends_with("seen last: an empty queue (the last look took too long)"), "{failure}");
    }
}
