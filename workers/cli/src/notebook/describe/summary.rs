//! Summary statistics of rides, in one pass and bounded memory.

use crate::notebook::dataset::Rows;
use records::datasets::{
    COLUMNS, Column,
    columns::{BREED, GROUNDSTATION, NAME},
};
use std::collections::{BTreeMap, HashMap};

/// Number of rides up to which quantiles are exact. Beyond, they are those of every second ride, then of every fourth, and so
/// on: a sample of at least half this size.
pub(super) const SAMPLE_RIDES_MAX: usize = 500_000;
/// Quantiles of each column.
pub(super) const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];
/// Maximum number of values of a text column that are counted separately; further values are counted together.
const DISTINCT_MAX: usize = 100_000;

/// Indices of the numeric columns of a dataset file, in order.
const NUMERIC: [usize; 10] = [4, 5, 6, 7, 8, 9, 11, 12, 13, 14];
/// Number of numeric columns.
pub(super) const NUMBERS: usize = NUMERIC.len();

/// Index of tmax among the numeric columns.
const TMAX: usize = 8;
/// Index of prcp among the numeric columns.
const PRCP: usize = 9;

/// Returns the numeric columns, in order.
pub(super) fn numbers() -> impl Iterator<Item = &'static Column> {
    NUMERIC.iter().map(|&column| &COLUMNS[column])
}

/// One value per numeric column; NaN if missing.
type Row = [f64; NUMBERS];

/// Statistics of the rides added so far.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) rides: Group,
    pub(super) with_weather: u64,
    pub(super) trainable: u64,
    /// Earliest and latest time, milliseconds since 1970, UTC.
    pub(super) times: Option<(i64, i64)>,
    /// Rides by batch, in the order of the batches.
    pub(super) batches: Vec<(String, u64)>,
    pub(super) breeds: Counter,
    pub(super) stations: Counter,
    pub(super) without_name: u64,
    /// By the set of columns that are present, one bit each.
    moments: BTreeMap<u16, Box<Moments>>,
    extremes: [Option<(f64, f64)>; NUMBERS],
    sample: Sample,
    pub(super) rates: [Vec<Group>; RATES.len()],
}

/// Counts of rides and labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) rides: u64,
    pub(super) labelled: u64,
    pub(super) service: u64,
}

/// Statistics of one column; `None` if there are too few values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ColumnSummary {
    pub(super) count: u64,
    pub(super) missing: u64,
    pub(super) mean: Option<f64>,
    /// Sample standard deviation, with n − 1 in the denominator.
    pub(super) sd: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) quantiles: [Option<f64>; QUANTILES.len()],
    pub(super) max: Option<f64>,
}

/// Service rates by the value of a column.
pub(super) struct Rate {
    /// Index into the numeric columns.
    pub(super) column: usize,
    /// Lower edges of all bins but the first, in the column's unit.
    pub(super) edges: &'static [f64],
    /// Labels of the bins; one more than edges.
    pub(super) bins: &'static [&'static str],
}

/// Service rates by highest temperature and by precipitation.
pub(super) const RATES: [Rate; 2] = [
    Rate {
        column: TMAX,
        edges: &[0.0, 100.0, 200.0, 300.0],
        bins: &["below 0 °C", "0 to 10 °C", "10 to 20 °C", "20 to 30 °C", "from 30 °C"],
    },
    Rate { column: PRCP, edges: &[1.0, 50.0, 200.0], bins: &["none", "up to 5 mm", "5 to 20 mm", "from 20 mm"] },
];

