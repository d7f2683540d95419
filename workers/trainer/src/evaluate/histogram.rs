//! Distributions of the features and of the predicted probabilities of the rides trained on: for charts, and to detect drift.

use crate::{
    data::rows::Rides,
    fit::{Features, Fit, over_blocks},
};
use common::{
    features::FEATURE_COUNT,
    model::{Histogram, logistic},
};

/// Maximum number of bins of a feature. Each holds a tenth of the rides; there are fewer if many rides have the same value.
pub const BINS: usize = 10;
/// Number of bins for probabilities, all of the same width.
pub const PROBABILITY_BINS: usize = 20;
/// Maximum number of rides, evenly spread over all, that determine the edges.
const SAMPLE_MAX: usize = 100_000;

/// Returns the histogram of every feature, and the number of rides in each of [`PROBABILITY_BINS`].
pub fn histograms(rides: &Rides, fit: &Fit) -> ([Histogram; FEATURE_COUNT], Vec<u64>) {
    let edges = edges(rides);
    #[derive(Clone, Copy, Default)]
    struct Bin {
        rides: u64,
        services: u64,
        values: f64,
        probabilities: f64,
    }
    let blocks = over_blocks(rides, |features, service| {
        let mut bins: [Vec<Bin>; FEATURE_COUNT] = std::array::from_fn(|j| vec![Bin::default(); edges[j].len() + 1]);
        let mut predicted = vec![0u64; PROBABILITY_BINS];
        for (row, service) in features.iter().zip(service) {
            let probability = logistic(fit.log_odds(row));
            predicted[probability_bin(probability)] += 1;
            for j in 0..FEATURE_COUNT {
                let bin = &mut bins[j][edges[j].partition_point(|edge| *edge <= row[j])];
                bin.rides += 1;
                bin.services += u64::from(*service);
                bin.values += row[j];
                bin.probabilities += probability;
            }
        }
        (bins, predicted)
    });
    let mut all: [Vec<Bin>; FEATURE_COUNT] = std::array::from_fn(|j| vec![Bin::default(); edges[j].len() + 1]);
    let mut predicted = vec![0u64; PROBABILITY_BINS];
    for (bins, block) in blocks {
        for (sum, part) in all.iter_mut().flatten().zip(bins.iter().flatten()) {
            sum.rides += part.rides;
            sum.services += part.services;
            sum.values += part.values;
            sum.probabilities += part.probabilities;
        }
        for (sum, part) in predicted.iter_mut().zip(block) {
            *sum += part;
        }
    }
    let mean = |sum: f64, rides: u64| if rides == 0 { 0.0 } else { sum / rides as f64 };
    let histograms = std::array::from_fn(|j| Histogram {
        edges: edges[j].clone(),
        rides: all[j].iter().map(|bin| bin.rides).collect(),
        services: all[j].iter().map(|bin| bin.services).collect(),
        mean: all[j].iter().map(|bin| mean(bin.values, bin.rides)).collect(),
        mean_probability: all[j].iter().map(|bin| mean(bin.probabilities, bin.rides)).collect(),
    });
    (histograms, predicted)
}

/// Index of the probability bin.
fn probability_bin(probability: f64) -> usize {
    ((probability * PROBABILITY_BINS as f64) as usize).min(PROBABILITY_BINS - 1)
}

/// Returns the quantiles of each feature, without duplicates and without the smallest value, below which there are no rides.
fn edges(rides: &Rides) -> [Vec<f64>; FEATURE_COUNT] {
    let stride = rides.len().div_ceil(SAMPLE_MAX).max(1);
    std::array::from_fn(|j| {
        let column = |row: &Features| row[j];
        let mut values: Vec<f64> = rides.features.iter().step_by(stride).map(column).collect();
        values.sort_unstable_by(f64::total_cmp);
        let Some(smallest) = values.first().copied() else { return Vec::new() };
        let quantile = |part: usize| values[part * values.len() / BINS];
        let mut edges: Vec<f64> = (1..BINS).map(quantile).filter(|edge| *edge > smallest).collect();
        // If most rides have the smallest value, one edge separates the others from it.
        if let Some(next) = values.iter().copied().find(|value| *value > smallest)
            && edges.len() < BINS - 1
        {
            edges.insert(0, next);
        }
        edges.dedup();
        edges
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::rows::NO_BREED,
        fit::{Cancel, Recipe, fit, padded},
    };

    /// Each histogram counts every ride once, its means are those of the rides, and a frequent smallest value has a bin of its own.
    #[test]
    fn histograms_account_for_every_ride() {
        let mut rides = Rides::default();
        for i in 0..3_000u32 {
            let x = f64::from(i % 97);
            let rain = if i % 10 < 8 { 0.0 } else { f64::from(i % 10) };
            let row = padded(&[x, 1.0, f64::from(i), -x, x * 0.5 + f64::from(i % 3), rain]);
            rides.push(row, (i * 7919) % 5 < 2, 0, NO_BREED);
        }
        let cancel = Cancel::default();
        let recipe = Recipe { alpha: 1.0, used: [true; FEATURE_COUNT], prior_mean: None, start: None, cancel: &cancel };
        let fit = fit(&rides, &recipe).unwrap();
        let (histograms, predicted) = histograms(&rides, &fit);
        assert_eq!(predicted.iter().sum::<u64>(), 3_000);
        for (j, histogram) in histograms.iter().enumerate() {
            assert!(histogram.edges.is_sorted_by(|a, b| a < b) && histogram.edges.len() < BINS, "{histogram:?}");
            assert_eq!(histogram.rides.len(), histogram.edges.len() + 1);
            assert_eq!(histogram.rides.iter().sum::<u64>(), 3_000);
            assert!(histogram.rides.iter().all(|rides| *rides > 0), "{histogram:?}");
            for bin in 0..histogram.rides.len() {
                let inside = || (0..3_000).filter(|i| histogram.bin(rides.features[*i][j]) == bin);
                let n = inside().count() as f64;
                assert_eq!(n as u64, histogram.rides[bin]);
                let mean = inside().map(|i| rides.features[i][j]).sum::<f64>() / n;
                let p = inside().map(|i| logistic(fit.log_odds(&rides.features[i]))).sum::<f64>() / n;
                assert!(
                    (mean - histogram.mean[bin]).abs() < 1e-9 && (p - histogram.mean_probability[bin]).abs() < 1e-12
                );
                assert_eq!(inside().filter(|i| rides.service[*i]).count() as u64, histogram.services[bin]);
            }
        }
        assert_eq!((histograms[1].edges.len(), histograms[5].edges[0], histograms[5].rides[0]), (0, 8.0, 2_400));
    }
}
