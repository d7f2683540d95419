//! Imputation: what the known features of a ride say about its missing ones.
//!
//! The features are treated as jointly normal, with the mean and the covariance of the training rides. A known feature is an exact
//! linear observation, and so is the mean temperature of the day, `(tmin + tmax) / 2`. Conditioning on them gives the expectation of
//! the missing features and the covariance of their errors (Anderson, *An Introduction to Multivariate Statistical Analysis*, 3rd
//! edition, theorem 2.5.1). The distribution is conditioned on one observation after the other, so that no matrix is inverted. An
//! observation that earlier ones determine, because its feature is constant or a combination of others, is skipped.
//!
//! ```text
//! known features ─▶ Distribution::given ─▶ Conditional ┬ mean ─────▶ log-odds at the assumed values ┐
//!                                                      └ variance ─▶ variance of the log-odds ──────┴▶ Uncertain
//!                                                                          probability, 90 % interval ◀───┘
//! ```

use crate::{
    features::{FEATURE_COUNT, FEATURES},
    model::{Model, logistic},
    weather::{PRECIPITATION_TENTHS, TEMPERATURE_TENTHS},
};
use std::{ops::RangeInclusive, sync::LazyLock};

/// One value per feature, in the order of [`FEATURES`].
pub type Features = [f64; FEATURE_COUNT];

/// Share of its unconditional variance up to which an observation counts as determined by the observations before it.
const NEW_VARIANCE_MIN: f64 = 1e-9;
/// Maximum distance of a known value from its mean, standard deviations, as far as the expectations of others are concerned. A larger
/// distance counts as this one.
const DEVIATION_MAX: f64 = 1e6;
/// Standard normal quantile of 95 %: 90 % of a normal distribution is within so many standard deviations.
const NORMAL_95: f64 = 1.644_853_626_951_472_2;
/// Distance of two nodes of the quadrature, standard deviations.
const NODE_STEP: f64 = 0.25;
/// Number of nodes on each side of the mean: up to 7.5 standard deviations.
const NODES: usize = 30;

/// Indexes of the temperatures and of precipitation in [`FEATURES`]; `None` if there is no such feature.
static PLACES: LazyLock<[Option<usize>; 3]> =
    LazyLock::new(|| ["tmin", "tmax", "prcp"].map(|name| FEATURES.iter().position(|feature| feature.name == name)));

/// Weights of the nodes of a standard normal distribution, from the mean outwards. Those of both sides add up to 1.
static NODE_WEIGHTS: LazyLock<[f64; NODES + 1]> = LazyLock::new(|| {
    let density: [f64; NODES + 1] = std::array::from_fn(|node| (-0.5 * (node as f64 * NODE_STEP).powi(2)).exp());
    let sum = density[0] + 2.0 * density[1..].iter().sum::<f64>();
    density.map(|density| density / sum)
});

/// The distribution of the features over the training rides of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Whether the model uses the feature. The others are constant.
    used: [bool; FEATURE_COUNT],
    mean: Features,
    std_dev: Features,
    correlation: [Features; FEATURE_COUNT],
}

/// An artefact whose distribution cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the covariance is not a finite matrix with a row and a column for each coefficient")]
pub struct UnusableCovariance;

/// What is known of a ride, in the units of the dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Known {
    /// The known features, in the order of [`FEATURES`].
    pub features: [Option<f64>; FEATURE_COUNT],
    /// Mean temperature of the day, `(tmin + tmax) / 2`. It has an effect only if neither `tmin` nor `tmax` is known.
    pub tavg: Option<f64>,
}

/// The distribution of the features of one ride, given what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditional {
    /// The known values, and the expectations of the missing ones. An expectation is a possible value: distance and precipitation are
    /// not negative, `tmin` is at most `tmax`, and their mean is the known [`Known::tavg`].
    pub mean: Features,
    std_dev: Features,
    /// Covariance of the errors of `mean`, in standard deviations of the training rides.
    covariance: [Features; FEATURE_COUNT],
}