impl Summary {
    /// Adds the rows `kept` of a batch.
    pub(super) fn add(&mut self, batch_id: &str, rows: &Rows, kept: &[usize]) {
        match self.batches.last_mut() {
            Some((batch, rides)) if batch == batch_id => *rides += kept.len() as u64,
            _ => self.batches.push((batch_id.to_owned(), kept.len() as u64)),
        }
        for &row in kept {
            let label = rows.label(row);
            self.rides.add(label);
            self.with_weather += u64::from(rows.has_weather(row));
            self.trainable += u64::from(rows.is_trainable(row));
            self.without_name += u64::from(rows.field(row, NAME).is_empty());
            self.breeds.add(rows.field(row, BREED), label);
            self.stations.add(rows.field(row, GROUNDSTATION), label);
            let time = rows.times[row];
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
            self.add_numbers(NUMERIC.map(|column| rows.numbers[column][row]), label);
        }
    }

    fn add_numbers(&mut self, row: Row, label: Option<bool>) {
        let mut present = 0_u16;
        for (column, (value, extremes)) in row.iter().zip(&mut self.extremes).enumerate() {
            if !value.is_nan() {
                present |= 1 << column;
                let (min, max) = extremes.unwrap_or((*value, *value));
                *extremes = Some((min.min(*value), max.max(*value)));
            }
        }
        self.moments.entry(present).or_default().add(&row);
        self.sample.add(&row);
        for (rate, bins) in RATES.iter().zip(&mut self.rates) {
            bins.resize(rate.bins.len(), Group::default());
            let value = row[rate.column];
            let bin = rate.edges.iter().filter(|edge| value >= **edge).count();
            if !value.is_nan() {
                bins[bin].add(label);
            }
        }
    }

    /// Returns the statistics of every column.
    pub(super) fn columns(&self) -> [ColumnSummary; NUMBERS] {
        std::array::from_fn(|column| {
            let pair = self.pair(column, column);
            let n = pair.n as f64;
            ColumnSummary {
                count: pair.n,
                missing: self.rides.rides - pair.n,
                mean: (pair.n > 0).then_some(pair.mean.0),
                sd: (pair.n > 1).then(|| (pair.xx / (n - 1.0)).sqrt()),
                min: self.extremes[column].map(|(min, _)| min),
                quantiles: self.sample.quantiles(column),
                max: self.extremes[column].map(|(_, max)| max),
            }
        })
    }

    /// Returns Pearson's correlation of two columns over the rides that have both; `None` if one of them does not vary.
    pub(super) fn correlation(&self, x: usize, y: usize) -> Option<f64> {
        let Pair { xx, yy, xy, .. } = self.pair(x, y);
        (xx > 0.0 && yy > 0.0).then(|| (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0))
    }

    /// Returns the number of rides behind the quantiles.
    pub(super) fn sampled(&self) -> u64 {
        self.sample.columns[0].len() as u64
    }

    /// Combines the moments of the rides that have both columns, whatever other columns they lack.
    fn pair(&self, x: usize, y: usize) -> Pair {
        let both = 1 << x | 1 << y;
        let with_both = self.moments.iter().filter(|(present, _)| *present & both == both);
        with_both.map(|(_, moments)| moments.pair(x, y)).fold(Pair::default(), Pair::and)
    }
}

impl Group {
    fn add(&mut self, label: Option<bool>) {
        self.rides += 1;
        self.labelled += u64::from(label.is_some());
        self.service += u64::from(label == Some(true));
    }

    /// Returns the share of labelled rides that ended in a service request.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.labelled > 0).then(|| self.service as f64 / self.labelled as f64)
    }

    /// Returns Wilson's 95 % interval of that share.
    pub(super) fn interval(&self) -> Option<(f64, f64)> {
        const Z: f64 = 1.959_963_984_540_054;
        let (rate, n) = (self.rate()?, self.labelled as f64);
        let midpoint = rate + Z * Z / (2.0 * n);
        let half = Z * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        Some((((midpoint - half) / scale).max(0.0), ((midpoint + half) / scale).min(1.0)))
    }
}

/// Means and co-moments of rides that lack the same columns, whose values count as 0 and are never read. Uses Welford's
/// recurrence, which is numerically stable for numbers of any size.
#[derive(Debug, Default)]
struct Moments {
    n: u64,
    mean: Row,
    /// Σ (x − mean x)(y − mean y), for y up to x.
    co: [Row; NUMBERS],
}

