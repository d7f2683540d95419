//! What scorers were asked and what they answered, and how far that is from what the model was trained on.
//!
//! ```text
//! served/<model>/<id>/<date>/<scorer>.json   one process' counts of a day      [`Served`], `served.v1`
//! scored/<model>/<id>/<date>/<scorer>.csv    rides it scored, by id            [`write_scored`], [`read_scored`]
//! ```
//!
//! A snapshot has a size that depends on the model alone, never on how much was asked. Those of many processes and days are added up
//! ([`Tally::add`]) and held against the artefact ([`drift`]).

use crate::document::model::{Histogram, Model};
use serde::{Deserialize, Serialize};

/// Name of the snapshot's schema.
pub const SERVED_SCHEMA: &str = "served.v1";
/// Parts of 0 … 1 that answers are counted in where the artefact says nothing else.
pub const PROBABILITY_PARTS: usize = 20;
/// Parts of -1 … 1 that differences between challenger and champion are counted in.
pub const DIFFERENCE_PARTS: usize = 20;
/// Challengers that are remembered beside one champion at most; the newest stay.
pub const SHADOWS_MAX: usize = 4;
/// Upper ends of the times that reading a breed's model took, milliseconds; whatever took longer is counted beyond them.
pub const LOAD_MS: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 250.0, 1_000.0];

/// What one scorer process was asked and answered with one version on one day (UTC): `served.v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// [`SERVED_SCHEMA`].
    pub schema: String,
    /// Model family.
    pub model: String,
    /// The version that answered.
    pub model_id: String,
    /// The day, `YYYY-MM-DD` in UTC.
    pub date: String,
    /// The process, by a name it made up.
    pub scorer: String,
    /// The counts.
    pub tally: Tally,
}

/// Counts of rides by one version. Those of a breed's model are of the rides it scored. Those of the model of all rides are of every
/// ride that was answered while it was the champion, also of those that the models of breeds beside it scored: answers are counted as
/// they were given, and features and probabilities as this version sees the ride, so that they can be held against what it was
/// trained on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Rides that were answered.
    pub rides: u64,
    /// … of which the decision that was answered is service.
    pub service: u64,
    /// Rides by value, for each feature whose histogram the artefact has; those that lack a feature this version uses are not in it.
    pub features: Vec<FeatureTally>,
    /// The same rides by the probability this version gives them, whoever answered: equal parts of 0 … 1, as many as
    /// [`Model::predicted`] has, the last one including 1.
    pub probabilities: Vec<u64>,
    /// Rides that named a breed whose model did not score them; in the tally of the model of all rides.
    pub fallbacks: Fallbacks,
    /// Rides that the models of breeds scored, but whose own counts do not have them: there were too many versions at a time; in the
    /// tally of the model of all rides.
    #[serde(default)]
    pub uncounted: u64,
    /// Challengers that scored the same rides unheard, oldest first; in the tally of the model of all rides.
    pub shadows: Vec<Shadow>,
    /// How the models of breeds were kept; in the tally of the model of all rides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breeds: Option<BreedCache>,
}

/// What values of a feature were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureTally {
    /// The feature.
    pub feature: String,
    /// Rides by bin of the artefact's histogram.
    pub rides: Vec<u64>,
}

/// Why breeds were of no account, in rides; see [`super::message::Fallback`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallbacks {
    /// The breed has no model beside the champion.
    pub no_breed_model: u64,
    /// Its model was still being read.
    pub loading: u64,
    /// Its model could not be read or served.
    pub unavailable: u64,
}

/// What a challenger would have answered to rides that the champion, or the models of breeds beside it, did answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// The challenger.
    pub model_id: String,
    /// Rides that were answered and that it scored, too.
    pub rides: u64,
    /// Rides that were answered, but that it cannot score.
    pub unscored: u64,
    /// Sum of the differences, challenger's probability minus the one that was answered.
    pub difference_sum: f64,
    /// Sum of their absolute values.
    pub absolute_sum: f64,
    /// The largest absolute value.
    pub largest: f64,
    /// Rides whose decision would have been another.
    pub decisions: u64,
    /// Rides by difference: equal parts of -1 … 1, the last one including 1.
    pub differences: Vec<u64>,
}

