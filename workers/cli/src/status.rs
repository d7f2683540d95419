//! `status`: what has become of the batches (from the store), and what waits in the queues (from the broker, when named).

use crate::{Failed, Session, arguments::Status, job::staged, output::legible, remote::Remote};
use common::{
    contract::{
        dataset::{Claim, Manifest},
        layout,
        message::WorkerControl,
        topology::{dead_queue, queue, rung_queue, rungs_of},
    },
    runtime::{Store, client::Client, control, store},
};
use futures::TryStreamExt;
use serde::Serialize;

#[derive(Serialize)]
struct BatchStatus {
    batch_id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    sha256: String,
    chunk_size: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    staged_rides: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Manifest>,
}

#[derive(Serialize)]
struct QueueStatus {
    queue: String,
    messages: u64,
    consumers: u64,
    waiting_for_retry: u64,
    dead: u64,
}

/// `status`
pub(crate) async fn status(session: &Session, options: &Status) -> Result<(), Failed> {
    let batch = options.batch.as_deref();
    if let Some(remote) = Remote::of(&options.remote)? {
        return remote.status(session, batch).await;
    }
    let store = session.store_if_there()?;
    let (mut batches, mut paused) = (Vec::new(), Vec::new());
    if let Some(store) = &store {
        for claim in claims(store, batch).await? {
            batches.push(look(store, claim).await?);
        }
        paused = self::paused(store).await?;
    } else if batch.is_some() {
        return Err(Failed::Broken(anyhow::anyhow!(session.no_store()?)));
    } else if session.shared.json {
        eprintln!("{}", session.no_store()?);
    }
    if let Some(batch_id) = batch
        && batches.is_empty()
    {
        return Err(Failed::Broken(anyhow::anyhow!(
            "no batch {batch_id} in {}: not handed in yet, or refused (look at the dead letters of the splitter)",
            session.store_place()?
        )));
    }
    let asked = session.configuration.sets("broker.url");
    let queues = if asked { queues(session).await? } else { Vec::new() };
    if session.shared.json {
        let told = serde_json::json!({ "batches": batches, "queues": queues, "paused": paused });
        println!("{}", serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    for status in &batches {
        println!("{}", line(status));
        if batch.is_some()
            && let Some(manifest) = &status.manifest
        {
            println!("{}", serde_json::to_string_pretty(manifest)?);
        }
    }
    if store.is_none() {
        println!("{}", session.no_store()?);
    } else if batches.is_empty() {
        println!("no batches in {}", session.store_place()?);
    }
    if !queues.is_empty() {
        println!("\n{:<18}{:>10}{:>11}{:>9}{:>7}", "queue", "messages", "consumers", "retries", "dead");
    }
    for q in queues {
        println!("{:<18}{:>10}{:>11}{:>9}{:>7}", q.queue, q.messages, q.consumers, q.waiting_for_retry, q.dead);
    }
    if !paused.is_empty() {
        println!();
    }
    for WorkerControl { worker, by, at, why, .. } in paused {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        println!("{}", legible(&format!("{worker} is paused since {at} by {by}{why}"), false));
    }
    Ok(())
}

/// The workers that are paused, in the order of the flow.
async fn paused(store: &Store) -> Result<Vec<WorkerControl>, Failed> {
    let mut paused = Vec::new();
    for worker in queue::ALL {
        paused.extend(control::read(store, worker).await?.filter(|control| control.paused));
    }
    Ok(paused)
}

async fn claims(store: &Store, batch: Option<&str>) -> Result<Vec<Claim>, Failed> {
    if let Some(batch_id) = batch {
        return Ok(store::read_json(store, &layout::claim(batch_id)).await?.into_iter().collect());
    }
    let prefix = object_store::path::Path::from(layout::BATCHES);
    let mut paths: Vec<String> =
        store.list(Some(&prefix)).map_ok(|found| found.location.to_string()).try_collect().await?;
    paths.sort_unstable();
    let mut claims = Vec::new();
    for path in paths {
        claims.extend(store::read_json::<Claim>(store, &path).await?);
    }
    Ok(claims)
}

async fn look(store: &Store, claim: Claim) -> Result<BatchStatus, Failed> {
    let manifest: Option<Manifest> = store::read_json(store, &layout::manifest(&claim.batch_id)).await?;
    let progress = if manifest.is_none() { staged(store, &claim.batch_id).await } else { None };
    Ok(BatchStatus {
        state: if manifest.is_some() { "ready" } else { "in progress" },
        staged_rides: progress.as_ref().map(|progress| progress.rides),
        accepted: manifest.as_ref().map(|m| m.accepted).or(progress.and_then(|progress| progress.total)),
        batch_id: claim.batch_id,
        source: claim.source,
        sha256: claim.sha256,
        chunk_size: claim.chunk_size,
        manifest,
    })
}

fn line(status: &BatchStatus) -> String {
    let source = legible(status.source.as_deref().unwrap_or_default(), false);
    let id = &status.batch_id;
    match (&status.manifest, status.staged_rides) {
        (Some(m), _) => format!(
            "{id:<18} ready        {} received, {} rejected, {} to train on   {source}",
            m.received, m.rejected, m.trainable
        ),
        (None, staged) => {
            let of = status.accepted.map_or("a number not yet known".to_owned(), |total| total.to_string());
            format!("{id:<18} in progress  {} of {of} rides joined   {source}", staged.unwrap_or(0))
        }
    }
}

async fn queues(session: &Session) -> Result<Vec<QueueStatus>, Failed> {
    let client = Client::connect(session.broker()?.as_ref(), "wildrydes status").await?;
    let mut all = Vec::new();
    for name in queue::ALL {
        let depth = client.depth(name).await?;
        let mut waiting_for_retry = 0;
        for rung in 0..rungs_of(name).len() {
            waiting_for_retry += client.depth(&rung_queue(name, rung)).await?.messages;
        }
        let dead = client.depth(&dead_queue(name)).await?.messages;
        let (messages, consumers) = (depth.messages, depth.consumers);
        all.push(QueueStatus { queue: name.to_owned(), messages, consumers, waiting_for_retry, dead });
    }
    client.close().await;
    Ok(all)
}
