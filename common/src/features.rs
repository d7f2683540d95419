//! The features of a model, and the split of rides into folds and test rides.

use crate::{
    message::{ScoreRide, Units},
    ride::{DISTANCE_MAX, POINTS_MAX},
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One input of the model. This table is the only place that knows its name, unit, bounds and wording; to add a feature, add a row at
/// its end with `original: false`.
#[derive(Debug, Clone, Copy)]
pub struct Feature {
    /// Name of the dataset column and of the field in a score request.
    pub name: &'static str,
    /// Heading in reports.
    pub title: &'static str,
    /// Meaning of one ride's value: the help of its command-line option.
    pub about: &'static str,
    /// Whether version 0.1.0 has this feature. A request may omit a later one even if nothing is imputed; the scorer then uses its mean in
    /// training.
    pub original: bool,
    /// Unit of the dataset column.
    pub unit: &'static str,
    /// Unit for people, and how many units of the column it has.
    pub display_unit: (&'static str, f64),
    /// Size of a natural step, in units of the column.
    pub step: f64,
    /// The natural step in words.
    pub step_name: &'static str,
    /// What a step means, in words.
    pub step_meaning: &'static str,
    /// Whether the feature comes from the weather, rather than from the ride.
    pub weather: bool,
    /// Maximum magnitude of the values that a model is trained on, in units of the column.
    pub trained_max: f64,
    /// Lowest and highest value that can be scored, in units of the column. Weather has the bounds of [`crate::weather::check`].
    pub scored: (f64, f64),
    /// What a score request must contain, in words.
    pub expected: &'static str,
    /// Returns the feature of a ride to score, in the units of the request.
    pub of: fn(&ScoreRide) -> Option<f64>,
    /// Sets the feature of a ride to score, in the units of the request.
    pub set: fn(&mut ScoreRide, Option<f64>),
    /// Converts a value of a score request to the unit of the column.
    pub convert: fn(f64, Units) -> f64,
}

impl Feature {
    /// Returns the feature of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FEATURES.iter().find(|feature| feature.name == name)
    }

    /// Reads the feature of a ride to score, in the unit of the column.
    pub fn read(&self, ride: &ScoreRide, units: Units) -> Option<f64> {
        (self.of)(ride).map(|value| (self.convert)(value, units))
    }

    /// Returns whether a value can be scored.
    pub fn is_scored(&self, value: f64) -> bool {
        self.weather || (self.scored.0..=self.scored.1).contains(&value)
    }
}

/// A feature of the ride: one unit of the request, one unit for people.
const RIDE: Feature = Feature {
    name: "",
    title: "",
    about: "",
    original: true,
    unit: "point",
    display_unit: ("points", 1.0),
    step: 10.0,
    step_name: "10 points",
    step_meaning: "",
    weather: false,
    trained_max: POINTS_MAX,
    scored: (f64::MIN, f64::MAX),
    expected: "a number",
    of: |_| None,
    set: |_, _| (),
    convert: |value, _| value,
};

/// A temperature.
const TEMPERATURE: Feature = Feature {
    unit: "tenth of °C",
    display_unit: ("°C", 10.0),
    step: 100.0,
    step_name: "10 °C",
    weather: true,
    convert: |value, units| units.temperature.to_celsius_tenths(value),
    ..RIDE
};

/// The features, in the order of all vectors and matrices.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "distance",
        title: "Distance",
        about: "Distance of the ride in miles",
        unit: "mile",
        display_unit: ("miles", 1.0),
        step: 1.0,
        step_name: "1 mile",
        step_meaning: "each mile farther",
        trained_max: DISTANCE_MAX,
        scored: (0.0, f64::MAX),
        expected: "miles, not negative",
        of: |ride| ride.distance,
        set: |ride, value| ride.distance = value,
        ..RIDE
    },
    Feature {
        name: "healthpoints",
        title: "Health points",
        about: "Health points at the end of the ride",
        step_meaning: "each 10 health points more",
        of: |ride| ride.healthpoints,
        set: |ride, value| ride.healthpoints = value,
        ..RIDE
    },
    Feature {
        name: "magicpoints",
        title: "Magic points",
        about: "Magic points burnt on the ride",
        step_meaning: "each 10 magic points burnt",
        of: |ride| ride.magicpoints,
        set: |ride, value| ride.magicpoints = value,
        ..RIDE
    },
    Feature {
        name: "tmin",
        title: "Lowest temperature",
        about: "Lowest temperature of the day",
        step_meaning: "each 10 °C warmer at night (tmin)",
        of: |ride| ride.tmin,
        set: |ride, value| ride.tmin = value,
        ..TEMPERATURE
    },
    Feature {
        name: "tmax",
        title: "Highest temperature",
        about: "Highest temperature of the day",
        step_meaning: "each 10 °C warmer by day (tmax)",
        of: |ride| ride.tmax,
        set: |ride, value| ride.tmax = value,
        ..TEMPERATURE
    },
    Feature {
        name: "prcp",
        title: "Precipitation",
        about: "Precipitation of the day",
        unit: "tenth of mm",
        display_unit: ("mm", 10.0),
        step_name: "10 mm",
        step_meaning: "each 10 mm more rain (prcp)",
        of: |ride| ride.prcp,
        set: |ride, value| ride.prcp = value,
        convert: |value, units| units.precipitation.to_millimetre_tenths(value),
        ..TEMPERATURE
    },
];

