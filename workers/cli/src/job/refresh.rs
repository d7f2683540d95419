//! `refresh`: joins batches again with the weather as of now, with a fleet or in this process.

use super::{
    earlier::in_words,
    fleet::Fleet,
    follow::Follower,
    options::{FollowOptions, Goal},
    outcome::{BatchOutcome, ModelOutcome, Outcome, Submission},
};
use crate::{
    arguments::Refresh as RefreshOptions,
    output::{legible, print_json},
    session::{Failed, Session, user_and_host},
};
use anyhow::{Context, anyhow};
use common::{document::RefreshOutcome, message::BatchContent, outcome::Failure};
use records::{
    Store,
    refreshes::{self, Begun},
};
use runtime::{Broker, MemoryBroker, Shutdown, client::Client, host};
use serde_json::json;
use std::sync::Arc;

/// `refresh`
pub(crate) async fn refresh(session: &Session, options: &RefreshOptions) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let ids = match options.stale {
        true => refreshes::stale(&store).await?.into_iter().map(|stale| stale.batch_id).collect(),
        false => options.batches.clone(),
    };
    if options.dry_run || ids.is_empty() {
        return print_selected(session, &ids);
    }
    if session.shared.broker.is_none() && !session.configuration.sets("broker.url") {
        if options.no_wait {
            return Err(Failed::Misused(anyhow!(
                "--no-wait leaves the work to a fleet: name its broker with --broker"
            )));
        }
        session.prove(&store).await?;
        return in_process(session, &store, &ids, options.stale).await;
    }
    let broker: Arc<dyn Broker> = session.broker()?;
    let client = Client::connect(broker.as_ref(), "wildrydes refresh").await?;
    let mut follower = Follower::start(&broker, &client, &store).await?;
    let submissions = begin_all(&client, &store, &ids, options.stale).await?;
    if options.no_wait {
        print_begun(session, &submissions);
        client.close().await;
        return Ok(());
    }
    let follow_options = FollowOptions::new(session, Goal::Dataset, true)?;
    let outcome = tokio::select! {
        outcome = follower.follow(&client, &store, submissions, follow_options) => outcome?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow!(
                "no longer following; the fleet continues. The same command joins the refresh in progress"
            )));
        }
    };
    client.close().await;
    print(session, &store, &outcome).await
}

/// Refreshes batches with all workers in this process, and trains on the revisions. `skips` as for [`begin_all`].
async fn in_process(session: &Session, store: &Store, ids: &[String], skips: bool) -> Result<(), Failed> {
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
    let mut fleet = Fleet::start(session, Arc::clone(&broker), store.clone(), Shutdown::new(), None)?;
    let client = Client::connect(broker.as_ref(), "wildrydes refresh").await?;
    let follow_options = FollowOptions::new(session, Goal::Model, false)?;
    let following = async {
        let mut follower = Follower::start(&broker, &client, store).await?;
        let submissions = begin_all(&client, store, ids, skips).await?;
        follower.follow(&client, store, submissions, follow_options).await
    };
    let outcome = tokio::select! {
        outcome = following => outcome?,
        error = fleet.failure() => return Err(Failed::Broken(error)),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow!("interrupted; the same command continues where it stopped")));
        }
    };
    client.close().await;
    fleet.stop().await?;
    print(session, store, &outcome).await
}

/// Begins a refresh of each batch, or joins the one in progress, and publishes it. All of them have the same time, so that the fleet
/// fetches the weather of their stations once. With `skips`, leaves out batches that cannot be refreshed, with a line in the log.
pub(super) async fn begin_all(
    client: &Client,
    store: &Store,
    ids: &[String],
    skips: bool,
) -> Result<Vec<Submission>, Failed> {
    let (now, by) = (host::now(), format!("{} (wildrydes refresh)", user_and_host()));
    let mut submissions = Vec::new();
    for id in ids {
        let Begun { attempt, message, .. } = match refreshes::begin(store, id, now, &by).await {
            Err(Failure::Permanent { why, .. }) if skips => {
                tracing::error!(batch_id = id, why, "this batch is not refreshed");
                continue;
            }
            begun => begun.with_context(|| format!("batch {id}"))?,
        };
        let trace_id = client.publish(&message).await?;
        let sha256 = match message.content {
            BatchContent::Reference { sha256, .. } => sha256,
            BatchContent::Inline { .. } => String::new(),
        };
        submissions.push(Submission {
            file: message.source.unwrap_or_else(|| id.clone()).into(),
            batch_id: id.clone(),
            sha256,
            reading: message.reading,
            refresh: Some(attempt.refresh),
            trace_id,
            at: now,
            was_there: false,
            earlier: None,
        });
    }
    Ok(submissions)
}

/// Reads the outcome of a refresh that a command followed to its end; `None` if a message of it is a dead letter.
pub(super) async fn outcome_of(store: &Store, submission: &Submission) -> Result<Option<RefreshOutcome>, Failed> {
    match submission.refresh {
        Some(refresh) => Ok(refreshes::ended(store, &submission.batch_id, refresh.attempt).await?),
        None => Ok(None),
    }
}

/// Prints the selected batches, of which none is refreshed.
fn print_selected(session: &Session, ids: &[String]) -> Result<(), Failed> {
    match (session.shared.json, ids) {
        (true, _) => print_json(&json!({ "batches": ids }))?,
        (false, []) => println!("no batch waits for weather to be published"),
        (false, ids) => ids.iter().for_each(|id| println!("would refresh batch {id}")),
    }
    Ok(())
}

/// Prints what was published, for a command that does not wait.
fn print_begun(session: &Session, submissions: &[Submission]) {
    for Submission { batch_id, refresh, trace_id, .. } in submissions {
        let attempt = refresh.map(|refresh| refresh.attempt.get());
        match session.shared.json {
            true => println!("{}", json!({ "batch_id": batch_id, "attempt": attempt, "trace_id": trace_id })),
            false => println!("batch {batch_id}: refresh {} (trace {trace_id})", attempt.unwrap_or_default()),
        }
    }
}

/// Prints what became of each batch, and of the training in this process.
async fn print(session: &Session, store: &Store, outcome: &Outcome) -> Result<(), Failed> {
    let (mut refreshed, mut refused) = (Vec::new(), Vec::new());
    for (submission, batch) in &outcome.batches {
        match batch {
            BatchOutcome::Ready(_) => refreshed.extend(outcome_of(store, submission).await?),
            BatchOutcome::Refused { .. } => {
                let refusal = batch.refusal(submission, outcome.in_fleet);
                refused.extend(refusal.map(|text| legible(&text, false).into_owned()));
            }
        }
    }
    let model = match &outcome.model {
        Some(ModelOutcome::Promoted(promoted)) => Some(format!("model {} is the champion", promoted.model_id)),
        Some(ModelOutcome::Rejected(rejected)) => Some(format!("no new champion: {}", rejected.why)),
        Some(ModelOutcome::Failed { why, .. }) => Some(format!("the training failed: {why}")),
        None => None,
    };
    match session.shared.json {
        true => print_json(&json!({ "refreshed": refreshed, "refused": refused, "training": model }))?,
        false => {
            refreshed.iter().for_each(|one| println!("batch {}: {}", one.batch_id, in_words(one)));
            model.iter().for_each(|text| println!("{}", legible(text, false)));
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Failed::Refused(refused.join("\n"))) }
}
