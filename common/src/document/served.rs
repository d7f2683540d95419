//! Serving statistics: counts and histograms of scored rides, and their drift from the training rides.
//!
//! ```text
//! served/<model>/<id>/<date>/<scorer>.json   counts of one process and day          [`Served`], `served.v1`
//! scored/<model>/<id>/<date>/<scorer>.csv    ids and probabilities of scored rides  [`write_scored`], [`read_scored`]
//! ```
//!
//! The size of a snapshot depends on the model alone, never on the number of requests. The snapshots of several
//! processes and days are summed ([`Tally::add`]) and compared with the artefact ([`drift`]).

use crate::document::model::{Histogram, Model};
use serde::{Deserialize, Serialize};

/// Number of bins of 0 to 1 for probabilities, if the artefact has no [`Model::predicted`].
pub const PROBABILITY_BINS: usize = 20;
/// Number of bins of -1 to 1 for differences between challenger and champion.
pub const DIFFERENCE_BINS: usize = 20;
/// Maximum number of challengers counted beside one champion; the newest stay.
pub const SHADOWS_MAX: usize = 4;
/// Upper ends of the bins for load times of breed models, in milliseconds; a last bin counts longer ones.
pub const LOAD_MS: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 250.0, 1_000.0];

/// Serving statistics of one scorer process, one model version and one day (UTC).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Name of its schema.
    pub schema: String,
    /// Model family, for example `service-request`.
    pub model: String,
    /// Id of the model version, 16 hex digits.
    pub model_id: String,
    /// The day, `YYYY-MM-DD` in UTC.
    pub date: String,
    /// Name of the scorer process, chosen by itself.
    pub scorer: String,
    /// The counts.
    pub tally: Tally,
}

/// Counts of rides for one model version. A breed model counts the rides that it scored. A global model counts every
/// ride scored while it was the champion, including those that its breed models scored. Decisions are counted as
/// returned; features and probabilities are counted as this version computes them, so that they can be compared with
/// its training rides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Number of scored rides.
    pub rides: u64,
    /// Number of these rides with the decision service.
    pub service: u64,
    /// Number of these rides of which features were assumed.
    #[serde(default)]
    pub imputed: u64,
    /// Number of rides by value, for each feature that has a histogram in the artefact. Excludes assumed values, and rides
    /// that this version cannot score.
    pub features: Vec<FeatureTally>,
    /// Number of the same rides by the probability of this version, whichever model produced the answer: equal bins of
    /// 0 to 1, as many as [`Model::predicted`] has; the last bin includes 1.
    pub probabilities: Vec<u64>,
    /// Rides that named a breed but were scored by the global model; counted by global models only.
    pub fallbacks: Fallbacks,
    /// Number of rides that breed models scored but did not count, because too many versions were in use at a time;
    /// counted by global models only.
    #[serde(default)]
    pub uncounted: u64,
    /// Challengers that scored the same rides in shadow, oldest first; counted by global models only.
    pub shadows: Vec<Shadow>,
    /// Use of the cache of breed models; counted by global models only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breeds: Option<BreedCache>,
}

/// Distribution of one feature over the scored rides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureTally {
    /// Name of the feature.
    pub feature: String,
    /// Number of rides by bin of the artefact's histogram.
    pub rides: Vec<u64>,
}

/// Number of rides by the reason why no breed model scored them; see [`crate::message::Fallback`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallbacks {
    /// The breed has no model beside the champion.
    pub no_breed_model: u64,
    /// The breed model was still being loaded.
    pub loading: u64,
    /// The breed model could not be read or served.
    pub unavailable: u64,
}

/// Shadow scores of a challenger, compared with the returned scores of the champion and its breed models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Id of the challenger, 16 hex digits.
    pub model_id: String,
    /// Number of scored rides that the challenger scored as well.
    pub rides: u64,
    /// Number of scored rides that the challenger cannot score.
    pub unscored: u64,
    /// Sum of the differences: the challenger's probability minus the returned one.
    pub difference_sum: f64,
    /// Sum of the absolute differences.
    pub absolute_sum: f64,
    /// Largest absolute difference, 0 to 1.
    pub largest: f64,
    /// Number of rides for which the challenger's decision differs.
    pub decisions: u64,
    /// Number of rides by difference: equal bins of -1 to 1; the last bin includes 1.
    pub differences: Vec<u64>,
}

