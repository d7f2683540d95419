//! Tests how good scores with assumed features are, on the held-out rides of the demo.

use common::{
    features::{FEATURE_COUNT, FEATURES, is_test_ride},
    message::{ProbabilityInterval, ScoreOutcome, ScoreRequest, ScoreRide, Units},
    model::{Alias, Model},
};
use pipeline_tests::processes::{succeed, wildrydes};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use scorer::{
    artefact::{Servable, servable},
    score,
};
use std::{fs, path::Path};

/// Number of held-out rides.
const RIDES: usize = 2_000;

/// A held-out ride: all features, and the label.
struct HeldOut {
    features: [f64; FEATURE_COUNT],
    service: bool,
}

/// The champion, and held-out rides of its only dataset.
fn champion_and_rides(store: &Path) -> (Model, Vec<HeldOut>) {
    let alias = fs::read(store.join("models/service-request/champion.json")).unwrap();
    let alias: Alias = serde_json::from_slice(&alias).unwrap();
    let model: Model = serde_json::from_slice(&fs::read(store.join(&alias.object)).unwrap()).unwrap();
    let part = store.join(format!("dataset/{}/part-00000.csv", model.datasets[0].batch_id));
    let mut reader = csv::Reader::from_path(part).unwrap();
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    let (ride_id, label) = (column("ride_id"), column("fieldservice"));
    let places: [usize; FEATURE_COUNT] = std::array::from_fn(|j| column(FEATURES[j].name));
    let rows = reader.into_records().map(Result::unwrap).filter(|row| is_test_ride(&row[ride_id]));
    let rides = rows.filter_map(|row| {
        let features: Option<Vec<f64>> = places.iter().map(|place| row[*place].parse().ok()).collect();
        Some(HeldOut { features: features?.try_into().ok()?, service: &row[label] == "1" })
    });
    (model, rides.take(RIDES).collect())
}

/// Counts and sums over some rides.
#[derive(Default)]
struct Figures {
    rides: u32,
    /// Rides whose interval contains the probability of all features.
    covered: u32,
    width: f64,
    /// Sums of the log-loss: with assumed features, with the mean of each missing one, with all features.
    losses: [f64; 3],
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.rides += other.rides;
        self.covered += other.covered;
        self.width += other.width;
        self.losses.iter_mut().zip(other.losses).for_each(|(into, from)| *into += from);
    }

    fn coverage(&self) -> f64 {
        f64::from(self.covered) / f64::from(self.rides)
    }

    fn print(&self, name: &str) {
        let mean = |sum: f64| sum / f64::from(self.rides);
        let [imputed, means, complete] = self.losses.map(mean);
        println!(
            "{name:<32}{:>7}{:>10.1} %{:>9.3}{imputed:>10.4}{means:>10.4}{complete:>10.4}",
            self.rides,
            100.0 * self.coverage(),
            mean(self.width)
        );
    }
}

fn log_loss(probability: f64, service: bool) -> f64 {
    -(if service { probability } else { 1.0 - probability }).ln()
}

/// Scores a ride without the missing features, whose day's mean temperature may be known.
fn without(servable: &Servable, model: &Model, ride: &HeldOut, missing: &[usize], tavg: Option<f64>) -> Figures {
    let mut known = ScoreRide { tavg, ..ScoreRide::default() };
    let mut with_means = ride.features;
    for (j, feature) in FEATURES.iter().enumerate() {
        match missing.contains(&j) {
            true => with_means[j] = model.coefficients[j].mean,
            false => (feature.set)(&mut known, Some(ride.features[j])),
        }
    }
    let request = ScoreRequest {
        request_id: String::new(),
        units: Units::default(),
        explain: false,
        impute: true,
        rides: vec![known],
    };
    let response = score::score(servable, &request);
    let ScoreOutcome::Scored { probability, interval: Some(ProbabilityInterval { low, high }), assumed, .. } =
        &response.scores[0].outcome
    else {
        panic!("{response:?}")
    };
    assert_eq!(assumed.len(), missing.len(), "{response:?}");
    let complete = model.probability(&ride.features);
    Figures {
        rides: 1,
        covered: u32::from((*low..=*high).contains(&complete)),
        width: high - low,
        losses: [*probability, model.probability(&with_means), complete].map(|p| log_loss(p, ride.service)),
    }
}

/// On 2,000 held-out rides with features removed at random, the log-loss is lower than with the mean of each missing feature, and the
/// 90 % interval contains the probability of all features in 85 to 95 % of cases. So it does for the request of an application that
/// knows distance, rain and the mean temperature.
#[test]
fn assumed_features_beat_means_and_intervals_are_honest() {
    let folder = tempfile::tempdir().unwrap();
    succeed(wildrydes().current_dir(folder.path()).args(["demo", "--rides", "20000", "--dir", "demo"]));
    let (model, rides) = champion_and_rides(&folder.path().join("demo/store-20000-seed-42"));
    assert_eq!(rides.len(), RIDES);
    let servable = servable(&model).unwrap();
    let mut random = SmallRng::seed_from_u64(42);
    let mut by_number: [Figures; FEATURE_COUNT - 1] = Default::default();
    let mut application = Figures::default();
    for ride in &rides {
        let mut places: Vec<usize> = (0..FEATURE_COUNT).collect();
        places.shuffle(&mut random);
        let number = random.random_range(1..FEATURE_COUNT);
        by_number[number - 1].add(&without(&servable, &model, ride, &places[..number], None));
        let [_, _, _, tmin, tmax, _] = ride.features;
        application.add(&without(&servable, &model, ride, &[1, 2, 3, 4], Some((tmin + tmax) / 2.0)));
    }
    println!(
        "{:<32}{:>7}{:>12}{:>9}{:>10}{:>10}{:>10}",
        "missing", "rides", "covered", "width", "assumed", "means", "all"
    );
    let mut all = Figures::default();
    for (number, figures) in by_number.iter().enumerate() {
        figures.print(&format!("{} at random", number + 1));
        all.add(figures);
    }
    all.print("1 to 5 at random");
    application.print("points; mean temperature known");
    for figures in [&all, &application] {
        assert!((0.85..=0.95).contains(&figures.coverage()), "{}", figures.coverage());
        let [assumed, means, _] = figures.losses;
        assert!(assumed < means, "{assumed} {means}");
    }
}