impl Distribution {
    /// Reads the distribution of the training rides. Without [`Model::covariance`] the features are uncorrelated.
    ///
    /// # Errors
    /// Fails if the covariance is not a square matrix of finite numbers with one row per coefficient. `used` is [`Model::used`].
    pub fn of(model: &Model, used: &[usize]) -> Result<Self, UnusableCovariance> {
        let mut distribution = Self {
            used: [false; FEATURE_COUNT],
            mean: [0.0; FEATURE_COUNT],
            std_dev: [0.0; FEATURE_COUNT],
            correlation: uncorrelated(),
        };
        for (&place, coefficient) in used.iter().zip(&model.coefficients) {
            distribution.used[place] = true;
            distribution.mean[place] = coefficient.mean;
            distribution.std_dev[place] = coefficient.std_dev.max(0.0);
        }
        let Some(covariance) = &model.covariance else { return Ok(distribution) };
        let is_finite = |row: &Vec<f64>| row.len() == used.len() && row.iter().all(|value| value.is_finite());
        if covariance.len() != used.len() || !covariance.iter().all(is_finite) {
            return Err(UnusableCovariance);
        }
        for (&j, row) in used.iter().zip(covariance) {
            for (&k, covariance) in used.iter().zip(row).filter(|(k, _)| **k != j) {
                let scale = distribution.std_dev[j] * distribution.std_dev[k];
                let correlation = if scale > 0.0 { (covariance / scale).clamp(-1.0, 1.0) } else { 0.0 };
                distribution.correlation[j][k] = correlation;
            }
        }
        Ok(distribution)
    }

    /// Returns the distribution of the features of one ride, given what is known of it.
    pub fn given(&self, known: &Known) -> Conditional {
        let mut conditional = self.conditioned(known);
        if !conditional.is_finite() {
            // The correlations contradict each other: no rides can have them.
            conditional = Self { correlation: uncorrelated(), ..self.clone() }.conditioned(known);
        }
        conditional.make_possible(&self.used, known);
        conditional
    }

    fn conditioned(&self, known: &Known) -> Conditional {
        // In standard deviations of the training rides.
        let mut mean = [0.0; FEATURE_COUNT];
        let mut covariance = self.correlation;
        for (j, value) in known.features.iter().enumerate() {
            if let Some(value) = value.filter(|_| self.std_dev[j] > 0.0) {
                let mut weights = [0.0; FEATURE_COUNT];
                weights[j] = 1.0;
                observe(&mut mean, &mut covariance, &weights, (value - self.mean[j]) / self.std_dev[j]);
            }
        }
        if let (Some((tmin, tmax)), Some(tavg)) = (self.temperatures(known), known.tavg) {
            let scale = (self.std_dev[tmin] + self.std_dev[tmax]) / 2.0;
            if scale > 0.0 {
                let mut weights = [0.0; FEATURE_COUNT];
                (weights[tmin], weights[tmax]) = (self.std_dev[tmin] / 2.0 / scale, self.std_dev[tmax] / 2.0 / scale);
                let deviation = tavg - self.mean[tmin] / 2.0 - self.mean[tmax] / 2.0;
                observe(&mut mean, &mut covariance, &weights, deviation / scale);
            }
        }
        let expectation = |j: usize| known.features[j].unwrap_or(self.mean[j] + mean[j] * self.std_dev[j]);
        Conditional { mean: std::array::from_fn(expectation), std_dev: self.std_dev, covariance }
    }

    /// Returns the places of the temperatures if the model uses both and both are missing.
    fn temperatures(&self, known: &Known) -> Option<(usize, usize)> {
        let [tmin, tmax, _] = *PLACES;
        let is_missing = |place: &usize| self.used[*place] && known.features[*place].is_none();
        tmin.filter(is_missing).zip(tmax.filter(is_missing))
    }
}

fn uncorrelated() -> [Features; FEATURE_COUNT] {
    std::array::from_fn(|j| std::array::from_fn(|k| if j == k { 1.0 } else { 0.0 }))
}

/// Conditions a standardised distribution on `weights · x = value`.
fn observe(mean: &mut Features, covariance: &mut [Features; FEATURE_COUNT], weights: &Features, value: f64) {
    let dot = |a: &Features, b: &Features| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let with_value = covariance.map(|row| dot(&row, weights));
    let variance = dot(&with_value, weights);
    if variance <= NEW_VARIANCE_MIN * dot(weights, weights) {
        return;
    }
    let error = value.clamp(-DEVIATION_MAX, DEVIATION_MAX) - dot(mean, weights);
    for j in 0..FEATURE_COUNT {
        let gain = with_value[j] / variance;
        mean[j] += gain * error;
        for k in 0..FEATURE_COUNT {
            covariance[j][k] -= gain * with_value[k];
        }
    }
}

