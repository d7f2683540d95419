//! `status`: shows the state of the batches, from the store, and of the queues, from the broker if one is configured.

mod batches;
mod gateway;
mod queues;
mod table;
#[cfg(test)]
mod tests;

use crate::{
    arguments::Status,
    ask::remote::Remote,
    output::{legible, print_json},
    session::{Failed, Session},
};
use batches::{BatchStatus, Listing, Which};
use common::{dead_letter::Letter, message::WorkerControl};
use records::{Store, store};
use table::letters_note;

/// `status`
pub(crate) async fn status(session: &Session, options: &Status) -> Result<(), Failed> {
    let batch = options.batch.as_deref();
    let limit = (!options.all).then_some(options.limit as usize);
    if let Some(remote) = Remote::of(&options.remote)? {
        return gateway::status(session, &remote, batch, limit).await;
    }
    let store = session.store_if_there()?;
    let paused = match &store {
        Some(store) => queues::paused(store).await?,
        None if batch.is_some() => return Err(Failed::Broken(anyhow::anyhow!(session.no_store()?))),
        None => Vec::new(),
    };
    if store.is_none() && session.shared.json {
        eprintln!("{}", session.no_store()?);
    }
    let has_broker = session.configuration.sets("broker.url");
    let (queue_states, letters) =
        if has_broker { queues::read(session, &paused, batch).await? } else { (Vec::new(), Vec::new()) };
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
    batches::without_reader(&mut batches, &queue_states);
    notes.extend(queue_states.iter().filter_map(|queue| letters_note(&queue.queue, queue.dead)));
    if let Some(batch_id) = batch
        && batches.is_empty()
        && refused.is_empty()
    {
        let hint = if has_broker { "" } else { "; --broker searches for its dead letter" };
        return Err(Failed::Broken(anyhow::anyhow!(
            "no batch {batch_id} in {}: it was not submitted, it still waits for the splitter, or it was refused{hint}",
            session.store_location()?
        )));
    }
    if session.shared.json {
        let document = serde_json::json!({
            "batches": batches, "refused": refused, "queues": queue_states, "paused": paused, "notes": notes,
        });
        return print_json(&document);
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
        print_json(manifest)?;
    }
    if store.is_none() {
        println!("{}", session.no_store()?);
    } else if batches.is_empty() && refused.is_empty() {
        println!("no batches in {}", session.store_location()?);
    }
    queues::print(&queue_states, &paused);
    Ok(())
}

/// Reads the batches of the store, including those of dead letters.
async fn listing(
    session: &Session,
    store: &Store,
    which: Which<'_>,
    letters: &[Letter],
    paused: &[WorkerControl],
) -> Result<Listing, Failed> {
    // Write only as the store's own user: the workers could not replace files of another user, such as root.
    if matches!(which, Which::Newest(_)) && store::is_own(&session.store_settings()?) {
        store::keep_from_others();
        batches::prepare(store).await?;
    }
    let named: Vec<&str> = letters.iter().filter_map(|letter| letter.batch_id.as_deref()).collect();
    batches::shown(store, which, &named, paused).await
}