/// Moments of two columns.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    n: u64,
    mean: (f64, f64),
    xx: f64,
    yy: f64,
    xy: f64,
}

impl Moments {
    fn add(&mut self, row: &Row) {
        self.n += 1;
        let n = self.n as f64;
        let row = row.map(|value| if value.is_nan() { 0.0 } else { value });
        let before: Row = std::array::from_fn(|column| row[column] - self.mean[column]);
        for (mean, before) in self.mean.iter_mut().zip(before) {
            *mean += before / n;
        }
        let after: Row = std::array::from_fn(|column| row[column] - self.mean[column]);
        for (x, co) in self.co.iter_mut().enumerate() {
            for (co, after) in co.iter_mut().zip(after).take(x + 1) {
                *co += before[x] * after;
            }
        }
    }

    fn pair(&self, x: usize, y: usize) -> Pair {
        let (mean, co) = (&self.mean, &self.co);
        Pair { n: self.n, mean: (mean[x], mean[y]), xx: co[x][x], yy: co[y][y], xy: co[x.max(y)][x.min(y)] }
    }
}

impl Pair {
    /// Combines the moments of two sets of rides.
    fn and(self, other: Self) -> Self {
        let n = self.n + other.n;
        if n == 0 {
            return Self::default();
        }
        let (a, b) = (self.n as f64, other.n as f64);
        let (dx, dy) = (other.mean.0 - self.mean.0, other.mean.1 - self.mean.1);
        let (share, weight) = (b / (a + b), a * b / (a + b));
        Self {
            n,
            mean: (self.mean.0 + dx * share, self.mean.1 + dy * share),
            xx: self.xx + other.xx + dx * dx * weight,
            yy: self.yy + other.yy + dy * dy * weight,
            xy: self.xy + other.xy + dx * dy * weight,
        }
    }
}

/// Every ride, or every 2nd, 4th, 8th and so on, so that there are at most `max`.
#[derive(Debug)]
struct Sample {
    max: usize,
    every: u64,
    seen: u64,
    columns: [Vec<f64>; NUMBERS],
}

impl Default for Sample {
    fn default() -> Self {
        Self::of(SAMPLE_RIDES_MAX)
    }
}

impl Sample {
    /// `max` must be even.
    fn of(max: usize) -> Self {
        Self { max, every: 1, seen: 0, columns: Default::default() }
    }

    fn add(&mut self, row: &Row) {
        let at = self.seen;
        self.seen += 1;
        if !at.is_multiple_of(self.every) {
            return;
        }
        if self.columns[0].len() == self.max {
            for column in &mut self.columns {
                let mut place = 0;
                column.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
            }
            self.every *= 2;
        }
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(*value);
        }
    }

    /// Returns quantiles by linear interpolation (type 7 of Hyndman and Fan, 1996).
    fn quantiles(&self, column: usize) -> [Option<f64>; QUANTILES.len()] {
        let mut values: Vec<f64> = self.columns[column].iter().copied().filter(|value| !value.is_nan()).collect();
        values.sort_unstable_by(f64::total_cmp);
        QUANTILES.map(|share| {
            let at = share * values.len().checked_sub(1)? as f64;
            let low = *values.get(at.floor() as usize)?;
            let high = *values.get(at.ceil() as usize)?;
            Some(low + (high - low) * at.fract())
        })
    }
}

/// Counts of rides by the value of a text column.
#[derive(Debug, Default)]
pub(super) struct Counter {
    values: HashMap<String, Group>,
    pub(super) missing: Group,
    /// Rides of further values, once there are [`DISTINCT_MAX`].
    pub(super) uncounted: Group,
}

