//! `ingest`: submits files to a fleet and follows them.

use super::{
    follow::Follower,
    in_process::reading,
    input,
    manner::{Goal, Manner, manner},
    outcome::Submitted,
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
        print_submitted(session, &submitted);
        return Ok(());
    }
    match follow_to_the_end(session, &store, client, follower, submitted, manner).await {
        // The batches are in; that no model came of them was told, and was not asked for.
        Err(Failed::NoModel) if goal == Goal::ModelIfTraining => Ok(()),
        ended => ended,
    }
}

/// Names what was published, for who does not wait.
pub(crate) fn print_submitted(session: &Session, submitted: &[Submitted]) {
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
