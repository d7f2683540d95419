//! `dead replay` and `dead drop`: a letter is acknowledged once it is elsewhere.

use super::{
    letters::{HeldLetter, Letters},
    show::{not_found, one_line},
};
use crate::{
    arguments::Which,
    output::{ask, can_ask, legible},
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

/// Pause before a message that a full queue refused is published again.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// After so many letters a line tells how far it is.
const TOLD_EVERY: u64 = 1_000;
/// Letters that are named one by one.
const NAMED_MAX: usize = 20;

/// What was done, or would be.
#[derive(Default)]
struct Done {
    by_queue: BTreeMap<String, u64>,
    letters: Vec<Letter>,
}

impl Done {
    fn add(&mut self, verb: &str, letter: Letter) {
        *self.by_queue.entry(letter.queue.clone()).or_default() += 1;
        if self.count().is_multiple_of(TOLD_EVERY) {
            eprintln!("{verb} {} so far", HumanCount(self.count()));
        }
        self.letters.push(letter);
    }

    fn count(&self) -> u64 {
        self.by_queue.values().sum()
    }

    fn tell(
        &self,
        session: &Session,
        verb: &str,
        dry_run: bool,
        each: impl Fn(&Letter) -> String,
    ) -> Result<(), Failed> {
        if session.shared.json {
            let ids: Vec<&str> = self.letters.iter().map(|letter| letter.id.as_str()).collect();
            let told = json!({ verb: self.count(), "dry_run": dry_run, "by_queue": self.by_queue, "ids": ids });
            println!("{}", serde_json::to_string_pretty(&told)?);
            return Ok(());
        }
        for letter in self.letters.iter().take(NAMED_MAX) {
            println!("{}", each(letter));
        }
        if self.letters.len() > NAMED_MAX {
            println!("… and {} more", HumanCount((self.letters.len() - NAMED_MAX) as u64));
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

    /// The ids that were asked for by name and not met.
    fn missing<'a>(&self, which: &'a Which) -> Vec<&'a String> {
        let met: HashSet<&str> = self.letters.iter().map(|letter| letter.id.as_str()).collect();
        which.ids.iter().filter(|id| !met.contains(id.as_str())).collect()
    }
}

/// `dead replay`
pub(super) async fn replay(
    session: &Session,
    letters: &Letters<'_>,
    which: &Which,
    rate: NonZeroU32,
    dry_run: bool,
) -> Result<(), Failed> {
    let publisher = letters.connection.publisher().await?;
    let mut tick = pace(rate);
    let mut done = Done::default();
    let walked = letters
        .walk(which, async |HeldLetter { letter, delivery }: HeldLetter| {
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
            eprintln!("{} were replayed before this; the same command again goes on", HumanCount(done.count()));
        }
        return Err(failed);
    }
    done.tell(session, "replayed", dry_run, |letter| {
        let Letter { id, queue, exchange, routing_key, .. } = letter;
        format!("{id}  {queue:<15}  to {exchange:?} with {routing_key:?}")
    })?;
    not_found(&done.missing(which))
}

/// At most so many a second.
pub(super) fn pace(rate: NonZeroU32) -> Interval {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate.get());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Publishes until the broker has it: a full queue is waited for.
pub(super) async fn publish(publisher: &dyn Publisher, outgoing: Outgoing) -> Result<(), PublishError> {
    let mut told = false;
    loop {
        match publisher.publish(outgoing.clone()).await {
            Err(PublishError::Refused) => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!("the queue is full; waiting for its worker (Ctrl-C stops: nothing is lost)");
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
    which: &Which,
    yes: bool,
    dry_run: bool,
) -> Result<(), Failed> {
    let mut which = which.clone();
    let each = |letter: &Letter| {
        let Letter { id, queue, reason, why, .. } = letter;
        format!("{id}  {queue:<15}  {:<20}  {}", legible(reason, false), one_line(why, 80))
    };
    if dry_run || !yes {
        let mut doomed = Done::default();
        letters
            .walk(&which, async |found: HeldLetter| {
                doomed.add("looked at", found.letter);
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        if dry_run || doomed.count() == 0 {
            doomed.tell(session, "dropped", dry_run, each)?;
            return not_found(&doomed.missing(&which));
        }
        can_ask(session, &format!("{} dead letters would be dropped", doomed.count()))?;
        doomed.tell(session, "dropped", true, each)?;
        if !ask(&format!("Drop them? A copy of each stays in {} below dead/.", session.store_location()?))? {
            println!("nothing was dropped");
            return Ok(());
        }
        // Those that were shown, and no others.
        which = Which { ids: doomed.letters.into_iter().map(|letter| letter.id).collect(), ..Which::default() };
    }
    let store = session.store()?;
    let mut done = Done::default();
    letters
        .walk(&which, async |HeldLetter { letter, delivery }: HeldLetter| {
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
    done.tell(session, "dropped", false, |letter| {
        format!("{}  {:<15}  copy: {}", letter.id, letter.queue, layout::dropped(&letter.queue, &letter.id))
    })?;
    not_found(&done.missing(&which))
}
