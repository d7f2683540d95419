//! Reads the state of the queues from the broker.

use super::table::{QueueStatus, STAGES, pause_text};
use crate::{
    job::dead_letters,
    output::legible,
    session::{Failed, Session},
};
use common::{
    dead_letter::Letter,
    message::WorkerControl,
    topology::{dead_queue, queue, retry_delays_of, retry_queue},
};
use records::{Store, control};
use runtime::{client::Client, config::BrokerSettings};

pub(super) fn print(queues: &[QueueStatus], paused: &[WorkerControl]) {
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
        println!("{}", legible(&pause_text(control), false));
    }
}

/// Returns the paused workers, in the order of the flow.
pub(super) async fn paused(store: &Store) -> Result<Vec<WorkerControl>, Failed> {
    let mut paused = Vec::new();
    for worker in queue::ALL {
        paused.extend(control::read(store, worker).await?.filter(|control| control.paused));
    }
    Ok(paused)
}

/// Reads the queues, and the dead letters of batches; of one batch if `batch` is given.
pub(super) async fn read(
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
        if dead > 0 && STAGES.contains(&name) {
            letters
                .extend(dead_letters::oldest(&client, name, &namespace).await?.into_iter().map(|(_, letter)| letter));
        }
    }
    client.close().await;
    letters.retain(|letter| batch.is_none_or(|batch| letter.batch_id.as_deref() == Some(batch)));
    letters.sort_by_key(|letter| letter.dead_at);
    Ok((all, letters))
}
