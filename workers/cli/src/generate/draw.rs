//! Random numbers that are the same on every machine.

use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

/// A seeded stream of random numbers.
pub(super) struct Draw(Xoshiro256PlusPlus);

impl Draw {
    /// Streams of the same seed are independent of each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed ^ stream.rotate_right(8)))
    }

    /// Returns a number in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// Returns a number below `end`, which must be far below 2^32.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    /// Returns a number of approximately the standard normal distribution, as the sum of twelve uniform ones: logarithms and
    /// cosines differ between machines.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}