impl Counter {
    fn add(&mut self, value: &[u8], label: Option<bool>) {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let is_full = self.values.len() >= DISTINCT_MAX;
        if text.is_empty() {
            self.missing.add(label);
        } else if let Some(group) = self.values.get_mut(text) {
            group.add(label);
        } else if is_full {
            self.uncounted.add(label);
        } else {
            self.values.entry(text.to_owned()).or_default().add(label);
        }
    }

    /// Returns the number of distinct values.
    pub(super) fn distinct(&self) -> usize {
        self.values.len()
    }

    /// Returns the most frequent values, the most frequent first.
    pub(super) fn largest(&self, count: usize) -> Vec<(&str, Group)> {
        let mut all: Vec<_> = self.values.iter().map(|(value, group)| (value.as_str(), *group)).collect();
        all.sort_unstable_by_key(|(value, group)| (std::cmp::Reverse(group.rides), *value));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use records::datasets::Kind;

    fn of(rows: &[Row]) -> Summary {
        let mut summary = Summary::default();
        for row in rows {
            summary.rides.rides += 1;
            summary.add_numbers(*row, None);
        }
        summary
    }

    fn close(a: Option<f64>, b: Option<f64>, scale: f64) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * scale.max(1.0),
            (a, b) => a == b,
        }
    }

    /// Computes the statistics of a column directly from all values.
    fn naive(values: &[f64]) -> ColumnSummary {
        let mut present: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        present.sort_by(f64::total_cmp);
        let n = present.len() as f64;
        let mean = present.iter().sum::<f64>() / n;
        let squares = present.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let some = !present.is_empty();
        ColumnSummary {
            count: present.len() as u64,
            missing: (values.len() - present.len()) as u64,
            mean: some.then_some(mean),
            sd: (present.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
            min: present.first().copied(),
            quantiles: QUANTILES.map(|share| {
                let at = share * (n - 1.0);
                let (low, high) = (present.get(at as usize)?, present.get((at as usize + 1).min(present.len() - 1))?);
                Some(low * (1.0 - at.fract()) + high * at.fract())
            }),
            max: present.last().copied(),
        }
    }

    fn naive_correlation(x: &[f64], y: &[f64]) -> Option<f64> {
        let both: Vec<_> = x.iter().zip(y).filter(|(x, y)| !x.is_nan() && !y.is_nan()).collect();
        let n = both.len() as f64;
        let mean_x = both.iter().map(|(x, _)| **x).sum::<f64>() / n;
        let mean_y = both.iter().map(|(_, y)| **y).sum::<f64>() / n;
        let sum = |of: &dyn Fn(f64, f64) -> f64| both.iter().map(|(x, y)| of(**x - mean_x, **y - mean_y)).sum::<f64>();
        let (xx, yy, xy) = (sum(&|x, _| x * x), sum(&|_, y| y * y), sum(&|x, y| x * y));
        (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![1 => Just(f64::NAN), 4 => (-1000_i32..1000).prop_map(f64::from), 4 => 990_000.0..1_000_000.0]
    }

    proptest! {
        #[test]
        fn moments_quantiles_and_correlations_equal_direct_computations(
            rows in proptest::collection::vec(proptest::array::uniform10(value()), 0..60)
        ) {
            let summary = of(&rows);
            let columns: Vec<Vec<f64>> = (0..NUMBERS).map(|column| rows.iter().map(|row| row[column]).collect()).collect();
            for (column, found) in summary.columns().into_iter().enumerate() {
                let expected = naive(&columns[column]);
                prop_assert_eq!((found.count, found.missing), (expected.count, expected.missing));
                prop_assert_eq!((found.min, found.max), (expected.min, expected.max));
                prop_assert!(close(found.mean, expected.mean, 1e6), "{:?} {:?}", found, expected);
                prop_assert!(close(found.sd, expected.sd, 1e6), "{:?} {:?}", found, expected);
                for (found, expected) in found.quantiles.into_iter().zip(expected.quantiles) {
                    prop_assert!(close(found, expected, 1e6), "{:?} {:?}", found, expected);
                }
                for other in 0..NUMBERS {
                    let (found, expected) =
                        (summary.correlation(column, other), naive_correlation(&columns[column], &columns[other]));
                    // If the values of a column are equal and large, rounding decides whether it varies at all.
                    if let (Some(found), Some(expected)) = (found, expected) {
                        prop_assert!((found - expected).abs() < 1e-6, "{} {}", found, expected);
                    }
                }
            }
        }

        #[test]
        fn sample_is_evenly_spread_and_bounded(rides in 1_u64..2_000, half in 1_usize..40) {
            let mut sample = Sample::of(2 * half);
            for ride in 0..rides {
                sample.add(&[ride as f64; NUMBERS]);
            }
            let sampled = &sample.columns[0];
            prop_assert!(sampled.len() <= 2 * half && sampled.len() as u64 >= rides.min(half as u64));
            let expected: Vec<f64> = (0..rides).step_by(sample.every as usize).map(|ride| ride as f64).collect();
            prop_assert_eq!(sampled, &expected);
        }
    }

    #[test]
    fn every_numeric_column_is_summarised() {
        let names: Vec<_> = numbers().map(|column| column.name).collect();
        let numeric =
            COLUMNS.iter().filter(|column| !matches!(column.kind, Kind::Text | Kind::Time)).map(|column| column.name);
        assert_eq!(names, numeric.collect::<Vec<_>>());
        assert_eq!((names[TMAX], names[PRCP]), ("tmax", "prcp"));
    }

    #[test]
    fn small_spread_around_a_large_number_is_exact() {
        let rows: Vec<Row> = (0..1_000).map(|i| [1e9 + f64::from(i % 2); NUMBERS]).collect();
        let column = of(&rows).columns()[0];
        assert!((column.sd.unwrap() - 0.5002501876563868).abs() < 1e-9, "{column:?}");
    }

    #[test]
    fn service_rates_are_computed_per_bin_with_wilsons_interval() {
        let mut summary = Summary::default();
        for (tmax, label) in [(-1.0, Some(true)), (0.0, Some(false)), (99.0, None), (300.0, Some(true))] {
            let mut row = [f64::NAN; NUMBERS];
            row[TMAX] = tmax;
            summary.add_numbers(row, label);
        }
        let [temperature, rain] = &summary.rates;
        let counted: Vec<_> = temperature.iter().map(|bin| (bin.rides, bin.labelled, bin.service)).collect();
        assert_eq!(counted, [(1, 1, 1), (2, 1, 0), (0, 0, 0), (0, 0, 0), (1, 1, 1)]);
        assert!(rain.iter().all(|bin| bin.rides == 0));
        // Wilson, 1927, for 10 of 100.
        let (low, high) = Group { rides: 100, labelled: 100, service: 10 }.interval().unwrap();
        assert!((low - 0.0552).abs() < 5e-5 && (high - 0.1744).abs() < 5e-5, "{low} {high}");
        assert_eq!(Group::default().interval(), None);
        for rate in &RATES {
            assert_eq!(rate.bins.len(), rate.edges.len() + 1);
        }
    }

    #[test]
    fn most_frequent_values_come_first_and_the_number_of_values_is_bounded() {
        let mut counter = Counter::default();
        for value in ["b", "a", "", "b", "a", "c"] {
            counter.add(value.as_bytes(), Some(value == "a"));
        }
        let largest: Vec<_> = counter.largest(2).into_iter().map(|(value, group)| (value, group.service)).collect();
        assert_eq!(largest, [("a", 2), ("b", 0)]);
        assert_eq!((counter.missing.rides, counter.distinct()), (1, 3));
        for value in 0..DISTINCT_MAX {
            counter.add(value.to_string().as_bytes(), None);
        }
        assert_eq!((counter.distinct(), counter.uncounted.rides), (DISTINCT_MAX, 3));
    }
}
