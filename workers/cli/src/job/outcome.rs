//! What a command submitted, and the outcome.

use super::earlier::EarlierDataset;
use common::{
    dataset::Claim,
    message::{DatasetReady, ModelPromoted, ModelRejected, Refresh},
    outcome::Failure,
    reading::Reading,
    topology::queue,
};
use jiff::Timestamp;
use records::{Store, batches};
use std::path::PathBuf;

/// A submitted file.
pub(crate) struct Submission {
    /// As on the command line.
    pub(crate) file: PathBuf,
    /// Id of its batch. Replaced once the dataset is ready if the document contains another id.
    pub(crate) batch_id: String,
    /// SHA-256 of its bytes, 64 hex digits; distinguishes it from another publisher's batch with the same id.
    pub(crate) sha256: String,
    /// How its bytes are read.
    pub(crate) reading: Reading,
    /// The attempt to join it again, if that is what was submitted.
    pub(crate) refresh: Option<Refresh>,
    /// Trace id, 32 hex digits.
    pub(crate) trace_id: String,
    /// When it was submitted.
    pub(crate) at: Timestamp,
    /// Whether its dataset was complete before the batch was submitted.
    pub(crate) was_there: bool,
    /// The report on a dataset that an earlier command produced.
    pub(crate) earlier: Option<EarlierDataset>,
}

impl Submission {
    /// Returns the claim on its id; `None` if there is none yet, or if another publisher's batch has the id.
    pub(crate) async fn claim(&self, store: &Store) -> Result<Option<Claim>, Failure> {
        let claim = batches::read_claim(store, &self.batch_id).await?;
        Ok(claim.filter(|claim| claim.sha256 == self.sha256 && claim.reading == self.reading))
    }
}

/// The outcome of a batch.
#[derive(Clone)]
pub(crate) enum BatchOutcome {
    /// Its dataset is ready.
    Ready(DatasetReady),
    /// A message of the batch, or some of its chunks, are dead letters: the batch gets no dataset.
    Refused {
        /// The worker queue of the first dead letter.
        queue: String,
        /// Stable code.
        reason: String,
        /// In words.
        why: String,
        /// Number of dead letters of the batch so far.
        letters: u32,
    },
}

impl BatchOutcome {
    /// Returns why there is no dataset, for a person; `None` if there is one. `in_fleet` as in
    /// [`FollowOptions`](super::options::FollowOptions).
    pub(crate) fn refusal(&self, submission: &Submission, in_fleet: bool) -> Option<String> {
        let Self::Refused { queue, reason, why, letters } = self else { return None };
        let (file, batch_id) = (submission.file.display(), &submission.batch_id);
        if queue == queue::SPLITTER {
            return Some(format!("{file} was refused by the {queue}: {reason}: {why}"));
        }
        let count = match letters {
            1 => "1 message of the batch is a dead letter".to_owned(),
            more => format!("{more} messages of the batch are dead letters"),
        };
        let remedy = match in_fleet {
            true => format!(
                "`wildrydes dead list --batch {batch_id}` shows them; repair the cause, then `wildrydes dead replay --batch \
                 {batch_id}` continues"
            ),
            false => "repair the cause and run the same command again: it continues where it stopped".to_owned(),
        };
        Some(format!("{file} failed in the {queue}: {reason}: {why} ({count}). {remedy}"))
    }
}

/// The outcome of the training.
pub(crate) enum ModelOutcome {
    /// A model was promoted.
    Promoted(ModelPromoted),
    /// No model was promoted.
    Rejected(ModelRejected),
    /// The message to the trainer is a dead letter.
    Failed {
        /// Stable code.
        reason: String,
        /// In words.
        why: String,
    },
}

/// The outcome of a command.
pub(crate) struct Outcome {
    /// In the order of the command line.
    pub(crate) batches: Vec<(Submission, BatchOutcome)>,
    /// The trainer's last decision, if the command waited for it.
    pub(crate) model: Option<ModelOutcome>,
    /// As in [`FollowOptions`](super::options::FollowOptions).
    pub(crate) in_fleet: bool,
}
