//! Random choices from a seed.

/// A random number generator: PCG's multiplier on 64 bits, the high half of the state. The same seed gives the same
/// numbers on every machine.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn of_seed(seed: u64) -> Self {
        let mut draw = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        // Skips the first numbers, which are alike for neighbouring seeds.
        for _ in 0..4 {
            draw.below(2);
        }
        draw
    }

    /// A number from 0 to `limit` - 1; 0 where the limit is 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }

    /// True once in `times` draws.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
