//! Standardisation of the features.

use super::{blocks::over_blocks, error::FitError, matrix::Features};
use crate::data::rows::Rides;
use common::features::{FEATURE_COUNT, FEATURES};

/// A feature whose values differ by less than this, relative to the largest, is constant.
const SPREAD_MIN: f64 = 1e-12;

/// Standardises the features to mean 0 and standard deviation 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaler {
    /// In original units, as all fields.
    pub mean: Features,
    /// Denominator n; 0 for a constant feature.
    pub std_dev: Features,
    /// Smallest value.
    pub min: Features,
    /// Largest value.
    pub max: Features,
}

impl Scaler {
    /// Computes the scaler of these rides.
    ///
    /// # Errors
    /// Fails if a mean or a standard deviation is not finite.
    pub fn of(rides: &Rides) -> Result<Self, FitError> {
        let n = rides.len() as f64;
        let mut scaler = Self {
            mean: [0.0; FEATURE_COUNT],
            std_dev: [0.0; FEATURE_COUNT],
            min: [f64::INFINITY; FEATURE_COUNT],
            max: [f64::NEG_INFINITY; FEATURE_COUNT],
        };
        let blocks = over_blocks(rides, |features, _| {
            let mut sum = [0.0; FEATURE_COUNT];
            let (mut min, mut max) = ([f64::INFINITY; FEATURE_COUNT], [f64::NEG_INFINITY; FEATURE_COUNT]);
            for row in features {
                for j in 0..FEATURE_COUNT {
                    sum[j] += row[j];
                    min[j] = min[j].min(row[j]);
                    max[j] = max[j].max(row[j]);
                }
            }
            (sum, min, max)
        });
        for (sum, min, max) in blocks {
            for j in 0..FEATURE_COUNT {
                scaler.mean[j] += sum[j] / n;
                scaler.min[j] = scaler.min[j].min(min[j]);
                scaler.max[j] = scaler.max[j].max(max[j]);
            }
        }
        let mean = scaler.mean;
        let blocks = over_blocks(rides, |features, _| {
            let mut squares = [0.0; FEATURE_COUNT];
            for row in features {
                for j in 0..FEATURE_COUNT {
                    squares[j] += (row[j] - mean[j]).powi(2);
                }
            }
            squares
        });
        let mut variance = [0.0; FEATURE_COUNT];
        for squares in blocks {
            for j in 0..FEATURE_COUNT {
                variance[j] += squares[j] / n;
            }
        }
        for j in 0..FEATURE_COUNT {
            let largest = scaler.max[j].abs().max(scaler.min[j].abs());
            if scaler.max[j] - scaler.min[j] > SPREAD_MIN * largest {
                scaler.std_dev[j] = variance[j].sqrt();
            }
            if !scaler.mean[j].is_finite() || !scaler.std_dev[j].is_finite() {
                return Err(FitError::OutOfRange(FEATURES[j].name));
            }
        }
        Ok(scaler)
    }

    /// Returns the covariance of the features of these rides (denominator n), symmetric to the last bit; 0 in the rows and columns of
    /// constant features. The rides are those that the scaler was computed of.
    pub fn covariance(&self, rides: &Rides) -> [Features; FEATURE_COUNT] {
        let n = rides.len() as f64;
        let blocks = over_blocks(rides, |features, _| {
            let mut products = [[0.0; FEATURE_COUNT]; FEATURE_COUNT];
            for row in features {
                let off: Features = std::array::from_fn(|j| row[j] - self.mean[j]);
                for j in 0..FEATURE_COUNT {
                    for k in 0..=j {
                        products[j][k] += off[j] * off[k];
                    }
                }
            }
            products
        });
        let mut covariance = [[0.0; FEATURE_COUNT]; FEATURE_COUNT];
        for products in blocks {
            for j in (0..FEATURE_COUNT).filter(|j| !self.is_constant(*j)) {
                for k in (0..=j).filter(|k| !self.is_constant(*k)) {
                    covariance[j][k] += products[j][k] / n;
                    covariance[k][j] = covariance[j][k];
                }
            }
        }
        covariance
    }

    /// Returns whether a feature has only one value.
    pub fn is_constant(&self, feature: usize) -> bool {
        self.std_dev[feature] == 0.0
    }

    /// Inverse of each standard deviation; 0 for a constant feature.
    pub(crate) fn scale(&self) -> Features {
        self.std_dev.map(|std_dev| if std_dev == 0.0 { 0.0 } else { 1.0 / std_dev })
    }
}