/// How the models of breeds were kept in memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BreedCache {
    /// Times that a breed asked for was in memory, one for each breed of a request; that it is known to have no model counts, too.
    pub hits: u64,
    /// Times that it was not.
    pub misses: u64,
    /// Readings from the store, of those that were not in memory.
    pub loads: u64,
    /// Breeds that gave their place to others.
    pub evictions: u64,
    /// What the readings took together, milliseconds.
    pub load_ms_sum: f64,
    /// The longest of them.
    pub load_ms_max: f64,
    /// Readings by what they took: one for each of [`LOAD_MS`], and one for those beyond.
    pub loads_by_ms: Vec<u64>,
}

/// The part of `from … to` that `value` lies in, of `parts` equal ones; what lies outside belongs to the first or the last.
pub fn part_of(value: f64, from: f64, to: f64, parts: usize) -> usize {
    let scaled = (value - from) / (to - from) * parts as f64;
    // A cast saturates: below 0, and what is no number, is 0.
    (scaled as usize).min(parts.saturating_sub(1))
}

/// Adds up; the longer of the two decides how many there are.
fn add_all(into: &mut Vec<u64>, from: &[u64]) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    for (into, from) in into.iter_mut().zip(from) {
        *into = into.saturating_add(*from);
    }
}

impl Tally {
    /// Adds what another process, or the same one on another day, counted of the same version.
    pub fn add(&mut self, other: &Self) {
        self.rides = self.rides.saturating_add(other.rides);
        self.service = self.service.saturating_add(other.service);
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

    /// The counts of a challenger. Of more than [`SHADOWS_MAX`] the oldest is forgotten.
    pub fn shadow(&mut self, model_id: &str) -> &mut Shadow {
        let known = self.shadows.iter().position(|shadow| shadow.model_id == model_id);
        let place = known.unwrap_or_else(|| {
            if self.shadows.len() >= SHADOWS_MAX {
                self.shadows.remove(0);
            }
            self.shadows.push(Shadow::new(model_id));
            self.shadows.len() - 1
        });
        &mut self.shadows[place]
    }
}

impl Shadow {
    /// Nothing counted yet.
    pub fn new(model_id: &str) -> Self {
        Self {
            model_id: model_id.to_owned(),
            rides: 0,
            unscored: 0,
            difference_sum: 0.0,
            absolute_sum: 0.0,
            largest: 0.0,
            decisions: 0,
            differences: vec![0; DIFFERENCE_PARTS],
        }
    }

    /// Counts a ride that both scored: `difference` is the challenger's probability minus the one that was answered.
    pub fn count(&mut self, difference: f64, other_decision: bool) {
        self.rides += 1;
        self.difference_sum += difference;
        self.absolute_sum += difference.abs();
        self.largest = self.largest.max(difference.abs());
        self.decisions += u64::from(other_decision);
        self.differences[part_of(difference, -1.0, 1.0, DIFFERENCE_PARTS)] += 1;
    }

    /// Adds counts of the same challenger beside the same champion.
    pub fn add(&mut self, other: &Self) {
        self.rides = self.rides.saturating_add(other.rides);
        self.unscored = self.unscored.saturating_add(other.unscored);
        self.difference_sum += other.difference_sum;
        self.absolute_sum += other.absolute_sum;
        self.largest = self.largest.max(other.largest);
        self.decisions = self.decisions.saturating_add(other.decisions);
        add_all(&mut self.differences, &other.differences);
    }

    /// Mean difference; `None` before the first ride.
    pub fn mean(&self) -> Option<f64> {
        (self.rides > 0).then(|| self.difference_sum / self.rides as f64)
    }

    /// Mean of the absolute differences; `None` before the first ride.
    pub fn mean_absolute(&self) -> Option<f64> {
        (self.rides > 0).then(|| self.absolute_sum / self.rides as f64)
    }
}

impl BreedCache {
    /// Counts a reading that took so long, milliseconds.
    pub fn loaded(&mut self, took_ms: f64) {
        self.loads += 1;
        self.load_ms_sum += took_ms;
        self.load_ms_max = self.load_ms_max.max(took_ms);
        self.loads_by_ms.resize(LOAD_MS.len() + 1, 0);
        self.loads_by_ms[LOAD_MS.partition_point(|end| *end < took_ms)] += 1;
    }

