//! What became of rides that were scored: those that come with a label later tell how good the scores were.
//!
//! Scorers leave `scored/<model>/<id>/<date>/<scorer>.csv`. Whoever trains reads them first, and notes the label of each such ride as
//! it comes by among all others. A ride that a version scored more than once counts once.

use crate::{metrics, registry, release::pretty, report::Realised};
use common::{model::Model, outcome::Failure, served::read_scored};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use records::{
    layout,
    store::{self, Store},
};
use runtime::host::offload;
use std::collections::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_128;

/// Scored rides that are remembered, at most, those of the latest days first: about 100 bytes each.
pub const SCORED_RIDES_MAX: usize = 1_000_000;
/// Files read at once.
const READS_AT_ONCE: usize = 8;

/// Rides that were scored, by their id.
#[derive(Debug, Default)]
pub struct Scored {
    /// Model family and id of each version.
    versions: Vec<(String, String)>,
    /// By `xxh3_128` of the ride's id: versions, by their number, and the probability each gave.
    rides: HashMap<u128, Vec<(u32, f64)>>,
}

/// The label of a ride that was scored before it was known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Number of the version in [`Scored`].
    version: u32,
    probability: f64,
    service: bool,
    /// Number of the dataset the label stands in.
    dataset: u32,
}

impl Scored {
    /// Reads what scorers left. A file that cannot be read is left out, and said to be.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn read(store: &Store) -> Result<Self, Failure> {
        let listing = store.list(Some(&Path::from("scored"))).map_ok(|found| found.location.to_string());
        let mut paths: Vec<String> = listing.try_collect().await.map_err(store::outage)?;
        // `scored/<model>/<id>/<date>/<scorer>.csv`
        let date = |path: &str| path.split('/').nth(3).unwrap_or_default().to_owned();
        paths.sort_by(|a, b| date(b).cmp(&date(a)).then_with(|| a.cmp(b)));
        let mut scored = Self::default();
        let mut left = SCORED_RIDES_MAX;
        let mut reading = stream::iter(paths)
            .map(|path| async move { store::read(store, &path).await.map(|bytes| (path, bytes)) })
            .buffered(READS_AT_ONCE);
        while let Some(read) = reading.next().await {
            let (path, bytes) = read?;
            if left == 0 {
                break;
            }
            let Some(bytes) = bytes else { continue };
            match read_scored(&bytes) {
                Ok(rides) => left -= scored.add(&path, rides.into_iter().take(left)),
                Err(why) => tracing::warn!(path, %why, "scored rides cannot be read; they are left out"),
            }
        }
        Ok(scored)
    }

    /// Takes the rides of a file; returns how many.
    fn add(&mut self, path: &str, rides: impl Iterator<Item = (String, f64)>) -> usize {
        let mut parts = path.split('/').skip(1);
        let (Some(model), Some(model_id)) = (parts.next(), parts.next()) else { return 0 };
        let version = (model.to_owned(), model_id.to_owned());
        let number = self.versions.iter().position(|known| *known == version).unwrap_or_else(|| {
            self.versions.push(version);
            self.versions.len() - 1
        });
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut count = 0;
        for (ride_id, probability) in rides {
            count += 1;
            let of_ride = self.rides.entry(xxh3_128(ride_id.as_bytes())).or_default();
            if of_ride.iter().all(|(known, _)| *known != number) {
                of_ride.push((number, probability));
            }
        }
        count
    }

    /// What became of the scores of a ride, now that its label is known.
    pub fn outcomes(&self, ride: u128, service: bool, dataset: u32) -> impl Iterator<Item = Outcome> + '_ {
        let of_ride = self.rides.get(&ride).into_iter().flatten();
        of_ride.map(move |&(version, probability)| Outcome { version, probability, service, dataset })
    }

    /// How good each version's scores were, by family and id, with its threshold. Rides of `datasets` (batch ids, by their number)
    /// that a version was made of are left out: it knew their labels. A version whose artefact is gone is not judged: nobody can
    /// tell what it knew.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn judge(
        &self,
        store: &Store,
        datasets: &[&str],
        mut outcomes: Vec<Outcome>,
    ) -> Result<Vec<(String, Realised)>, Failure> {
        outcomes.sort_by_key(|outcome| outcome.version);
        let mut judged = Vec::new();
        for of_version in outcomes.chunk_by(|a, b| a.version == b.version) {
            let version = of_version.first().and_then(|o| self.versions.get(usize::try_from(o.version).ok()?));
            let Some((model, model_id)) = version else { continue };
            let Ok((_, Model { datasets: known, threshold, .. })) = registry::version(store, model, model_id).await?
            else {
                continue;
            };
            let known: HashSet<&str> = known.iter().map(|known| known.batch_id.as_str()).collect();
            let knew: Vec<bool> = datasets.iter().map(|batch| known.contains(batch)).collect();
            let is_new =
                |o: &&Outcome| !usize::try_from(o.dataset).ok().and_then(|d| knew.get(d).copied()).unwrap_or(false);
            let predictions: Vec<(f64, bool)> =
                of_version.iter().filter(is_new).map(|o| (log_odds(o.probability), o.service)).collect();
            let metrics = offload(move || metrics::evaluate(predictions, threshold)).await?;
            if let Some(metrics) = metrics {
                judged.push((model.clone(), Realised { model_id: model_id.clone(), metrics }));
            }
        }
        Ok(judged)
    }
}

