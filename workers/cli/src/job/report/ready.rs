//! Batches whose datasets are ready.

use crate::job::outcome::Submitted;
use common::{dataset::Manifest, message::DatasetReady};

/// A batch with its dataset.
pub(super) struct Ready<'a> {
    pub(super) submitted: &'a Submitted,
    pub(super) dataset: &'a DatasetReady,
    pub(super) manifest: Manifest,
}

/// Batches of which no ride can be used, in words: their datasets are ready, and empty.
pub(super) fn unusable(ready: &[Ready<'_>]) -> Vec<String> {
    let empty = ready.iter().filter(|ready| ready.manifest.accepted == 0);
    let words = empty.map(|Ready { submitted, manifest, .. }| {
        let file = submitted.file.display();
        match manifest.received {
            0 => format!("{file} holds no ride: there is nothing to join and nothing to train on"),
            1 => format!("the only ride of {file} was rejected: there is nothing to train on"),
            received => format!("all {received} rides of {file} were rejected: there is nothing to train on"),
        }
    });
    words.collect()
}