    /// Adds what another process counted.
    pub fn add(&mut self, other: &Self) {
        self.hits = self.hits.saturating_add(other.hits);
        self.misses = self.misses.saturating_add(other.misses);
        self.loads = self.loads.saturating_add(other.loads);
        self.evictions = self.evictions.saturating_add(other.evictions);
        self.load_ms_sum += other.load_ms_sum;
        self.load_ms_max = self.load_ms_max.max(other.load_ms_max);
        add_all(&mut self.loads_by_ms, &other.loads_by_ms);
    }

    /// Share of lookups that found the breed in memory; `None` before the first.
    pub fn hit_rate(&self) -> Option<f64> {
        let asked = self.hits.saturating_add(self.misses);
        (asked > 0).then(|| self.hits as f64 / asked as f64)
    }
}

/// How far what was asked and answered is from what the model was trained on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// Rides served.
    pub rides: u64,
    /// By feature, in the order of the model.
    pub features: Vec<Shift>,
    /// Of the probabilities; absent where the artefact does not say how its own were distributed.
    pub probability: Option<Shift>,
}

/// How far one distribution is from another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shift {
    /// The feature, or `probability`.
    pub of: String,
    /// Population stability index, see [`stability_index`]; absent when nothing was served.
    pub psi: Option<f64>,
    /// What the index exceeds in one of twenty cases although nothing has changed, just because there are so few rides.
    pub by_chance: Option<f64>,
    /// Rides trained on, by bin.
    pub trained: Vec<u64>,
    /// Rides served, by the same bins.
    pub served: Vec<u64>,
    /// Edges of the bins: below the first, between each two, from the last on.
    pub edges: Vec<f64>,
}

/// What a population stability index is customarily taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Below 0.1, or no more than chance does with so few rides.
    Stable,
    /// From 0.1: look at it.
    Moderate,
    /// From 0.25: the model is asked about rides unlike those it was trained on.
    Large,
}