/// Writes what became of the scores of each version beside it.
///
/// # Errors
/// When the store is away.
pub(crate) async fn write(store: &Store, judged: &[(String, Realised)]) -> Result<(), Failure> {
    for (model, realised) in judged {
        let Realised { model_id, metrics } = realised;
        tracing::info!(
            model,
            model_id,
            rides = metrics.rides,
            log_loss = metrics.log_loss,
            calibration_error = metrics.calibration_error,
            "scores came true or not"
        );
        store::write(store, &layout::realised(model, model_id), pretty(realised)?).await?;
    }
    Ok(())
}

/// Finite, also of the probabilities that are none of a model with finite log-odds.
fn log_odds(probability: f64) -> f64 {
    let odds = probability / (1.0 - probability);
    odds.ln().clamp(-745.0, 745.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::trained;
    use common::{model::TrainingSettings, served::write_scored};
    use object_store::memory::InMemory;
    use std::sync::Arc;

    /// Each version is judged by the rides it scored whose labels came, each ride once, whichever scorer left it and how often; what
    /// cannot be read is left out.
    #[tokio::test]
    async fn versions_are_judged_by_what_became_of_their_rides() {
        let store: Store = Arc::new(InMemory::new());
        for (path, rides) in [
            ("scored/m/a/2026-01-02/one.csv", vec![("r1", 0.9), ("r2", 0.2), ("r3", 0.6)]),
            ("scored/m/a/2026-01-01/two.csv", vec![("r1", 0.8), ("r4", 1.0)]),
            ("scored/m/b/2026-01-01/two.csv", vec![("r1", 0.4)]),
            ("scored/m/gone/2026-01-01/two.csv", vec![("r1", 0.4)]),
        ] {
            store::write(&store, path, write_scored(rides.into_iter()).unwrap()).await.unwrap();
        }
        for model_id in ["a", "b"] {
            let template = trained(400, 1.0, 0.0, TrainingSettings::default());
            let artefact = Model { model: "m".to_owned(), model_id: model_id.to_owned(), ..template };
            store::write(&store, &layout::model("m", model_id), pretty(&artefact).unwrap()).await.unwrap();
        }
        store::write(&store, "scored/m/a/2026-01-03/torn.csv", "ride_id,probability\nr5,").await.unwrap();
        let scored = Scored::read(&store).await.unwrap();
        let labels = [("r1", true), ("r2", false), ("r4", true), ("r9", true)];
        let outcomes: Vec<Outcome> =
            labels.iter().flat_map(|(id, service)| scored.outcomes(xxh3_128(id.as_bytes()), *service, 0)).collect();
        let knew = scored.judge(&store, &["0123456789abcdef"], outcomes.clone()).await.unwrap();
        assert!(knew.is_empty(), "the versions were made of these rides");
        let judged = scored.judge(&store, &["batch"], outcomes).await.unwrap();
        let told: Vec<_> = judged.iter().map(|(m, r)| (m.as_str(), r.model_id.as_str(), r.metrics.rides)).collect();
        assert_eq!(told, [("m", "a", 3), ("m", "b", 1)]);
        let brier = judged[0].1.metrics.brier;
        // The latest score of r1 counts, 0.9.
        assert!((brier - (0.01 + 0.04 + 0.0) / 3.0).abs() < 1e-12, "{brier}");
        assert!(judged[0].1.metrics.log_loss.is_finite());
        write(&store, &judged).await.unwrap();
        let written: Realised = store::read_json(&store, &layout::realised("m", "b")).await.unwrap().unwrap();
        assert_eq!(written, judged[1].1);
    }
}
