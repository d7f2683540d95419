//! The state of a batch: a pure function of its records and its first dead letter.

use common::{
    dataset::{Claim, Manifest},
    document::Upload,
};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing is known of it: it was never submitted, or the broker has not confirmed it.
    Unknown,
    /// It waits for a splitter.
    Queued,
    /// The fleet joins its rides with weather.
    InProgress,
    /// Its dataset is complete.
    Ready,
    /// A message of it is a dead letter.
    Refused,
    /// A message of it was a dead letter, which an operator dropped.
    Dropped,
}

/// The first dead letter about a batch, as far as it decides the state. A letter about other bytes with the same batch
/// id is not about the batch ([`is_about`](common::dead_letter::is_about)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    /// The dead letter can be replayed.
    Kept,
    /// An operator dropped it.
    Dropped,
}

impl State {
    /// Derives the state of a batch from its records and its first dead letter.
    pub fn of(
        claim: Option<&Claim>,
        upload: Option<&Upload>,
        manifest: Option<&Manifest>,
        letter: Option<Letter>,
    ) -> Self {
        let recorded = match (manifest, claim, upload) {
            (Some(_), ..) => Self::Ready,
            (None, Some(_), _) => Self::InProgress,
            (None, None, Some(upload)) if upload.confirmed => Self::Queued,
            (None, None, _) => Self::Unknown,
        };
        letter.map_or(recorded, |letter| recorded.after(letter))
    }

    /// Returns the state after a dead letter became known. A complete dataset stays ready: the message was repeated.
    pub fn after(self, letter: Letter) -> Self {
        match (self, letter) {
            (Self::Ready, _) => Self::Ready,
            (_, Letter::Kept) => Self::Refused,
            (_, Letter::Dropped) => Self::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every combination of records and dead letters has the state that the table gives.
    #[test]
    fn state_of_every_combination() {
        let sha256 = "0".repeat(64);
        let claim: Claim =
            serde_json::from_value(json!({ "batch_id": "b", "sha256": sha256, "chunk_size": 1 })).unwrap();
        let upload = |confirmed: bool| -> Upload {
            serde_json::from_value(json!({
                "batch_id": "b", "sha256": sha256, "bytes": 1, "object": "raw/a", "submitted_at": "2026-11-30T00:00:00Z",
                "confirmed": confirmed,
            }))
            .unwrap()
        };
        let manifest: Manifest = serde_json::from_value(json!({
            "schema": "dataset-manifest.v1", "batch_id": "b", "sha256": sha256, "columns": [], "received": 0, "accepted": 0,
            "rejected": 0, "rejected_by_reason": {}, "without_weather": {}, "labelled": 0, "trainable": 0, "stations": {},
            "files": [],
        }))
        .unwrap();
        let (unconfirmed, confirmed) = (upload(false), upload(true));
        let letters = [None, Some(Letter::Kept), Some(Letter::Dropped)];
        use State::{Dropped, InProgress, Queued, Ready, Refused, Unknown};
        for (claim, upload, manifest, expected) in [
            (None, None, None, [Unknown, Refused, Dropped]),
            (None, Some(&unconfirmed), None, [Unknown, Refused, Dropped]),
            (None, Some(&confirmed), None, [Queued, Refused, Dropped]),
            (Some(&claim), None, None, [InProgress, Refused, Dropped]),
            (Some(&claim), Some(&unconfirmed), None, [InProgress, Refused, Dropped]),
            (Some(&claim), Some(&confirmed), None, [InProgress, Refused, Dropped]),
            (None, None, Some(&manifest), [Ready; 3]),
            (None, Some(&unconfirmed), Some(&manifest), [Ready; 3]),
            (None, Some(&confirmed), Some(&manifest), [Ready; 3]),
            (Some(&claim), None, Some(&manifest), [Ready; 3]),
            (Some(&claim), Some(&unconfirmed), Some(&manifest), [Ready; 3]),
            (Some(&claim), Some(&confirmed), Some(&manifest), [Ready; 3]),
        ] {
            let states = letters.map(|letter| State::of(claim, upload, manifest, letter));
            assert_eq!(states, expected, "claim {claim:?}, upload {upload:?}, manifest {manifest:?}");
        }
    }
}
