//! Finds datasets of the same bytes with another reading that a model is trained on beside the one of this command.

use super::ready::ReadyBatch;
use common::{dataset::Claim, model::Model, outcome::Failure, reading::Reading};
use futures::{StreamExt, TryStreamExt, stream};
use records::{Store, batches, layout};
use serde::Serialize;
use std::path::Path;

/// Maximum number of a model's datasets to inspect, the newest first: a person confuses recent readings.
const DATASETS_MAX: usize = 1_000;
/// Maximum number of claims read at the same time.
const READS_MAX: usize = 8;

/// A batch with the bytes of a file of this command and another reading.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct OtherReading<'a> {
    /// The file of this command.
    file: &'a Path,
    /// The other batch of these bytes.
    batch_id: String,
    /// How that batch was read.
    reading: Reading,
}

/// Searches the datasets of a model.
///
/// # Errors
/// Fails if the store is unavailable or a claim is damaged.
pub(super) async fn find<'a>(
    store: &Store,
    ready: &[ReadyBatch<'a>],
    model: Option<&Model>,
) -> Result<Vec<OtherReading<'a>>, Failure> {
    let is_current = |batch_id: &str| ready.iter().any(|ready| ready.dataset.batch_id == batch_id);
    let datasets = model.map_or(&[][..], |model| &model.datasets);
    let others = datasets.iter().rev().filter(|dataset| !is_current(&dataset.batch_id)).take(DATASETS_MAX);
    let claims = stream::iter(others.map(|dataset| dataset.batch_id.clone()).collect::<Vec<_>>())
        .map(|batch_id| async move { batches::read_claim(store, &batch_id).await })
        .buffered(READS_MAX);
    let claims: Vec<Option<Claim>> = claims.try_collect().await?;
    let other = |claim: Claim| {
        let same = ready.iter().find(|ready| ready.manifest.sha256 == claim.sha256)?;
        Some(OtherReading { file: &same.submission.file, batch_id: claim.batch_id, reading: claim.reading })
    };
    Ok(claims.into_iter().flatten().filter_map(other).collect())
}

impl OtherReading<'_> {
    /// Tells a person which other dataset the model is trained on, and how to exclude it. `store`: the location of the
    /// store.
    pub(super) fn text(&self, store: &str) -> String {
        let Self { file, batch_id, reading } = self;
        let options = match reading.is_default() {
            true => "without --rides-at and --map".to_owned(),
            false => format!("with {reading}"),
        };
        let folder = format!("{}/{}", store.trim_end_matches('/'), layout::dataset(batch_id));
        format!(
            "\nThe model is trained on the rides of {} twice: batch {batch_id} has the same bytes, read {options}.\n  To \
             exclude it, remove the folder {folder} and run the same command again.\n",
            file.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_reading_is_named_with_the_folder_to_remove() {
        let mut reading = Reading::default();
        reading.map.add("distance=km").unwrap();
        let other = OtherReading { file: Path::new("km.json"), batch_id: "b1".to_owned(), reading };
        let text = other.text("results/");
        for part in ["rides of km.json twice", "batch b1", "--map distance=km", "remove the folder results/dataset/b1"]
        {
            assert!(text.contains(part), "{part} is missing\n{text}");
        }
        let plain = OtherReading { reading: Reading::default(), ..other };
        assert!(plain.text("results").contains("without --rides-at and --map"));
    }
}