/// Use of the in-memory cache of breed models.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BreedCache {
    /// Number of lookups that the cache answered, one per breed of a request; includes breeds known to have no model.
    pub hits: u64,
    /// Number of lookups that the cache could not answer.
    pub misses: u64,
    /// Number of loads from the store after a miss.
    pub loads: u64,
    /// Number of breeds evicted to make room for others.
    pub evictions: u64,
    /// Total time of the loads in milliseconds.
    pub load_ms_sum: f64,
    /// Time of the longest load in milliseconds.
    pub load_ms_max: f64,
    /// Number of loads by time: one bin for each of [`LOAD_MS`], and one for longer loads.
    pub loads_by_ms: Vec<u64>,
}

/// Returns the bin of `value` among `bins` equal ones from `from` to `to`. A value outside belongs to the first or the
/// last bin.
pub fn bin_of(value: f64, from: f64, to: f64, bins: usize) -> usize {
    let scaled = (value - from) / (to - from) * bins as f64;
    // The cast saturates: negative values and NaN become 0.
    (scaled as usize).min(bins.saturating_sub(1))
}

/// Adds `from` to `into` element by element; `into` grows to the longer length.
fn add_all(into: &mut Vec<u64>, from: &[u64]) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    for (into, from) in into.iter_mut().zip(from) {
        *into = into.saturating_add(*from);
    }
}

impl Tally {
    /// Adds the counts of another process or day for the same version.
    pub fn add(&mut self, other: &Self) {
        self.rides = self.rides.saturating_add(other.rides);
        self.service = self.service.saturating_add(other.service);
        self.imputed = self.imputed.saturating_add(other.imputed);
        self.uncounted = self.uncounted.saturating_add(other.uncounted);
        for from in &other.features {
            match self.features.iter_mut().find(|into| into.feature == from.feature) {
                Some(into) => add_all(&mut into.rides, &from.rides),
                None => self.features.push(from.clone()),
            }
        }
        add_all(&mut self.probabilities, &other.probabilities);
        let (into, from) = (&mut self.fallbacks, &other.fallbacks);
        into.no_breed_model = into.no_breed_model.saturating_add(from.no_breed_model);
        into.loading = into.loading.saturating_add(from.loading);
        into.unavailable = into.unavailable.saturating_add(from.unavailable);
        for from in &other.shadows {
            self.shadow(&from.model_id).add(from);
        }
        if let Some(from) = &other.breeds {
            self.breeds.get_or_insert_default().add(from);
        }
    }

    /// Returns the counts of a challenger, new if it has none. Beyond [`SHADOWS_MAX`] the oldest challenger is dropped.
    pub fn shadow(&mut self, model_id: &str) -> &mut Shadow {
        let known = self.shadows.iter().position(|shadow| shadow.model_id == model_id);
        let index = known.unwrap_or_else(|| {
            if self.shadows.len() >= SHADOWS_MAX {
                self.shadows.remove(0);
            }
            self.shadows.push(Shadow::new(model_id));
            self.shadows.len() - 1
        });
        &mut self.shadows[index]
    }
}

impl Shadow {
    /// Returns empty counts.
    pub fn new(model_id: &str) -> Self {
        Self {
            model_id: model_id.to_owned(),
            rides: 0,
            unscored: 0,
            difference_sum: 0.0,
            absolute_sum: 0.0,
            largest: 0.0,
            decisions: 0,
            differences: vec![0; DIFFERENCE_BINS],
        }
    }

    /// Counts a ride that both models scored. `difference` is the challenger's probability minus the returned one;
    /// `other_decision` is whether the decisions differ.
    pub fn count(&mut self, difference: f64, other_decision: bool) {
        self.rides += 1;
        self.difference_sum += difference;
        self.absolute_sum += difference.abs();
        self.largest = self.largest.max(difference.abs());
        self.decisions += u64::from(other_decision);
        self.differences[bin_of(difference, -1.0, 1.0, DIFFERENCE_BINS)] += 1;
    }

