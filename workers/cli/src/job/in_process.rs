//! Submits files and follows them to the model, with the workers in this process or with a running fleet.

use super::{
    fleet::Fleet,
    follow::Follower,
    input,
    options::{FollowOptions, Goal},
    outcome::{BatchOutcome, Outcome, Submission},
    refresh::{begin_all, outcome_of},
    submit::{Form, submit_all},
};
use crate::{
    arguments::ReadingOptions,
    session::{Failed, Session},
};
use common::reading::Reading;
use records::Store;
use runtime::{Broker, MemoryBroker, Shutdown, client::Client};
use std::{path::PathBuf, sync::Arc};

/// The files of a command, and how they are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'a> {
    /// As on the command line.
    pub(crate) paths: &'a [PathBuf],
    /// How the documents are read.
    pub(crate) reading: &'a Reading,
    /// Whether the rides of an earlier command are joined again.
    pub(crate) refresh: bool,
}

/// Returns the reading that the options describe.
pub(super) fn reading(options: &ReadingOptions) -> Result<Reading, Failed> {
    options.reading().map_err(|error| Failed::Misused(anyhow::anyhow!("--map {error}")))
}

/// Runs the whole job on the in-process broker.
pub(crate) async fn in_process(session: &Session, store: &Store, files: Files<'_>) -> Result<Outcome, Failed> {
    with_fleet(session, Arc::new(MemoryBroker::new()), store, files).await
}

/// Runs the whole job with all workers in this process, on either broker.
pub(crate) async fn with_fleet(
    session: &Session,
    broker: Arc<dyn Broker>,
    store: &Store,
    files: Files<'_>,
) -> Result<Outcome, Failed> {
    let shutdown = Shutdown::new();
    let mut fleet = Fleet::start(session, Arc::clone(&broker), store.clone(), shutdown, None)?;
    let client = Client::connect(broker.as_ref(), "wildrydes").await?;
    let outcome = tokio::select! {
        outcome = to_the_model(session, &broker, &client, store, files) => outcome?,
        error = fleet.failure() => return Err(Failed::Broken(error)),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow::anyhow!("interrupted; the same command continues where it stopped")));
        }
    };
    client.close().await;
    fleet.stop().await?;
    Ok(outcome)
}

/// Submits files and follows them until the trainer has promoted or rejected a model.
pub(crate) async fn to_the_model(
    session: &Session,
    broker: &Arc<dyn Broker>,
    client: &Client,
    store: &Store,
    files: Files<'_>,
) -> Result<Outcome, Failed> {
    let follow_options = FollowOptions::new(session, Goal::Model, false)?;
    let inputs = input::open_all(files.paths, follow_options.patience, follow_options.quiet).await?;
    let mut follower = Follower::start(broker, client, store).await?;
    let form = Form { batch_id: None, reading: files.reading };
    let submissions = submit_all(client, store, inputs, form, follow_options.quiet).await?;
    let mut outcome = follower.follow(client, store, submissions, follow_options).await?;
    if files.refresh {
        refresh_earlier(client, store, &mut follower, follow_options, &mut outcome).await?;
    }
    Ok(outcome)
}

/// Joins the batches again whose datasets an earlier command produced, and follows them to the model.
async fn refresh_earlier(
    client: &Client,
    store: &Store,
    follower: &mut Follower,
    follow_options: FollowOptions,
    outcome: &mut Outcome,
) -> Result<(), Failed> {
    let is_earlier = |(submission, _): &&(Submission, BatchOutcome)| submission.earlier.is_some();
    let mut ids: Vec<String> =
        outcome.batches.iter().filter(is_earlier).map(|(submission, _)| submission.batch_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    let submissions = begin_all(client, store, &ids, false).await?;
    let refreshed = follower.follow(client, store, submissions, follow_options).await?;
    outcome.model = refreshed.model.or(outcome.model.take());
    for (again, ended) in refreshed.batches {
        let changes = outcome_of(store, &again).await?;
        let same_batch = |(submission, _): &&mut (Submission, BatchOutcome)| submission.batch_id == again.batch_id;
        for (submission, batch) in outcome.batches.iter_mut().filter(same_batch) {
            batch.clone_from(&ended);
            if let Some(earlier) = &mut submission.earlier {
                earlier.refreshed.clone_from(&changes);
            }
        }
    }
    Ok(())
}