impl Conditional {
    /// Returns the variance of `Σ weights · x`. If the weights are the coefficients per unit of each feature, this is the variance of
    /// the log-odds. Never negative, never NaN.
    pub fn variance(&self, weights: &Features) -> f64 {
        let scaled: Features = std::array::from_fn(|j| weights[j] * self.std_dev[j]);
        let terms = scaled.iter().zip(&self.covariance).map(|(scaled_j, row)| {
            let row = row.iter().zip(&scaled).filter(|(covariance, _)| **covariance != 0.0);
            if *scaled_j == 0.0 {
                0.0
            } else {
                scaled_j * row.map(|(covariance, scaled)| covariance * scaled).sum::<f64>()
            }
        });
        // `max` also replaces NaN.
        terms.sum::<f64>().max(0.0)
    }

    fn is_finite(&self) -> bool {
        self.mean.iter().chain(self.covariance.iter().flatten()).all(|value| value.is_finite())
    }

    /// Moves the expectations of missing features to the nearest possible values.
    fn make_possible(&mut self, used: &[bool; FEATURE_COUNT], known: &Known) {
        let [tmin, tmax, prcp] = *PLACES;
        let is_missing = |place: usize| used[place] && known.features[place].is_none();
        for place in (0..FEATURE_COUNT).filter(|place| is_missing(*place)) {
            let (low, high) = if Some(place) == prcp {
                PRECIPITATION_TENTHS.into_inner()
            } else if FEATURES[place].weather {
                TEMPERATURE_TENTHS.into_inner()
            } else {
                FEATURES[place].scored
            };
            self.mean[place] = self.mean[place].clamp(low, high);
        }
        let (Some(tmin), Some(tmax)) = (tmin.filter(|place| used[*place]), tmax.filter(|place| used[*place])) else {
            return;
        };
        let (low, high) = (self.mean[tmin], self.mean[tmax]);
        match (is_missing(tmin), is_missing(tmax), known.tavg) {
            (true, true, Some(tavg)) => {
                let half = ((high - low) / 2.0).clamp(0.0, room(tavg, &TEMPERATURE_TENTHS));
                (self.mean[tmin], self.mean[tmax]) = (tavg - half, tavg + half);
            }
            (true, true, None) if low > high => {
                let middle = low + (high - low) / 2.0;
                (self.mean[tmin], self.mean[tmax]) = (middle, middle);
            }
            (true, false, _) => self.mean[tmin] = low.min(high),
            (false, true, _) => self.mean[tmax] = high.max(low),
            _ => {}
        }
    }
}

/// Returns the distance of a value to the nearer end of a range; 0 outside.
fn room(value: f64, range: &RangeInclusive<f64>) -> f64 {
    (value - range.start()).min(range.end() - value).max(0.0)
}

/// A probability whose log-odds are uncertain: normal, with this mean and standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uncertain {
    /// Expectation of the log-odds.
    pub log_odds: f64,
    /// Standard deviation of the log-odds, not negative.
    pub std_dev: f64,
}

impl Uncertain {
    /// Returns the expectation of the probability, 0 to 1; NaN only if the log-odds are.
    ///
    /// Uses the trapezoidal rule over 61 nodes, which needs no table. For such functions its error falls exponentially with the number
    /// of nodes: it is below 1e-6 for standard deviations of the log-odds up to 5, and below 1e-3 up to 10.
    pub fn probability(self) -> f64 {
        let Self { log_odds, std_dev } = self;
        if std_dev == 0.0 {
            return logistic(log_odds);
        }
        let [middle, sides @ ..] = &*NODE_WEIGHTS;
        let pairs = (1u8..).zip(sides).map(|(node, weight)| {
            let off = f64::from(node) * NODE_STEP * std_dev;
            weight * (logistic(log_odds - off) + logistic(log_odds + off))
        });
        let sum = middle * logistic(log_odds) + pairs.sum::<f64>();
        sum.clamp(0.0, 1.0)
    }

    /// Returns the ends of the interval that contains the probability in 90 % of cases, with 5 % on each side. If the log-odds are
    /// extreme and very uncertain, the expectation of the probability may lie outside; then the interval is extended to contain it.
    pub fn interval(self) -> (f64, f64) {
        let off = NORMAL_95 * self.std_dev;
        let probability = self.probability();
        (logistic(self.log_odds - off).min(probability), logistic(self.log_odds + off).max(probability))
    }
}

#[cfg(test)]
mod tests;
