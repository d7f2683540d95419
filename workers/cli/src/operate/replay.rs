//! `replay`: publishes batches again from their bytes below `raw/`, with the same ids.

use crate::{
    arguments::Replay,
    job::{FollowOptions, Follower, Goal, Submission, follow_to_the_end, print_submitted},
    session::{Failed, Session},
};
use anyhow::{Context, bail};
use common::message::{BatchContent, Message, RideBatch};
use records::{Store, batches, staging, store, uploads};
use runtime::{Broker, client::Client, host};
use std::sync::Arc;

/// `replay`
pub(crate) async fn replay(session: &Session, options: &Replay) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let location = session.store_location()?;
    let ids = if options.all { batches::claimed_ids(&store).await? } else { options.batches.clone() };
    // Check every batch before anything is published, so that a missing object is reported first.
    let mut batches = Vec::new();
    for id in &ids {
        batches.push(stored_batch(&store, id).await.with_context(|| format!("batch {id} in {location}"))?);
    }
    if options.dry_run {
        for batch in &batches {
            match session.shared.json {
                true => println!("{}", serde_json::to_string(batch)?),
                false => println!("would publish batch {} from {}", id_of(batch), object(batch)),
            }
        }
        return Ok(());
    }
    let broker: Arc<dyn Broker> = session.broker()?;
    let client = Client::connect(broker.as_ref(), "wildrydes replay").await?;
    let follower = Follower::start(&broker, &client, &store).await?;
    let mut submissions = Vec::new();
    for batch in batches {
        let (was_there, at) = (batches::is_complete(&store, id_of(&batch)).await?, host::now());
        let staged_before = staging::objects(&store, id_of(&batch)).await?.remove(&None).unwrap_or_default();
        let trace_id = client.publish(&batch).await?;
        // The new split has its own staging folder: earlier staged chunks are useless.
        staging::remove(&store, staged_before).await?;
        let file = batch.source.clone().unwrap_or_else(|| object(&batch).to_owned()).into();
        let sha256 = match batch.content {
            BatchContent::Reference { sha256, .. } => sha256,
            BatchContent::Inline { .. } => String::new(),
        };
        let (batch_id, reading) = (batch.batch_id.unwrap_or_default(), batch.reading);
        submissions.push(Submission {
            file,
            batch_id,
            sha256,
            reading,
            refresh: None,
            trace_id,
            at,
            was_there,
            earlier: None,
        });
    }
    if options.detach {
        print_submitted(session, &submissions);
        client.close().await;
        return Ok(());
    }
    let follow_options = FollowOptions::new(session, Goal::Dataset, true)?;
    follow_to_the_end(session, &store, client, follower, submissions, follow_options).await
}

fn id_of(batch: &RideBatch) -> &str {
    batch.batch_id.as_deref().unwrap_or_default()
}

fn object(batch: &RideBatch) -> &str {
    match &batch.content {
        BatchContent::Reference { object, .. } => object,
        BatchContent::Inline { .. } => "",
    }
}

/// Returns the message of a batch, after checking that the store has its bytes.
async fn stored_batch(store: &Store, batch_id: &str) -> anyhow::Result<RideBatch> {
    let Some(claim) = batches::read_claim(store, batch_id).await? else {
        bail!("no such batch: it was never split. See `wildrydes status` and `wildrydes dead list --batch {batch_id}`");
    };
    let sha256 = claim.sha256;
    // Some claims do not name the object of their bytes.
    let mut failures = Vec::new();
    for candidate in claim.object.into_iter().chain(uploads::named_after(store, &sha256).await?) {
        match store::sha256(store, &candidate).await? {
            Some(found) if found == sha256 => {
                let content = BatchContent::Reference { object: candidate, sha256 };
                let batch = RideBatch {
                    batch_id: Some(claim.batch_id),
                    source: claim.source,
                    reading: claim.reading,
                    refresh: None,
                    content,
                };
                batch.check()?;
                return Ok(batch);
            }
            Some(found) => failures.push(format!("{candidate} has sha256 {found}")),
            None => failures.push(format!("{candidate} is missing")),
        }
    }
    let failures = if failures.is_empty() { "no object of it is known".to_owned() } else { failures.join(", ") };
    bail!(
        "its bytes, sha256 {sha256}, are not in the store: {failures}. Submit the original again with `wildrydes ingest`, or restore it under that name"
    )
}
