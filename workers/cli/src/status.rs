//! `status`: what has become of the batches (from the store), and what waits in the queues (from the broker, when named).

mod batches;
#[cfg(test)]
mod tests;

use crate::{Failed, Session, arguments::Status, output::legible, remote::Remote};
use batches::BatchStatus;
use common::{
    contract::{
        dead_letter::Letter,
        message::WorkerControl,
        topology::{dead_queue, queue, rung_queue, rungs_of},
    },
    runtime::{Store, client::Client, config::BrokerSettings, control},
};
use serde::Serialize;

#[derive(Serialize)]
struct QueueStatus {
    queue: String,
    messages: u64,
    consumers: u64,
    waiting_for_retry: u64,
    dead: u64,
    paused: bool,
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
        batches = batches::all(store, batch).await?;
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
    let (queues, refused) = if asked { broker(session, &paused, batch).await? } else { (Vec::new(), Vec::new()) };
    let refused = batches::merge(&mut batches, refused);
    if session.shared.json {
        let told = serde_json::json!({ "batches": batches, "refused": refused, "queues": queues, "paused": paused });
        println!("{}", serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    for line in batches::table(&batches, &refused) {
        println!("{line}");
    }
    if let [BatchStatus { manifest: Some(manifest), .. }] = &batches[..]
        && batch.is_some()
    {
        println!("{}", serde_json::to_string_pretty(manifest)?);
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
        let paused = if q.paused { "   paused" } else { "" };
        println!("{:<18}{:>10}{:>11}{:>9}{:>7}{paused}", q.queue, q.messages, q.consumers, q.waiting_for_retry, q.dead);
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

/// Dead letters of each queue that are looked at.
const LETTERS_MAX: usize = 500;

/// The queues, and the dead letters that are batches or parts of them.
async fn broker(
    session: &Session,
    paused: &[WorkerControl],
    batch: Option<&str>,
) -> Result<(Vec<QueueStatus>, Vec<Letter>), Failed> {
    let client = Client::connect(session.broker()?.as_ref(), "wildrydes status").await?;
    let namespace = session.section::<BrokerSettings>()?.namespace;
    let (mut all, mut letters) = (Vec::new(), Vec::new());
    for name in queue::ALL {
        let depth = client.depth(name).await?;
        let mut waiting_for_retry = 0;
        for rung in 0..rungs_of(name).len() {
            waiting_for_retry += client.depth(&rung_queue(name, rung)).await?.messages;
        }
        let dead = client.depth(&dead_queue(name)).await?.messages;
        let (messages, consumers) = (depth.messages, depth.consumers);
        let paused = paused.iter().any(|control| control.worker == name);
        all.push(QueueStatus { queue: name.to_owned(), messages, consumers, waiting_for_retry, dead, paused });
        if dead > 0 && [queue::SPLITTER, queue::WEATHER_FETCHER, queue::MERGER].contains(&name) {
            let mut browser = client.browse(&dead_queue(name)).await?;
            for _ in 0..LETTERS_MAX {
                let Some(found) = browser.next().await? else { break };
                letters.push(Letter::read(name, &namespace, &found.properties, &found.body));
            }
            browser.close().await?;
        }
    }
    client.close().await;
    letters.retain(|letter| batch.is_none_or(|batch| letter.batch_id.as_deref() == Some(batch)));
    letters.sort_by_key(|letter| letter.dead_at);
    Ok((all, letters))
}
