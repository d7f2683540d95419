//! What a command submitted, and the outcome.

use super::earlier::Earlier;
use common::{
    dataset::Claim,
    message::{DatasetReady, ModelPromoted, ModelRejected},
    outcome::Failure,
    reading::Reading,
    topology::queue,
};
use jiff::Timestamp;
use records::{Store, layout, store};
use std::path::PathBuf;

/// A file that was handed in.
pub(crate) struct Submitted {
    /// As on the command line.
    pub(crate) file: PathBuf,
    /// Known beforehand unless the document names another inside.
    pub(crate) batch_id: String,
    /// SHA-256 of its bytes, 64 hex digits; tells it from another publisher's batch with the same id.
    pub(crate) sha256: String,
    /// How its bytes are read.
    pub(crate) reading: Reading,
    /// By which it is known in every log.
    pub(crate) trace_id: String,
    /// When it was handed in.
    pub(crate) at: Timestamp,
    /// Whether its dataset was complete before the batch was handed in.
    pub(crate) was_there: bool,
    /// The report on a dataset that an earlier command produced.
    pub(crate) earlier: Option<Earlier>,
}

impl Submitted {
    /// Returns the claim on its id; `None` if there is none yet, or if another publisher's batch has the id.
    pub(crate) async fn claim(&self, store: &Store) -> Result<Option<Claim>, Failure> {
        let claim: Option<Claim> = store::read_json(store, &layout::claim(&self.batch_id)).await?;
        Ok(claim.filter(|claim| claim.sha256 == self.sha256 && claim.reading == self.reading))
    }
}

/// What became of a batch.
pub(crate) enum BatchOutcome {
    /// Its dataset is ready.
    Ready(DatasetReady),
    /// A message of the batch, or some of its chunks, are dead letters: the batch gets no dataset.
    Refused {
        /// The queue whose dead letters it is among.
        queue: String,
        /// Stable code.
        reason: String,
        /// In words.
        why: String,
        /// Dead letters of the batch so far, of which this is the first.
        letters: u32,
    },
}

impl BatchOutcome {
    /// Why there is no dataset, in words; `None` when there is one. `in_fleet` as in [`Manner`].
    pub(crate) fn refusal(&self, submitted: &Submitted, in_fleet: bool) -> Option<String> {
        let Self::Refused { queue, reason, why, letters } = self else { return None };
        let (file, batch_id) = (submitted.file.display(), &submitted.batch_id);
        if queue == queue::SPLITTER {
            return Some(format!("{file} was refused by the {queue}: {reason}: {why}"));
        }
        let of_it = match letters {
            1 => "1 message of the batch is a dead letter".to_owned(),
            more => format!("{more} messages of the batch are dead letters"),
        };
        let way_out = match in_fleet {
            true => format!(
                "`wildrydes dead list --batch {batch_id}` shows them; once the cause is mended, `wildrydes dead replay --batch \
                 {batch_id}` goes on"
            ),
            false => "mend the cause and run the same command again: it goes on where it stopped".to_owned(),
        };
        Some(format!("{file} failed in the {queue}: {reason}: {why} ({of_it}). {way_out}"))
    }
}

/// What became of the training.
pub(crate) enum ModelOutcome {
    /// There is a model.
    Promoted(ModelPromoted),
    /// There is none, and why.
    Rejected(ModelRejected),
    /// The training is a dead letter.
    Failed {
        /// Stable code.
        reason: String,
        /// In words.
        why: String,
    },
}

/// What became of all.
pub(crate) struct Outcome {
    /// In the order of the command line.
    pub(crate) batches: Vec<(Submitted, BatchOutcome)>,
    /// The last word of the trainer, when it was waited for.
    pub(crate) model: Option<ModelOutcome>,
    /// As in [`Manner`].
    pub(crate) in_fleet: bool,
}
