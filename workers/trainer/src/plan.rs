//! What is to be trained on, and the id that follows from it.

use crate::load;
use common::{
    dataset::{MANIFEST_SCHEMA, Manifest},
    message::DatasetReady,
    model::{MODEL_SCHEMA, TrainedOn, TrainingSettings},
    outcome::Failure,
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use records::{
    layout,
    store::{self, Store},
};
use sha2::{Digest, Sha256};

/// Manifests asked of the store at once.
const MANIFESTS_AT_ONCE: usize = 16;

/// What is to be trained on, and the id that follows from it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Model family.
    pub model: String,
    /// Follows from everything else here.
    pub model_id: String,
    /// How it is trained.
    pub settings: TrainingSettings,
    /// By rising batch id, as `datasets`.
    pub manifests: Vec<Manifest>,
    /// What it is trained on.
    pub datasets: Vec<TrainedOn>,
}

impl Plan {
    /// Every dataset that has its manifest by now. `announced` is the batch whose dataset was said to be ready.
    ///
    /// # Errors
    /// When the store is away; permanently when the announced dataset's manifest is broken, transiently when another's is.
    pub async fn read(store: &Store, settings: TrainingSettings, announced: &str) -> Result<Self, Failure> {
        let listing =
            store.list_with_delimiter(Some(&Path::from(layout::DATASET))).await.map_err(store::outage)?.common_prefixes;
        let batch_ids: Vec<String> = listing.iter().filter_map(|prefix| prefix.filename().map(str::to_owned)).collect();
        let mut found: Vec<(Manifest, TrainedOn)> = stream::iter(batch_ids)
            .map(|batch_id| async move {
                let read = read_manifest(store, &batch_id).await;
                read.map_err(|failure| load::passes_unless_announced(failure, &batch_id, announced))
            })
            .buffer_unordered(MANIFESTS_AT_ONCE)
            .try_filter_map(async |manifest| Ok(manifest))
            .try_collect()
            .await?;
        found.sort_by(|(a, _), (b, _)| a.batch_id.cmp(&b.batch_id));
        let (manifests, datasets): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let model = layout::GLOBAL_MODEL.to_owned();
        let model_id = model_id(&model, &settings, &datasets)?;
        Ok(Self { model, model_id, settings, manifests, datasets })
    }

    /// Whether a dataset is there as it was announced.
    ///
    /// # Errors
    /// Permanently when it is another, transiently when it is not there.
    pub fn check_has(&self, ready: &DatasetReady) -> Result<(), Failure> {
        match self.datasets.iter().find(|dataset| dataset.batch_id == ready.batch_id) {
            Some(dataset) if dataset.manifest_sha256 == ready.manifest_sha256 => Ok(()),
            Some(dataset) => {
                let why = format!(
                    "the manifest of {} has SHA-256 {}; it was announced with {}",
                    ready.batch_id, dataset.manifest_sha256, ready.manifest_sha256
                );
                Err(Failure::permanent("dataset_changed", why))
            }
            None => Err(Failure::transient(format!("{} is not there", ready.manifest))),
        }
    }

    /// Id of the model of one breed that is trained beside this one.
    ///
    /// # Errors
    /// When the settings cannot be written, which does not happen.
    pub fn breed_model_id(&self, model: &str) -> Result<String, Failure> {
        model_id(model, &self.settings, &self.datasets)
    }

    /// Rides with a label and weather, as the manifests say, duplicates included.
    pub fn trainable(&self) -> u64 {
        self.manifests.iter().fold(0, |sum, manifest| sum.saturating_add(manifest.trainable))
    }
}

async fn read_manifest(store: &Store, batch_id: &str) -> Result<Option<(Manifest, TrainedOn)>, Failure> {
    let path = layout::manifest(batch_id);
    let Some(bytes) = store::read(store, &path).await? else { return Ok(None) };
    let broken = |why: String| Failure::permanent("broken_dataset", format!("{path}: {why}"));
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    if manifest.schema != MANIFEST_SCHEMA {
        return Err(broken(format!("its schema is {}; this trainer reads {MANIFEST_SCHEMA}", manifest.schema)));
    }
    if manifest.batch_id != batch_id {
        return Err(broken(format!("it is the manifest of {}", manifest.batch_id)));
    }
    let own = layout::dataset(batch_id);
    if let Some(file) = manifest.files.iter().find(|file| !layout::is_below(&own, &file.path)) {
        return Err(broken(format!("it names {:?}, which is not below {own}/", file.path)));
    }
    let manifest_sha256 = hex::encode(Sha256::digest(&bytes));
    Ok(Some((manifest, TrainedOn { batch_id: batch_id.to_owned(), manifest_sha256 })))
}

/// The first 16 hex digits of a SHA-256 over everything a model follows from.
fn model_id(model: &str, settings: &TrainingSettings, datasets: &[TrainedOn]) -> Result<String, Failure> {
    let settings = serde_json::to_string(settings).map_err(|error| Failure::permanent("unencodable", error))?;
    let mut sha256 = Sha256::new();
    for line in [MODEL_SCHEMA, model, &settings] {
        sha256.update(format!("{line}\n"));
    }
    for TrainedOn { batch_id, manifest_sha256 } in datasets {
        sha256.update(format!("{batch_id} {manifest_sha256}\n"));
    }
    let mut id = hex::encode(sha256.finalize());
    id.truncate(16);
    Ok(id)
}