    /// Adds the counts of another process or day for the same challenger and champion.
    pub fn add(&mut self, other: &Self) {
        self.rides = self.rides.saturating_add(other.rides);
        self.unscored = self.unscored.saturating_add(other.unscored);
        self.difference_sum += other.difference_sum;
        self.absolute_sum += other.absolute_sum;
        self.largest = self.largest.max(other.largest);
        self.decisions = self.decisions.saturating_add(other.decisions);
        add_all(&mut self.differences, &other.differences);
    }

    /// Returns the mean difference; `None` without rides.
    pub fn mean(&self) -> Option<f64> {
        (self.rides > 0).then(|| self.difference_sum / self.rides as f64)
    }

    /// Returns the mean absolute difference; `None` without rides.
    pub fn mean_absolute(&self) -> Option<f64> {
        (self.rides > 0).then(|| self.absolute_sum / self.rides as f64)
    }
}

impl BreedCache {
    /// Counts a load that took `took_ms` milliseconds.
    pub fn loaded(&mut self, took_ms: f64) {
        self.loads += 1;
        self.load_ms_sum += took_ms;
        self.load_ms_max = self.load_ms_max.max(took_ms);
        self.loads_by_ms.resize(LOAD_MS.len() + 1, 0);
        self.loads_by_ms[LOAD_MS.partition_point(|end| *end < took_ms)] += 1;
    }

    /// Adds the counts of another process.
    pub fn add(&mut self, other: &Self) {
        self.hits = self.hits.saturating_add(other.hits);
        self.misses = self.misses.saturating_add(other.misses);
        self.loads = self.loads.saturating_add(other.loads);
        self.evictions = self.evictions.saturating_add(other.evictions);
        self.load_ms_sum += other.load_ms_sum;
        self.load_ms_max = self.load_ms_max.max(other.load_ms_max);
        add_all(&mut self.loads_by_ms, &other.loads_by_ms);
    }

    /// Returns the share of lookups that the cache answered, 0 to 1; `None` without lookups.
    pub fn hit_rate(&self) -> Option<f64> {
        let lookups = self.hits.saturating_add(self.misses);
        (lookups > 0).then(|| self.hits as f64 / lookups as f64)
    }
}

/// Drift of the scored rides from the training rides of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// Number of scored rides.
    pub rides: u64,
    /// Shift of each feature, in the order of the model's coefficients.
    pub features: Vec<Shift>,
    /// Shift of the predicted probabilities; absent if the artefact has no [`Model::predicted`].
    pub probability: Option<Shift>,
}

/// Shift of one distribution against that of the training rides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shift {
    /// Name of the feature, or `probability`.
    pub of: String,
    /// Population stability index, see [`stability_index`]; absent if no ride was scored.
    pub psi: Option<f64>,
    /// 95th percentile of the index without any shift, for these numbers of rides.
    pub by_chance: Option<f64>,
    /// Number of training rides by bin.
    pub trained: Vec<u64>,
    /// Number of scored rides by bin.
    pub served: Vec<u64>,
    /// Edges between the bins, ascending; one less than bins.
    pub edges: Vec<f64>,
}

/// Customary interpretation of a population stability index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Below 0.1, or at most [`Shift::by_chance`].
    Stable,
    /// From 0.1: worth a look.
    Moderate,
    /// From 0.25: the scored rides differ from the training rides.
    Large,
}

impl Shift {
    fn new(of: &str, edges: Vec<f64>, trained: &[u64], served: Vec<u64>) -> Self {
        let (trained_rides, served_rides): (u64, u64) = (trained.iter().sum(), served.iter().sum());
        // A bin that is empty on both sides cannot differ.
        let bins = trained.iter().zip(&served).filter(|(trained, served)| **trained + **served > 0).count();
        Self {
            of: of.to_owned(),
            psi: stability_index(trained, &served),
            by_chance: by_chance(bins, trained_rides, served_rides),
            trained: trained.to_vec(),
            served,
            edges,
        }
    }

    /// Returns the interpretation of the index; `None` if no ride was scored.
    pub fn level(&self) -> Option<Level> {
        let psi = self.psi?;
        Some(match self.by_chance {
            Some(by_chance) if psi <= by_chance => Level::Stable,
            _ if psi < 0.1 => Level::Stable,
            _ if psi < 0.25 => Level::Moderate,
            _ => Level::Large,
        })
    }
}

