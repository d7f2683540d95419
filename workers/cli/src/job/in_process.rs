//! Submits files and follows them to the model, with the workers in this process or with a running fleet.

use super::{
    fleet::Fleet,
    follow::Follower,
    input,
    manner::{Goal, manner},
    outcome::Outcome,
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
    /// How their documents are read.
    pub(crate) reading: &'a Reading,
}

/// The reading that the options of a command ask for.
pub(super) fn reading(options: &ReadingOptions) -> Result<Reading, Failed> {
    options.reading().map_err(|error| Failed::Misused(anyhow::anyhow!("--map {error}")))
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
