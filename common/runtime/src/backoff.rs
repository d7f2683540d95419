//! Growing pauses between attempts, with jitter.

use crate::host;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;

/// Pauses that double from a first to a longest one.
#[derive(Debug)]
pub struct Backoff {
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Starts with the pause `first`; no pause exceeds `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new().with_factor(2.0).with_min_delay(first).with_max_delay(longest);
        Self { pauses: builder.without_max_times().build(), longest }
    }

    /// Returns the next pause, drawn from the second half of its full length. [`host`] draws the random number, so that
    /// a simulation can repeat it.
    pub fn next_pause(&mut self) -> Duration {
        let full = self.full();
        host::random_range(full / 2..=full)
    }

    /// Returns the next pause without jitter.
    pub fn full(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_millis(1_000));
        assert_eq!([200, 400, 800, 1_000, 1_000], std::array::from_fn(|_| backoff.full().as_millis()));
    }

    #[test]
    fn a_pause_lies_in_the_second_half_of_its_length() {
        for _ in 0..100 {
            let pause = Backoff::new(Duration::from_millis(200), Duration::MAX).next_pause();
            assert!((Duration::from_millis(100)..=Duration::from_millis(200)).contains(&pause), "{pause:?}");
        }
    }
}