/// Compares the scored rides with the training rides of the model.
pub fn drift(model: &Model, tally: &Tally) -> Drift {
    let features = model.coefficients.iter().filter_map(|coefficient| {
        let Histogram { edges, rides, .. } = coefficient.histogram.as_ref()?;
        let served = tally.features.iter().find(|served| served.feature == coefficient.feature);
        let served = served.map_or_else(|| vec![0; rides.len()], |served| served.rides.clone());
        Some(Shift::new(&coefficient.feature, edges.clone(), rides, served))
    });
    let bins = model.predicted.len();
    let probability = (bins > 0).then(|| {
        let edges = (1..bins).map(|edge| edge as f64 / bins as f64).collect();
        let mut served = tally.probabilities.clone();
        served.resize(served.len().max(bins), 0);
        Shift::new("probability", edges, &model.predicted, served)
    });
    Drift { rides: tally.rides, features: features.collect(), probability }
}

/// Returns the population stability index `Σ (a − e) · ln(a / e)` over the bins, where `e` is the expected and `a` the
/// actual share of a bin. It is 0 for equal shares and never negative. By custom, values below 0.1 mean the same
/// population, values below 0.25 a moderate shift, and larger values a large shift. Shares are at least 1/10,000,
/// because an empty bin has no logarithm.
///
/// `None` if either side has no counts, or the numbers of bins differ.
pub fn stability_index(expected: &[u64], actual: &[u64]) -> Option<f64> {
    const SHARE_MIN: f64 = 1e-4;
    let total = |counts: &[u64]| counts.iter().map(|count| *count as f64).sum::<f64>();
    let (expected_total, actual_total) = (total(expected), total(actual));
    if expected.len() != actual.len() || expected_total == 0.0 || actual_total == 0.0 {
        return None;
    }
    let share = |count: u64, total: f64| (count as f64 / total).max(SHARE_MIN);
    let terms = expected.iter().zip(actual).map(|(&expected, &actual)| {
        let (e, a) = (share(expected, expected_total), share(actual, actual_total));
        (a - e) * (a / e).ln()
    });
    Some(terms.sum())
}

