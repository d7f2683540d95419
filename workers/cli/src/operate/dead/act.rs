//! `dead replay` and `dead drop`: acknowledge a letter once it is published or copied.

use super::{
    letters::{HeldLetter, Letters},
    show::{not_found, one_line},
};
use crate::{
    arguments::LetterFilter,
    output::{ask, can_ask, legible, print_json},
    session::{Failed, Session},
};
use anyhow::Context;
use common::{
    dead_letter::{Letter, restored, whole},
    outcome::Outgoing,
};
use indicatif::HumanCount;
use records::{layout, store};
use runtime::broker::{PublishError, Publisher};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroU32,
    ops::ControlFlow,
    time::Duration,
};
use tokio::time::{Interval, MissedTickBehavior};

/// Time before a message that a full queue refused is published again.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Number of letters between two lines of progress.
const REPORT_EVERY: u64 = 1_000;
/// Maximum number of letters to list.
const LISTED_MAX: usize = 20;

/// The letters that were handled, or would be.
#[derive(Default)]
struct Handled {
    by_queue: BTreeMap<String, u64>,
    letters: Vec<Letter>,
}

impl Handled {
    fn add(&mut self, verb: &str, letter: Letter) {
        *self.by_queue.entry(letter.queue.clone()).or_default() += 1;
        if self.count().is_multiple_of(REPORT_EVERY) {
            eprintln!("{verb} {} so far", HumanCount(self.count()));
        }
        self.letters.push(letter);
    }

    fn count(&self) -> u64 {
        self.by_queue.values().sum()
    }

    fn print(
        &self,
        session: &Session,
        verb: &str,
        dry_run: bool,
        each: impl Fn(&Letter) -> String,
    ) -> Result<(), Failed> {
        if session.shared.json {
            let ids: Vec<&str> = self.letters.iter().map(|letter| letter.id.as_str()).collect();
            let document = json!({ verb: self.count(), "dry_run": dry_run, "by_queue": self.by_queue, "ids": ids });
            return print_json(&document);
        }
        for letter in self.letters.iter().take(LISTED_MAX) {
            println!("{}", each(letter));
        }
        if self.letters.len() > LISTED_MAX {
            println!("… and {} more", HumanCount((self.letters.len() - LISTED_MAX) as u64));
        }
        let queues: Vec<String> =
            self.by_queue.iter().map(|(queue, letters)| format!("{letters} of {queue}")).collect();
        let (count, would) = (HumanCount(self.count()), if dry_run { "would be " } else { "" });
        match queues.is_empty() {
            true => println!("no dead letter matches"),
            false => println!("{count} {would}{verb}: {}", queues.join(", ")),
        }
        Ok(())
    }

    /// Returns the requested ids that were not found.
    fn missing<'a>(&self, filter: &'a LetterFilter) -> Vec<&'a String> {
        let ids: HashSet<&str> = self.letters.iter().map(|letter| letter.id.as_str()).collect();
        filter.ids.iter().filter(|id| !ids.contains(id.as_str())).collect()
    }
}

/// `dead replay`
pub(super) async fn replay(
    session: &Session,
    letters: &Letters<'_>,
    filter: &LetterFilter,
    rate: NonZeroU32,
    dry_run: bool,
) -> Result<(), Failed> {
    let publisher = letters.connection.publisher().await?;
    let mut tick = pace(rate);
    let mut done = Handled::default();
    let walked = letters
        .walk(filter, async |HeldLetter { letter, delivery }: HeldLetter| {
            if !dry_run {
                tick.tick().await;
                let replayed = Outgoing {
                    exchange: letter.exchange,
                    routing_key: letter.routing_key.clone(),
                    properties: restored(&delivery.properties),
                    body: delivery.body,
                    mandatory: true,
                };
                publish(publisher.as_ref(), replayed)
                    .await
                    .with_context(|| format!("replaying {}; it is still in {}.dead", letter.id, letter.queue))?;
                delivery.settle.ack().await?;
            }
            done.add("replayed", letter);
            Ok(ControlFlow::Continue(()))
        })
        .await;
    if let Err(failed) = walked {
        if done.count() > 0 {
            eprintln!("{} were replayed before this; the same command continues", HumanCount(done.count()));
        }
        return Err(failed);
    }
    done.print(session, "replayed", dry_run, |letter| {
        let Letter { id, queue, exchange, routing_key, .. } = letter;
        format!("{id}  {queue:<15}  to {exchange:?} with {routing_key:?}")
    })?;
    not_found(&done.missing(filter))
}

/// Returns an interval that limits the letters per second.
pub(super) fn pace(rate: NonZeroU32) -> Interval {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate.get());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Publishes a message; waits while the queue is full.
pub(super) async fn publish(publisher: &dyn Publisher, outgoing: Outgoing) -> Result<(), PublishError> {
    let mut reported = false;
    loop {
        match publisher.publish(outgoing.clone()).await {
            Err(PublishError::Refused) => {
                if !std::mem::replace(&mut reported, true) {
                    eprintln!("the queue is full; waiting for its worker (Ctrl-C stops without losing anything)");
                }
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// `dead drop`
pub(super) async fn drop_letters(
    session: &Session,
    letters: &Letters<'_>,
    filter: &LetterFilter,
    yes: bool,
    dry_run: bool,
) -> Result<(), Failed> {
    let mut filter = filter.clone();
    let each = |letter: &Letter| {
        let Letter { id, queue, reason, why, .. } = letter;
        format!("{id}  {queue:<15}  {:<20}  {}", legible(reason, false), one_line(why, 80))
    };
    if dry_run || !yes {
        let mut selected = Handled::default();
        letters
            .walk(&filter, async |held: HeldLetter| {
                selected.add("inspected", held.letter);
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        if dry_run || selected.count() == 0 {
            selected.print(session, "dropped", dry_run, each)?;
            return not_found(&selected.missing(&filter));
        }
        can_ask(session, &format!("{} dead letters would be dropped", selected.count()))?;
        selected.print(session, "dropped", true, each)?;
        if !ask(&format!("Drop them? A copy of each stays in {} below dead/.", session.store_location()?))? {
            println!("nothing was dropped");
            return Ok(());
        }
        // Only the letters that were shown.
        filter = LetterFilter {
            ids: selected.letters.into_iter().map(|letter| letter.id).collect(),
            ..LetterFilter::default()
        };
    }
    let store = session.store()?;
    let mut done = Handled::default();
    letters
        .walk(&filter, async |HeldLetter { letter, delivery }: HeldLetter| {
            let copy = serde_json::to_vec_pretty(&whole(&letter, &delivery.properties, &delivery.body))?;
            let path = layout::dropped(&letter.queue, &letter.id);
            store::write(&store, &path, copy)
                .await
                .with_context(|| format!("writing {path}; the letter is still in {}.dead", letter.queue))?;
            delivery.settle.ack().await?;
            done.add("dropped", letter);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    done.print(session, "dropped", false, |letter| {
        format!("{}  {:<15}  copy: {}", letter.id, letter.queue, layout::dropped(&letter.queue, &letter.id))
    })?;
    not_found(&done.missing(&filter))
}
