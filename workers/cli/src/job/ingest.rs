//! `ingest`: submits files to a fleet and follows them.

use super::{
    follow::Follower,
    in_process::reading,
    input,
    options::{FollowOptions, Goal},
    outcome::Submission,
    report,
    submit::{Form, submit_all},
};
use crate::{
    arguments::{Ingest, Until},
    session::{Failed, Session},
};
use records::Store;
use runtime::{Broker, client::Client};
use std::sync::Arc;

/// `ingest`
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
    let follow_options = FollowOptions::new(session, goal, true)?;
    let broker: Arc<dyn Broker> = session.broker()?;
    let client = Client::connect(broker.as_ref(), "wildrydes").await?;
    let inputs = input::open_all(&options.files, follow_options.patience, follow_options.quiet).await?;
    let follower = Follower::start(&broker, &client, &store).await?;
    let form = Form { batch_id: options.batch_id.as_deref(), reading: &reading };
    let submissions = submit_all(&client, &store, inputs, form, follow_options.quiet).await?;
    if options.detach {
        print_submitted(session, &submissions);
        return Ok(());
    }
    match follow_to_the_end(session, &store, client, follower, submissions, follow_options).await {
        // The batches are complete. The missing model has been reported, and the command does not require one.
        Err(Failed::NoModel) if goal == Goal::ModelIfTraining => Ok(()),
        ended => ended,
    }
}

/// Prints what was published, for a command that does not wait.
pub(crate) fn print_submitted(session: &Session, submissions: &[Submission]) {
    for batch in submissions {
        match session.shared.json {
            true => println!(
                "{}",
                serde_json::json!({ "file": batch.file, "batch_id": batch.batch_id, "trace_id": batch.trace_id })
            ),
            false => println!("{}: batch {} (trace {})", batch.file.display(), batch.batch_id, batch.trace_id),
        }
    }
}

/// Waits until the goal of `follow_options` is reached, and prints the report.
pub(crate) async fn follow_to_the_end(
    session: &Session,
    store: &Store,
    client: Client,
    mut follower: Follower,
    submissions: Vec<Submission>,
    follow_options: FollowOptions,
) -> Result<(), Failed> {
    let outcome = tokio::select! {
        outcome = follower.follow(&client, store, submissions, follow_options) => outcome?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow::anyhow!(
                "no longer following; the fleet continues. See `wildrydes status`, or run the same command again"
            )));
        }
    };
    client.close().await;
    report::print(session, store, &outcome, None).await
}