/// Returns the 95th percentile of the index without any shift. The index times `n·m / (n + m)` then follows a
/// chi-square distribution with one degree of freedom less than there are bins; its percentile is approximated after
/// Wilson and Hilferty.
fn by_chance(bins: usize, trained: u64, served: u64) -> Option<f64> {
    const NORMAL_95: f64 = 1.644_853_626_951_472_2;
    if bins < 2 || trained == 0 || served == 0 {
        return None;
    }
    let freedom = (bins - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    let chi_square = freedom * (1.0 - spread + NORMAL_95 * spread.sqrt()).powi(3);
    Some(chi_square * (1.0 / trained as f64 + 1.0 / served as f64))
}

/// Columns of a file of scored rides: the id, and the probability from 0 to 1.
pub const SCORED_COLUMNS: [&str; 2] = ["ride_id", "probability"];

/// A file that is not one of scored rides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a file of scored rides: {0}")]
pub struct BrokenScores(String);

/// Writes scored rides as CSV with a header.
///
/// # Errors
/// Never fails: the output is in memory. The CSV writer's signature requires the error.
pub fn write_scored<'a>(rides: impl Iterator<Item = (&'a str, f64)>) -> Result<Vec<u8>, BrokenScores> {
    let broken = |error: &dyn std::fmt::Display| BrokenScores(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(SCORED_COLUMNS).map_err(|error| broken(&error))?;
    for (ride_id, probability) in rides {
        // The debug form is the shortest that parses to the same number; it uses an exponent where that is shorter.
        writer.write_record([ride_id, &format!("{probability:?}")]).map_err(|error| broken(&error))?;
    }
    writer.into_inner().map_err(|error| broken(&error))
}

/// Reads a file that [`write_scored`] wrote: ids and probabilities, in the order of the file.
///
/// # Errors
/// Fails if the header or a probability is invalid.
pub fn read_scored(csv: &[u8]) -> Result<Vec<(String, f64)>, BrokenScores> {
    let mut reader = csv::Reader::from_reader(csv);
    let header = reader.headers().map_err(|error| BrokenScores(error.to_string()))?;
    if header != SCORED_COLUMNS.as_slice() {
        return Err(BrokenScores(format!("the columns are {header:?}; expected {SCORED_COLUMNS:?}")));
    }
    let rows = reader.into_records().enumerate().map(|(row, record)| {
        let record = record.map_err(|error| BrokenScores(error.to_string()))?;
        let probability = record[1].parse::<f64>().ok().filter(|probability| (0.0..=1.0).contains(probability));
        let probability =
            probability.ok_or_else(|| BrokenScores(format!("{:?} in row {}: expected 0 to 1", &record[1], row + 1)))?;
        Ok((record[0].to_owned(), probability))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn shadow(model_id: &str) -> impl Strategy<Value = Shadow> {
        let model_id = model_id.to_owned();
        vec((-1.0..=1.0, any::<bool>()), 0..20).prop_map(move |rides| {
            let mut shadow = Shadow::new(&model_id);
            rides.into_iter().for_each(|(difference, other)| shadow.count(difference, other));
            shadow
        })
    }

    fn tally() -> impl Strategy<Value = Tally> {
        let feature = |feature: &str| {
            let feature = feature.to_owned();
            vec(0u64..100, 3).prop_map(move |rides| FeatureTally { feature: feature.clone(), rides })
        };
        let cache = vec(0.0..2_000.0, 0..10).prop_map(|loads| {
            let mut cache = BreedCache { hits: 3, misses: loads.len() as u64, ..BreedCache::default() };
            loads.into_iter().for_each(|took| cache.loaded(took));
            cache
        });
        let parts = (0u64..100, 0u64..100, feature("tmin"), feature("tmax"), vec(0u64..100, 20));
        (parts, shadow("b"), shadow("c"), cache).prop_map(
            |((rides, service, tmin, tmax, probabilities), b, c, breeds)| Tally {
                rides,
                service,
                imputed: rides.min(service),
                features: vec![tmin, tmax],
                probabilities,
                fallbacks: Fallbacks { no_breed_model: rides, loading: service, unavailable: 1 },
                uncounted: 0,
                shadows: vec![b, c],
                breeds: Some(breeds),
            },
        )
    }

    fn sum(tallies: &[&Tally]) -> Tally {
        let mut sum = Tally::default();
        tallies.iter().for_each(|tally| sum.add(tally));
        sum
    }

    proptest! {
        /// The sum of the snapshots does not depend on their order.
        #[test]
        fn tallies_add_up_in_any_order(a in tally(), b in tally(), c in tally()) {
            let (forward, back) = (sum(&[&a, &b, &c]), sum(&[&c, &b, &a]));
            prop_assert_eq!(forward.rides, a.rides + b.rides + c.rides);
            prop_assert_eq!(forward.imputed, a.imputed + b.imputed + c.imputed);
            prop_assert_eq!((forward.rides, forward.service, forward.fallbacks), (back.rides, back.service, back.fallbacks));
            prop_assert_eq!((&forward.features, &forward.probabilities), (&back.features, &back.probabilities));
            for (shadow, other) in forward.shadows.iter().zip(&back.shadows) {
                prop_assert_eq!((shadow.rides, &shadow.differences), (other.rides, &other.differences));
                prop_assert!((shadow.difference_sum - other.difference_sum).abs() < 1e-9);
                prop_assert_eq!(shadow.rides, shadow.differences.iter().sum::<u64>());
                prop_assert!(shadow.mean_absolute().is_none_or(|mean| mean <= shadow.largest + 1e-12));
            }
            let cache = forward.breeds.unwrap();
            prop_assert_eq!(cache.loads, cache.loads_by_ms.iter().sum::<u64>());
            prop_assert_eq!(cache.misses, cache.loads);
        }

        /// Equal shares have an index of 0, whatever the numbers of rides.
        #[test]
        fn equal_shares_have_an_index_of_zero(counts in vec(0u64..1_000, 1..12), factor in 1u64..1_000) {
            prop_assume!(counts.iter().sum::<u64>() > 0);
            let more: Vec<u64> = counts.iter().map(|count| count * factor).collect();
            let index = stability_index(&counts, &more).unwrap();
            prop_assert!(index.abs() < 1e-12, "{}", index);
        }

        /// The index is finite, not negative, and symmetric.
        #[test]
        fn the_index_is_never_negative(pairs in vec((0u64..1_000_000, 0u64..1_000_000), 1..12)) {
            let (expected, actual): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
            prop_assume!(expected.iter().sum::<u64>() > 0 && actual.iter().sum::<u64>() > 0);
            let index = stability_index(&expected, &actual).unwrap();
            prop_assert!(index.is_finite() && index >= 0.0, "{}", index);
            prop_assert!((index - stability_index(&actual, &expected).unwrap()).abs() < 1e-9);
        }

        /// The index grows with the number of rides that move from one bin to another.
        #[test]
        fn the_index_grows_with_the_shift(counts in vec(100u64..10_000, 2..12), from in any::<prop::sample::Index>()) {
            let from = from.index(counts.len());
            let to = (from + 1) % counts.len();
            let mut before = 0.0;
            for tenths in 1..=10 {
                let mut moved = counts.clone();
                let some = counts[from] * tenths / 10;
                (moved[from], moved[to]) = (counts[from] - some, counts[to] + some);
                let index = stability_index(&counts, &moved).unwrap();
                prop_assert!(index > before, "{} after {} at {} tenths", index, before, tenths);
                before = index;
            }
        }

        /// Scored rides with any ids read back unchanged.
        #[test]
        fn scored_rides_read_back(rides in vec((any::<String>(), 0.0..=1.0), 0..20)) {
            let csv = write_scored(rides.iter().map(|(id, probability)| (id.as_str(), *probability))).unwrap();
            prop_assert_eq!(read_scored(&csv), Ok(rides));
        }
    }

    /// Compares with a calculation by hand: two halves become a quarter and three quarters.
    #[test]
    fn the_index_follows_its_formula() {
        let index = stability_index(&[50, 50], &[25, 75]).unwrap();
        let expected = -0.25 * 0.5f64.ln() + 0.25 * 1.5f64.ln();
        assert!((index - expected).abs() < 1e-15, "{index}");
        let emptied = stability_index(&[50, 50], &[100, 0]).unwrap();
        assert!((emptied - (0.5 * 2f64.ln() + (1e-4 - 0.5) * 2e-4f64.ln())).abs() < 1e-12, "{emptied}");
        assert_eq!(stability_index(&[1, 1], &[0, 0]), None);
        assert_eq!(stability_index(&[1, 1], &[1, 1, 1]), None);
    }

    /// Chi-square's 95th percentile with 9 degrees of freedom is 16.92.
    #[test]
    fn few_rides_shift_by_chance() {
        let by_chance = by_chance(10, 1_000, 1_000).unwrap();
        assert!((by_chance / (2.0 / 1_000.0) - 16.919).abs() < 0.05, "{by_chance}");
        let few = Shift::new("tmin", vec![0.0], &[500, 500], vec![3, 7]);
        assert!(few.psi.unwrap() > 0.1, "{few:?}");
        assert_eq!(few.level(), Some(Level::Stable));
        let many = Shift::new("tmin", vec![0.0], &[500, 500], vec![3_000, 7_000]);
        assert_eq!(many.level(), Some(Level::Moderate));
        let far = Shift::new("tmin", vec![0.0], &[500, 500], vec![1_000, 9_000]);
        assert_eq!(far.level(), Some(Level::Large));
        assert_eq!(Shift::new("tmin", vec![0.0], &[500, 500], vec![0, 0]).level(), None);
    }

    #[test]
    fn a_bin_includes_its_lower_end_and_the_last_bin_its_upper_end() {
        for (value, bin) in [(-1.0, 0), (0.0, 0), (0.0499, 0), (0.05, 1), (0.95, 19), (1.0, 19), (f64::NAN, 0)] {
            assert_eq!(bin_of(value, 0.0, 1.0, 20), bin, "{value}");
        }
        assert_eq!(bin_of(0.0, -1.0, 1.0, 20), 10);
    }

    #[test]
    fn an_invalid_file_of_scored_rides_is_refused() {
        for broken in ["", "id,probability\na,0.5\n", "ride_id,probability\na\n", "ride_id,probability\na,1.5\n"] {
            assert!(read_scored(broken.as_bytes()).is_err(), "{broken:?}");
        }
    }
}
