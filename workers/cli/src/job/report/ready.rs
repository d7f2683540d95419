//! Batches whose datasets are complete.

use crate::job::outcome::Submission;
use common::{dataset::Manifest, message::DatasetReady};

/// A batch with its dataset.
pub(super) struct ReadyBatch<'a> {
    pub(super) submission: &'a Submission,
    /// The announcement of the newest revision.
    pub(super) dataset: DatasetReady,
    pub(super) manifest: Manifest,
}

/// Returns a sentence for every batch with an empty dataset.
pub(super) fn unusable(ready: &[ReadyBatch<'_>]) -> Vec<String> {
    let empty = ready.iter().filter(|ready| ready.manifest.accepted == 0);
    let sentences = empty.map(|ReadyBatch { submission, manifest, .. }| {
        let file = submission.file.display();
        match manifest.received {
            0 => format!("{file} contains no ride: there is nothing to join and nothing to train on"),
            1 => format!("the only ride of {file} was rejected: there is nothing to train on"),
            received => format!("all {received} rides of {file} were rejected: there is nothing to train on"),
        }
    });
    sentences.collect()
}