/// Number of features.
pub const FEATURE_COUNT: usize = FEATURES.len();

/// Returns the names of the features that version 0.1.0 lacks.
pub fn later_features() -> impl Iterator<Item = &'static str> {
    FEATURES.iter().filter(|feature| !feature.original).map(|feature| feature.name)
}

/// The features that a model uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSet {
    /// All features.
    #[default]
    All,
    /// Features of the ride: distance and points.
    Mileage,
    /// Features of the weather.
    Weather,
}

impl FeatureSet {
    /// Returns, for each of [`FEATURES`], whether the set contains it.
    pub fn used(self) -> [bool; FEATURE_COUNT] {
        std::array::from_fn(|j| match self {
            Self::All => true,
            Self::Mileage => !FEATURES[j].weather,
            Self::Weather => FEATURES[j].weather,
        })
    }
}

/// Maximum number of folds of a cross-validation.
pub const FOLDS_MAX: u32 = 20;

/// Returns a number from 0 to 255 that spreads rides evenly. It depends on the ride id alone and never changes.
///
/// The highest byte of `xxh3_64(ride_id, seed 1)`.
pub fn spread(ride_id: &[u8]) -> u8 {
    (xxh3_64_with_seed(ride_id, 1) >> 56) as u8
}

/// Returns the fold of a ride, 0 to `folds - 1`. `spread` is [`spread`] of its id; `folds` is at most [`FOLDS_MAX`].
///
/// `spread · folds / 256`, rounded down: the folds differ by a few percent in size.
pub fn fold(spread: u8, folds: u32) -> u32 {
    u32::from(spread) * folds / 256
}

/// Returns a breed's name in the form that models use: trimmed and in lower case; `None` for a blank name.
pub fn breed_name(breed: &str) -> Option<String> {
    Some(breed.trim().to_lowercase()).filter(|breed| !breed.is_empty())
}

/// Share of the rides held out for testing.
pub const TEST_SHARE: f64 = 0.1;

/// Returns whether a ride belongs to the held-out test split. This depends on the ride id alone and never changes.
///
/// `xxh3_64(ride_id, seed 0) < 0.1 · 2^64`.
pub fn is_test_ride(ride_id: &str) -> bool {
    const LIMIT: u64 = (TEST_SHARE * 18_446_744_073_709_551_616.0) as u64;
    xxh3_64_with_seed(ride_id.as_bytes(), 0) < LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Models list their coefficients in this order, so later features come last.
    #[test]
    fn every_feature_is_set_and_read_in_its_place() {
        assert!(FEATURES.is_sorted_by_key(|feature| !feature.original));
        let mut ride = ScoreRide::default();
        for (feature, value) in FEATURES.iter().zip(1u8..) {
            (feature.set)(&mut ride, Some(value.into()));
        }
        let read: Vec<_> = FEATURES.iter().map(|feature| (feature.of)(&ride)).collect();
        assert_eq!(read, (1u8..).take(FEATURE_COUNT).map(|value| Some(value.into())).collect::<Vec<_>>());
    }

    #[test]
    fn the_split_never_changes() {
        let test: Vec<u32> = (0..100).filter(|i| is_test_ride(&format!("450c7f9391a7a29b-{i}"))).collect();
        assert_eq!(test, PINNED);
        let share = (0..100_000).filter(|i| is_test_ride(&format!("ride-{i}"))).count();
        assert!((9_700..10_300).contains(&share), "{share} of 100000");
    }

    /// Folds are about equally large, and independent of the test split.
    #[test]
    fn folds_are_even() {
        for folds in [2, 5, 10, 20] {
            let mut rides = vec![(0u32, 0u32); folds as usize];
            for i in 0..50_000 {
                let id = format!("ride-{i}");
                let (all, test) = &mut rides[fold(spread(id.as_bytes()), folds) as usize];
                *all += 1;
                *test += u32::from(is_test_ride(&id));
            }
            for (all, test) in rides {
                assert!((all * folds).abs_diff(50_000) < 5_000, "{all} of {folds}");
                assert!((test * 10).abs_diff(all) < all / 5, "{test} of {all}");
            }
        }
    }

    /// Computed with the reference implementation of xxHash through its Python binding.
    const PINNED: &[u32] = &[3, 12, 15, 17, 49, 56, 78, 83];
}
