//! The datasets to train on, and the model id that follows from them.

use common::{
    dataset::Manifest,
    features::later_features,
    message::DatasetReady,
    model::{Model, TrainedOn, TrainingSettings},
    outcome::Failure,
    schema::Described,
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{
    Store,
    datasets::{self, DatasetError, StoredManifest},
    layout,
};
use sha2::{Digest, Sha256};

/// Maximum number of manifests read at once.
const MANIFESTS_AT_ONCE: usize = 16;

/// Everything that determines a model, and its id.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Model family.
    pub model: String,
    /// Version; a hash of all other fields.
    pub model_id: String,
    /// How to train.
    pub settings: TrainingSettings,
    /// Sorted by batch id, in the same order as `datasets`.
    pub manifests: Vec<Manifest>,
    /// Batch ids, hashes of the manifests and revisions.
    pub datasets: Vec<TrainedOn>,
}

impl Plan {
    /// Plans a training on the newest complete revision of every dataset. `announced` is the batch id of the message at hand, or empty.
    ///
    /// # Errors
    /// Fails if the store cannot be reached; permanently if the manifest of the announced dataset is broken, transiently if another one
    /// is.
    pub async fn read(store: &Store, settings: TrainingSettings, announced: &str) -> Result<Self, Failure> {
        let mut pairs: Vec<(Manifest, TrainedOn)> = stream::iter(datasets::list(store).await?)
            .map(|(batch_id, revision)| async move {
                let stored = datasets::revision(store, &batch_id, revision).await;
                let stored =
                    stored.map_err(|error| transient_unless_announced(failure(error), &batch_id, announced))?;
                let pair = |StoredManifest { manifest, sha256: manifest_sha256 }| {
                    let revision = manifest.revision;
                    (manifest, TrainedOn { batch_id, manifest_sha256, revision })
                };
                Ok::<_, Failure>(stored.map(pair))
            })
            .buffer_unordered(MANIFESTS_AT_ONCE)
            .try_filter_map(async |pair| Ok(pair))
            .try_collect()
            .await?;
        pairs.sort_by(|(a, _), (b, _)| a.batch_id.cmp(&b.batch_id));
        let (manifests, datasets): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let model = layout::GLOBAL_MODEL.to_owned();
        let model_id = model_id(&model, &settings, &datasets)?;
        Ok(Self { model, model_id, settings, manifests, datasets })
    }

    /// Checks that the plan has a dataset as it was announced, or a newer revision of it: that one has an announcement of its own.
    ///
    /// # Errors
    /// Fails permanently if the dataset has another manifest, transiently if it is missing.
    pub fn check_has(&self, ready: &DatasetReady) -> Result<(), Failure> {
        let dataset = self.datasets.iter().find(|dataset| dataset.batch_id == ready.batch_id);
        match dataset.filter(|dataset| dataset.revision >= ready.revision) {
            Some(dataset) if dataset.revision > ready.revision => Ok(()),
            Some(dataset) if dataset.manifest_sha256 == ready.manifest_sha256 => Ok(()),
            Some(dataset) => {
                let why = format!(
                    "the manifest of {} has SHA-256 {}; it was announced with {}",
                    ready.batch_id, dataset.manifest_sha256, ready.manifest_sha256
                );
                Err(Failure::permanent("dataset_changed", why))
            }
            None => Err(Failure::transient(format!("{} does not exist", ready.manifest))),
        }
    }

    /// Returns the id of a breed model of the same release. `model` is its family.
    ///
    /// # Errors
    /// Fails if the settings cannot be encoded, which does not happen.
    pub fn breed_model_id(&self, model: &str) -> Result<String, Failure> {
        model_id(model, &self.settings, &self.datasets)
    }

    /// Returns the number of rides with a label and weather by the manifests, duplicates included.
    pub fn trainable(&self) -> u64 {
        self.manifests.iter().fold(0, |sum, manifest| sum.saturating_add(manifest.trainable))
    }
}

/// Turns a permanent failure of a dataset that the message at hand did not announce into a transient one: by the next attempt somebody
/// may have repaired or removed that dataset.
pub(crate) fn transient_unless_announced(failure: Failure, batch_id: &str, announced: &str) -> Failure {
    match failure {
        Failure::Permanent { reason, why } if batch_id != announced => {
            Failure::transient(format!("{reason}: {why}; repair or remove dataset {batch_id}"))
        }
        other => other,
    }
}

/// Returns the failure of a dataset that cannot be read.
pub(crate) fn failure(error: DatasetError) -> Failure {
    match error {
        DatasetError::Unavailable(failure) => failure,
        changed @ DatasetError::Changed { .. } => Failure::permanent("dataset_changed", changed),
        broken @ DatasetError::Broken { .. } => Failure::permanent("broken_dataset", broken),
    }
}

/// Returns the first 16 hex digits of a SHA-256 over everything that determines a model.
fn model_id(model: &str, settings: &TrainingSettings, datasets: &[TrainedOn]) -> Result<String, Failure> {
    let settings = serde_json::to_string(settings).map_err(|error| Failure::permanent("unencodable", error))?;
    let mut sha256 = Sha256::new();
    for line in [Model::SCHEMA.name, model, &settings] {
        sha256.update(format!("{line}\n"));
    }
    for feature in later_features() {
        sha256.update(format!("{feature}\n"));
    }
    for TrainedOn { batch_id, manifest_sha256, .. } in datasets {
        sha256.update(format!("{batch_id} {manifest_sha256}\n"));
    }
    let mut id = hex::encode(sha256.finalize());
    id.truncate(16);
    Ok(id)
}