impl Shift {
    fn new(of: &str, edges: Vec<f64>, trained: &[u64], served: Vec<u64>) -> Self {
        let (trained_rides, served_rides): (u64, u64) = (trained.iter().sum(), served.iter().sum());
        // One that is empty on both sides cannot differ.
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

    /// What the index means; `None` when nothing was served.
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

/// Holds what was served against what the model was trained on.
pub fn drift(model: &Model, tally: &Tally) -> Drift {
    let features = model.coefficients.iter().filter_map(|coefficient| {
        let Histogram { edges, rides, .. } = coefficient.histogram.as_ref()?;
        let served = tally.features.iter().find(|served| served.feature == coefficient.feature);
        let served = served.map_or_else(|| vec![0; rides.len()], |served| served.rides.clone());
        Some(Shift::new(&coefficient.feature, edges.clone(), rides, served))
    });
    let parts = model.predicted.len();
    let probability = (parts > 0).then(|| {
        let edges = (1..parts).map(|edge| edge as f64 / parts as f64).collect();
        let mut served = tally.probabilities.clone();
        served.resize(served.len().max(parts), 0);
        Shift::new("probability", edges, &model.predicted, served)
    });
    Drift { rides: tally.rides, features: features.collect(), probability }
}

/// The population stability index `Σ (a − e) · ln(a / e)` over the bins, `e` being the share of a bin in what was expected and `a`
/// in what came. It is 0 for the same shares and never negative. By custom up to 0.1 passes for the same population, up to 0.25 for
/// a moderate shift, more for a large one. An empty bin has no logarithm: no share counts for less than 1/10,000.
///
/// `None` when one of both is empty, or they have not the same bins.
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

/// Without any shift the index times `n·m / (n + m)` is distributed like chi-square with one degree of freedom less than there are
/// bins; this is the 95th percentile (by Wilson and Hilferty) as an index.
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

/// Columns of a file of scored rides.
pub const SCORED_COLUMNS: [&str; 2] = ["ride_id", "probability"];

/// A file of scored rides that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not rides with their probability: {0}")]
pub struct BrokenScores(String);

/// Scored rides as CSV with a header.
///
/// # Errors
/// Never, into memory; the CSV writer cannot promise that.
pub fn write_scored<'a>(rides: impl Iterator<Item = (&'a str, f64)>) -> Result<Vec<u8>, BrokenScores> {
    let broken = |error: &dyn std::fmt::Display| BrokenScores(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(SCORED_COLUMNS).map_err(|error| broken(&error))?;
    for (ride_id, probability) in rides {
        // The debug form is the shortest that reads back as the same number, with an exponent where that is shorter.
        writer.write_record([ride_id, &format!("{probability:?}")]).map_err(|error| broken(&error))?;
    }
    writer.into_inner().map_err(|error| broken(&error))
}

/// Reads what [`write_scored`] wrote: id and probability, in the order of the file.
///
/// # Errors
/// When it is something else.
pub fn read_scored(csv: &[u8]) -> Result<Vec<(String, f64)>, BrokenScores> {
    let mut reader = csv::Reader::from_reader(csv);
    let header = reader.headers().map_err(|error| BrokenScores(error.to_string()))?;
    if header != SCORED_COLUMNS.as_slice() {
        return Err(BrokenScores(format!("its columns are {header:?}; expected {SCORED_COLUMNS:?}")));
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
        /// In whatever order the snapshots of many processes are added up, the sum is the same.
        #[test]
        fn tallies_add_up_in_any_order(a in tally(), b in tally(), c in tally()) {
            let (there, back) = (sum(&[&a, &b, &c]), sum(&[&c, &b, &a]));
            prop_assert_eq!(there.rides, a.rides + b.rides + c.rides);
            prop_assert_eq!((there.rides, there.service, there.fallbacks), (back.rides, back.service, back.fallbacks));
            prop_assert_eq!((&there.features, &there.probabilities), (&back.features, &back.probabilities));
            for (shadow, other) in there.shadows.iter().zip(&back.shadows) {
                prop_assert_eq!((shadow.rides, &shadow.differences), (other.rides, &other.differences));
                prop_assert!((shadow.difference_sum - other.difference_sum).abs() < 1e-9);
                prop_assert_eq!(shadow.rides, shadow.differences.iter().sum::<u64>());
                prop_assert!(shadow.mean_absolute().is_none_or(|mean| mean <= shadow.largest + 1e-12));
            }
            let cache = there.breeds.unwrap();
            prop_assert_eq!(cache.loads, cache.loads_by_ms.iter().sum::<u64>());
            prop_assert_eq!(cache.misses, cache.loads);
        }

        /// Shares that are the same have an index of 0, however many rides there are of each.
        #[test]
        fn the_same_shares_have_no_index(counts in vec(0u64..1_000, 1..12), factor in 1u64..1_000) {
            prop_assume!(counts.iter().sum::<u64>() > 0);
            let more: Vec<u64> = counts.iter().map(|count| count * factor).collect();
            let index = stability_index(&counts, &more).unwrap();
            prop_assert!(index.abs() < 1e-12, "{}", index);
        }

        /// Whatever comes, the index is a number, not negative, and the same from both sides.
        #[test]
        fn the_index_is_never_negative(pairs in vec((0u64..1_000_000, 0u64..1_000_000), 1..12)) {
            let (expected, actual): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
            prop_assume!(expected.iter().sum::<u64>() > 0 && actual.iter().sum::<u64>() > 0);
            let index = stability_index(&expected, &actual).unwrap();
            prop_assert!(index.is_finite() && index >= 0.0, "{}", index);
            prop_assert!((index - stability_index(&actual, &expected).unwrap()).abs() < 1e-9);
        }

        /// The more rides move from one bin to another, the larger is the index.
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

        /// Scored rides read back as they were written, whatever their ids are.
        #[test]
        fn scored_rides_read_back(rides in vec((any::<String>(), 0.0..=1.0), 0..20)) {
            let csv = write_scored(rides.iter().map(|(id, probability)| (id.as_str(), *probability))).unwrap();
            prop_assert_eq!(read_scored(&csv), Ok(rides));
        }
    }

    /// By hand: halves that become a quarter and three quarters.
    #[test]
    fn the_index_is_that_of_the_formula() {
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
    fn a_part_holds_its_lower_end_and_the_last_one_its_upper() {
        for (value, part) in [(-1.0, 0), (0.0, 0), (0.0499, 0), (0.05, 1), (0.95, 19), (1.0, 19), (f64::NAN, 0)] {
            assert_eq!(part_of(value, 0.0, 1.0, 20), part, "{value}");
        }
        assert_eq!(part_of(0.0, -1.0, 1.0, 20), 10);
    }

    #[test]
    fn what_is_no_file_of_scores_is_refused() {
        for broken in ["", "id,probability\na,0.5\n", "ride_id,probability\na\n", "ride_id,probability\na,1.5\n"] {
            assert!(read_scored(broken.as_bytes()).is_err(), "{broken:?}");
        }
    }
}
