//! What the model sees of a ride, and which rides it is tested on.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One input of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Feature {
    /// Column of the dataset and field of a score request.
    pub name: &'static str,
    /// Unit of the column.
    pub unit: &'static str,
    /// As many units as make a step one can imagine, …
    pub step: f64,
    /// … in words.
    pub step_name: &'static str,
    /// Whether the weather tells it, and not the ride.
    pub weather: bool,
}

/// The features, in the order of every vector and matrix.
pub const FEATURES: [Feature; 6] = [
    Feature { name: "distance", unit: "mile", step: 1.0, step_name: "1 mile", weather: false },
    Feature { name: "healthpoints", unit: "point", step: 10.0, step_name: "10 points", weather: false },
    Feature { name: "magicpoints", unit: "point", step: 10.0, step_name: "10 points", weather: false },
    Feature { name: "tmin", unit: "tenth of °C", step: 100.0, step_name: "10 °C", weather: true },
    Feature { name: "tmax", unit: "tenth of °C", step: 100.0, step_name: "10 °C", weather: true },
    Feature { name: "prcp", unit: "tenth of mm", step: 100.0, step_name: "10 mm", weather: true },
];

/// Number of features.
pub const FEATURE_COUNT: usize = FEATURES.len();

/// Which features a model is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSet {
    /// Every one.
    #[default]
    All,
    /// What the ride itself tells: distance and points.
    Mileage,
    /// What the weather tells.
    Weather,
}

impl FeatureSet {
    /// Which of [`FEATURES`] belong to it.
    pub fn used(self) -> [bool; FEATURE_COUNT] {
        FEATURES.map(|feature| match self {
            Self::All => true,
            Self::Mileage => !feature.weather,
            Self::Weather => feature.weather,
        })
    }
}

/// In how many parts [`fold`] divides the rides at most.
pub const FOLDS_MAX: u32 = 20;

/// The fold of a ride in a cross-validation, below `folds`: for ever, on every machine, whatever else is in the dataset.
///
/// `xxh3_64(ride_id, seed 1) · folds / 2^64`, rounded down.
pub fn fold(ride_id: &[u8], folds: u32) -> u32 {
    let scaled = u128::from(xxh3_64_with_seed(ride_id, 1)) * u128::from(folds);
    (scaled >> 64) as u32
}

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
