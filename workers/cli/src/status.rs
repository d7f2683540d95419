//! `status`: what has become of the batches (from the store), and what waits in the queues (from the broker, when named).

mod batches;
#[cfg(test)]
mod tests;

use crate::{Failed, Session, arguments::Status, dead, output::legible, remote::Remote};
use batches::{BatchStatus, Listing, Which};
use common::{
    dead_letter::Letter,
    message::WorkerControl,
    topology::{dead_queue, queue, retry_delays_of, retry_queue},
};
use gateway::LETTERS_READ_MAX;
use records::{Store, StoreSettings, control, store};
use runtime::{client::Client, config::BrokerSettings};
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
    let limit = (!options.all).then_some(options.limit as usize);
    if let Some(remote) = Remote::of(&options.remote)? {
        return remote.status(session, batch, limit).await;
    }
    let store = session.store_if_there()?;
    let paused = match &store {
        Some(store) => self::paused(store).await?,
        None if batch.is_some() => return Err(Failed::Broken(anyhow::anyhow!(session.no_store()?))),
        None => Vec::new(),
    };
    if store.is_none() && session.shared.json {
        eprintln!("{}", session.no_store()?);
    }
    let asked = session.configuration.sets("broker.url");
    let (queues, letters) = if asked { broker(session, &paused, batch).await? } else { (Vec::new(), Vec::new()) };
    let which = match (batch, limit) {
        (Some(batch), _) => Which::One(batch),
        (None, Some(limit)) => Which::Newest(limit),
        (None, None) => Which::All,
    };
    let mut listing = match &store {
        Some(store) => listing(session, store, which, &letters, &paused).await?,
        None => Listing::default(),
    };
    let refused = batches::merge(&mut listing.batches, letters);
    listing.leave_out_older_ready();
    let Listing { mut batches, mut notes, .. } = listing;
    batches::without_reader(&mut batches, &queues);
    notes.extend(queues.iter().filter_map(|queue| letters_note(&queue.queue, queue.dead)));
    if let Some(batch_id) = batch
        && batches.is_empty()
        && refused.is_empty()
    {
        let look = if asked { "" } else { "; --broker looks for its dead letter" };
        return Err(Failed::Broken(anyhow::anyhow!(
            "no batch {batch_id} in {}: it was not handed in, it still waits for the splitter, or it was refused{look}",
            session.store_place()?
        )));
    }
    if session.shared.json {
        let told = serde_json::json!({
            "batches": batches, "refused": refused, "queues": queues, "paused": paused, "notes": notes,
        });
        println!("{}", serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    for line in batches::table(&batches, &refused) {
        println!("{line}");
    }
    for note in notes {
        println!("{}", legible(&note, false));
    }
    if let [BatchStatus { manifest: Some(manifest), .. }] = &batches[..]
        && batch.is_some()
    {
        println!("{}", serde_json::to_string_pretty(manifest)?);
    }
    if store.is_none() {
        println!("{}", session.no_store()?);
    } else if batches.is_empty() && refused.is_empty() {
        println!("no batches in {}", session.store_place()?);
    }
    print_queues(&queues, &paused);
    Ok(())
}

/// Reads the batches of the store, with those that dead letters are about.
async fn listing(
    session: &Session,
    store: &Store,
    which: Which<'_>,
    letters: &[Letter],
    paused: &[WorkerControl],
) -> Result<Listing, Failed> {
    // Another user, such as root, would create files that the workers cannot replace.
    if matches!(which, Which::Newest(_)) && store::is_own(&session.section::<StoreSettings>()?) {
        store::keep_from_others();
        batches::prepare(store).await?;
    }
    let named: Vec<&str> = letters.iter().filter_map(|letter| letter.batch_id.as_deref()).collect();
    batches::shown(store, which, &named, paused).await
}

/// The first line of a table of batches.
pub(crate) fn header() -> String {
    row("batch", "since, newest last", "state", "rides, or why")
}

/// One line of a table of batches.
pub(crate) fn row(batch_id: &str, since: &str, state: &str, what: &str) -> String {
    legible(format!("{batch_id:<18} {since:<20} {state:<12} {what}").trim_end(), false).into_owned()
}

/// Says that not all dead letters of a queue were read; `None` if all were, or if none are searched for.
pub(crate) fn letters_note(queue: &str, dead: u64) -> Option<String> {
    (dead > LETTERS_READ_MAX as u64 && batches::STAGES.contains(&queue)).then(|| {
        format!(
            "only the oldest {LETTERS_READ_MAX} of the {dead} dead letters of the {queue} are read: a batch of a newer one is not shown as \
             refused"
        )
    })
}

fn print_queues(queues: &[QueueStatus], paused: &[WorkerControl]) {
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
    for control in paused {
        println!("{}", legible(&batches::pause(control), false));
    }
}

/// The workers that are paused, in the order of the flow.
async fn paused(store: &Store) -> Result<Vec<WorkerControl>, Failed> {
    let mut paused = Vec::new();
    for worker in queue::ALL {
        paused.extend(control::read(store, worker).await?.filter(|control| control.paused));
    }
    Ok(paused)
}

/// The queues, and the dead letters that concern batches.
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
        for index in 0..retry_delays_of(name).len() {
            waiting_for_retry += client.depth(&retry_queue(name, index)).await?.messages;
        }
        let dead = client.depth(&dead_queue(name)).await?.messages;
        let (messages, consumers) = (depth.messages, depth.consumers);
        let paused = paused.iter().any(|control| control.worker == name);
        all.push(QueueStatus { queue: name.to_owned(), messages, consumers, waiting_for_retry, dead, paused });
        if dead > 0 && batches::STAGES.contains(&name) {
            letters.extend(dead::oldest(&client, name, &namespace).await?.into_iter().map(|(_, letter)| letter));
        }
    }
    client.close().await;
    letters.retain(|letter| batch.is_none_or(|batch| letter.batch_id.as_deref() == Some(batch)));
    letters.sort_by_key(|letter| letter.dead_at);
    Ok((all, letters))
}
