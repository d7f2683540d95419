//! The job: upload, publish, follow each batch to its dataset, and to the model.
//!
//! ```text
//! input    files and pipes, opened       submit   uploaded and published
//! follow   what becomes of the batches   waits, progress   how far they are, and why they stand still
//! earlier  a dataset that was there before   missed   what happened while the connection was lost
//! ```

mod earlier;
mod follow;
mod input;
mod missed;
mod progress;
mod submit;
#[cfg(test)]
mod tests;
mod waits;

pub(crate) use earlier::{Earlier, is_there};
pub(crate) use follow::{Follower, Goal, Manner};
pub(crate) use input::Input;

use crate::{
    Failed, Session,
    arguments::{Ingest, ReadingOptions, Run, Until},
    fleet::Fleet,
    report, serve,
};
use common::{
    dataset::Claim,
    message::{DatasetReady, ModelPromoted, ModelRejected},
    outcome::Failure,
    reading::Reading,
    topology::queue,
};
use jiff::Timestamp;
use records::{Store, layout, store};
use runtime::{Broker, MemoryBroker, Shutdown, client::Client, config::RunSettings};
use std::{path::PathBuf, sync::Arc, time::Duration};
use submit::{Form, submit_all};

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

/// The reading that the options of a command ask for.
fn reading(options: &ReadingOptions) -> Result<Reading, Failed> {
    options.reading().map_err(|error| Failed::Misused(anyhow::anyhow!("--map {error}")))
}

/// How the batches of this command are followed.
pub(crate) fn manner(session: &Session, goal: Goal, in_fleet: bool) -> Result<Manner, Failed> {
    let patience = Duration::from_millis(session.section::<RunSettings>()?.patience_ms);
    Ok(Manner { goal, quiet: session.shared.json, patience, in_fleet })
}

/// The files of a command, and how they are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'a> {
    /// As on the command line.
    pub(crate) paths: &'a [PathBuf],
    /// How their documents are read.
    pub(crate) reading: &'a Reading,
}

/// `run`: everything in this process.
pub(crate) async fn run(session: &Session, options: &Run) -> Result<(), Failed> {
    let (store, reading) = (session.store()?, reading(&options.reading)?);
    let files = Files { paths: &options.files, reading: &reading };
    if options.serve.serve.is_some() {
        return serve::run(session, &store, files, None).await;
    }
    let outcome = in_process(session, &store, files).await?;
    report::print(session, &store, &outcome, None).await
}

/// Runs the whole job on the in-process broker.
pub(crate) async fn in_process(session: &Session, store: &Store, files: Files<'_>) -> Result<Outcome, Failed> {
    with_fleet(session, Arc::new(MemoryBroker::new()), store, files).await
}

/// Runs the whole job with the five workers in this process, on either broker.
pub(crate) async fn with_fleet(
    session: &Session,
    broker: Arc<dyn Broker>,
    store: &Store,
    files: Files<'_>,
) -> Result<Outcome, Failed> {
    let shutdown = Shutdown::new();
    let mut fleet = Fleet::start(session, Arc::clone(&broker), store.clone(), shutdown, false)?;
    let client = Client::connect(broker.as_ref(), "wildrydes").await?;
    let followed = tokio::select! {
        followed = to_the_model(session, &broker, &client, store, files) => followed?,
        error = fleet.failure() => return Err(Failed::Broken(error)),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow::anyhow!("interrupted; run the same command again to go on where it stopped")));
        }
    };
    client.close().await;
    fleet.stop().await?;
    Ok(followed)
}

/// Hands files in and follows them until the trainer has had its say.
pub(crate) async fn to_the_model(
    session: &Session,
    broker: &Arc<dyn Broker>,
    client: &Client,
    store: &Store,
    files: Files<'_>,
) -> Result<Outcome, Failed> {
    let manner = manner(session, Goal::Model, false)?;
    let inputs = input::open_all(files.paths, manner.patience, manner.quiet).await?;
    let mut follower = Follower::start(broker, client, store).await?;
    let form = Form { batch_id: None, reading: files.reading };
    let submitted = submit_all(client, store, inputs, form, manner.quiet).await?;
    follower.follow(client, store, submitted, manner).await
}

/// `ingest`: to a fleet.
pub(crate) async fn ingest(session: &Session, options: &Ingest) -> Result<(), Failed> {
    if options.batch_id.is_some() && options.files.len() > 1 {
        return Err(Failed::Misused(anyhow::anyhow!("--batch-id names one batch: give one file, or leave it out")));
    }
    let (store, reading) = (session.store()?, reading(&options.reading)?);
    let goal = match options.until {
        Some(Until::Dataset) => Goal::Dataset,
        Some(Until::Model) => Goal::Model,
        None => Goal::ModelIfTraining,
    };
    let manner = manner(session, goal, true)?;
    let broker: Arc<dyn Broker> = session.broker()?;
    let client = Client::connect(broker.as_ref(), "wildrydes").await?;
    let inputs = input::open_all(&options.files, manner.patience, manner.quiet).await?;
    let follower = Follower::start(&broker, &client, &store).await?;
    let form = Form { batch_id: options.batch_id.as_deref(), reading: &reading };
    let submitted = submit_all(&client, &store, inputs, form, manner.quiet).await?;
    if options.detach {
        tell_submitted(session, &submitted);
        return Ok(());
    }
    match follow_to_the_end(session, &store, client, follower, submitted, manner).await {
        // The batches are in; that no model came of them was told, and was not asked for.
        Err(Failed::NoModel) if goal == Goal::ModelIfTraining => Ok(()),
        ended => ended,
    }
}

/// Names what was published, for who does not wait.
pub(crate) fn tell_submitted(session: &Session, submitted: &[Submitted]) {
    for batch in submitted {
        match session.shared.json {
            true => println!(
                "{}",
                serde_json::json!({ "file": batch.file, "batch_id": batch.batch_id, "trace_id": batch.trace_id })
            ),
            false => println!("{}: batch {} (trace {})", batch.file.display(), batch.batch_id, batch.trace_id),
        }
    }
}

/// Waits as far as the goal says, and reports.
pub(crate) async fn follow_to_the_end(
    session: &Session,
    store: &Store,
    client: Client,
    mut follower: Follower,
    submitted: Vec<Submitted>,
    manner: Manner,
) -> Result<(), Failed> {
    let outcome = tokio::select! {
        outcome = follower.follow(&client, store, submitted, manner) => outcome?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow::anyhow!(
                "no longer following; the fleet goes on. Look with `wildrydes status`, or run the same command again"
            )));
        }
    };
    client.close().await;
    report::print(session, store, &outcome, None).await
}
