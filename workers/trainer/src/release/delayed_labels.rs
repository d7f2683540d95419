//! How good the scores of each version were, now that labels have arrived.

use crate::{
    data::{DelayedLabel, ScoredRides},
    evaluate::metrics,
};
use common::document::DelayedLabelMetrics;
use common::{model::Model, outcome::Failure};
use records::{registry, store::Store};
use runtime::host::offload;
use std::collections::HashSet;

/// Evaluates the scores of each version, at its threshold; returns its family and its metrics. `datasets` holds the batch id of each
/// dataset by its number. Rides of datasets that a version was trained on are left out: the version knew their labels. A version
/// without an artefact is left out: its datasets are unknown.
///
/// # Errors
/// Fails if the store cannot be reached.
pub async fn evaluate(
    store: &Store,
    scored: &ScoredRides,
    datasets: &[&str],
    mut labels: Vec<DelayedLabel>,
) -> Result<Vec<(String, DelayedLabelMetrics)>, Failure> {
    let mut by_family = Vec::new();
    for ((model, model_id), labels) in scored.by_version(&mut labels) {
        let Ok((_, Model { datasets: trained_on, threshold, .. })) = registry::version(store, model, model_id).await?
        else {
            continue;
        };
        let trained_on: HashSet<&str> = trained_on.iter().map(|dataset| dataset.batch_id.as_str()).collect();
        let is_new = |label: &&DelayedLabel| {
            let batch_id = usize::try_from(label.dataset).ok().and_then(|dataset| datasets.get(dataset));
            batch_id.is_none_or(|batch_id| !trained_on.contains(batch_id))
        };
        let predictions: Vec<(f64, bool)> =
            labels.iter().filter(is_new).map(|label| (log_odds(label.probability), label.service)).collect();
        let metrics = offload(move || metrics::evaluate(predictions, threshold)).await?;
        if let Some(metrics) = metrics {
            by_family.push((model.clone(), DelayedLabelMetrics { model_id: model_id.clone(), metrics }));
        }
    }
    Ok(by_family)
}

/// Writes the metrics of each version beside its artefact.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(crate) async fn write(store: &Store, by_family: &[(String, DelayedLabelMetrics)]) -> Result<(), Failure> {
    for (model, document) in by_family {
        let DelayedLabelMetrics { model_id, metrics } = document;
        tracing::info!(
            model,
            model_id,
            rides = metrics.rides,
            log_loss = metrics.log_loss,
            calibration_error = metrics.calibration_error,
            "scores evaluated with delayed labels"
        );
        registry::write(store, model, model_id, document).await?;
    }
    Ok(())
}

/// Returns finite log-odds, also for probabilities 0 and 1.
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
    use records::store;
    use std::sync::Arc;
    use xxhash_rust::xxh3::xxh3_128;

    /// A version is evaluated on each ride that it scored and whose label arrived, once, whichever scorer recorded it and how often.
    /// Files that cannot be decoded are left out.
    #[tokio::test]
    async fn versions_are_evaluated_on_delayed_labels() {
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
            registry::write_artefact(&store, &artefact).await.unwrap();
        }
        store::write(&store, "scored/m/a/2026-01-03/torn.csv", "ride_id,probability\nr5,").await.unwrap();
        let scored = ScoredRides::read(&store).await.unwrap();
        let arrived = [("r1", true), ("r2", false), ("r4", true), ("r9", true)];
        let labels: Vec<DelayedLabel> =
            arrived.iter().flat_map(|(id, service)| scored.labels(xxh3_128(id.as_bytes()), *service, 0)).collect();
        let of_known = evaluate(&store, &scored, &["0123456789abcdef"], labels.clone()).await.unwrap();
        assert!(of_known.is_empty(), "the versions were trained on these rides");
        let by_family = evaluate(&store, &scored, &["batch"], labels).await.unwrap();
        let rides: Vec<_> = by_family.iter().map(|(m, d)| (m.as_str(), d.model_id.as_str(), d.metrics.rides)).collect();
        assert_eq!(rides, [("m", "a", 3), ("m", "b", 1)]);
        let brier = by_family[0].1.metrics.brier;
        // The latest score of r1 counts, 0.9.
        assert!((brier - (0.01 + 0.04 + 0.0) / 3.0).abs() < 1e-12, "{brier}");
        assert!(by_family[0].1.metrics.log_loss.is_finite());
        write(&store, &by_family).await.unwrap();
        let written = registry::read::<DelayedLabelMetrics>(&store, "m", "b").await.unwrap();
        assert_eq!(written.as_ref(), Some(&by_family[1].1));
    }
}
