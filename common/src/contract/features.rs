//! What the model sees of a ride, and which rides it is tested on.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One input of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Column of the dataset and field of a score request.
    pub name: &'static str,
    /// Unit of the column.
    pub unit: &'static str,
}

/// The features, in the order of every vector and matrix.
pub const FEATURES: [Feature; 6] = [
    Feature { name: "distance", unit: "mile" },
    Feature { name: "healthpoints", unit: "point" },
    Feature { name: "magicpoints", unit: "point" },
    Feature { name: "tmin", unit: "tenth of °C" },
    Feature { name: "tmax", unit: "tenth of °C" },
    Feature { name: "prcp", unit: "tenth of mm" },
];

/// Number of features.
pub const FEATURE_COUNT: usize = FEATURES.len();

/// The share of rides kept for testing.
pub const TEST_SHARE: f64 = 0.1;

/// Whether a ride belongs to the test split: for ever, on every machine, whatever else is in the dataset.
///
/// `xxh3_64(ride_id, seed 0) < 0.1 · 2^64`.
pub fn is_test_ride(ride_id: &str) -> bool {
    const LIMIT: u64 = (TEST_SHARE * 18_446_744_073_709_551_616.0) as u64;
    xxh3_64_with_seed(ride_id.as_bytes(), 0) < LIMIT
}

#[cfg(test)]
mod tests {
    use super::is_test_ride;

    #[test]
    fn the_split_never_changes() {
        let test: Vec<u32> = (0..100).filter(|i| is_test_ride(&format!("450c7f9391a7a29b-{i}"))).collect();
        assert_eq!(test, PINNED);
        let share = (0..100_000).filter(|i| is_test_ride(&format!("ride-{i}"))).count();
        assert!((9_700..10_300).contains(&share), "{share} of 100000");
    }

    /// Computed with the reference implementation of xxHash through its Python binding.
    const PINNED: &[u32] = &[3, 12, 15, 17, 49, 56, 78, 83];
}
