//! Walks through dead-letter queues.

use crate::{arguments::Which, session::Failed};
use anyhow::Context;
use common::{
    dead_letter::Letter,
    topology::{dead_queue, queue},
};
use jiff::Timestamp;
use runtime::{Connection, broker::Delivery, host};
use std::{collections::HashSet, ops::ControlFlow, time::Duration};

/// The dead letters of a fleet.
pub(super) struct Letters<'a> {
    pub(super) connection: &'a dyn Connection,
    pub(super) namespace: String,
}

/// A letter in hand: acknowledged, or given back when the queue has been walked through.
pub(super) struct HeldLetter {
    pub(super) letter: Letter,
    pub(super) delivery: Delivery,
}

impl Letters<'_> {
    /// Visits the letters that `which` chooses, queue by queue, until a visit breaks it off; each once, and none that
    /// arrives meanwhile. The number looked at.
    pub(super) async fn walk(
        &self,
        which: &Which,
        mut visit: impl AsyncFnMut(HeldLetter) -> Result<ControlFlow<()>, Failed>,
    ) -> Result<u64, Failed> {
        let (now, limit) = (host::now(), which.limit.filter(|limit| *limit > 0));
        let ids: HashSet<&str> = which.ids.iter().map(String::as_str).collect();
        let (mut looked, mut matching) = (0, 0);
        let all = queue::ALL.map(str::to_owned);
        for name in if which.queues.is_empty() { &all[..] } else { &which.queues[..] } {
            let dead = dead_queue(name);
            let waiting = self.connection.depth(&dead).await.with_context(|| absent(&dead))?.messages;
            if waiting == 0 {
                continue;
            }
            let mut browser = self.connection.browse(&dead).await?;
            let mut broken_off = false;
            for _ in 0..waiting {
                let Some(delivery) = browser.next().await? else { break };
                looked += 1;
                let letter = Letter::read(name, &self.namespace, &delivery.properties, &delivery.body);
                if !(ids.is_empty() || ids.contains(letter.id.as_str())) || !which.takes(&letter, now) {
                    continue;
                }
                matching += 1;
                if visit(HeldLetter { letter, delivery }).await?.is_break()
                    || limit.is_some_and(|limit| matching >= limit)
                {
                    broken_off = true;
                    break;
                }
            }
            browser.close().await?;
            if broken_off {
                break;
            }
        }
        Ok(looked)
    }

    /// How many letters the chosen queues hold.
    pub(super) async fn count(&self, which: &Which) -> Result<u64, Failed> {
        let mut letters = 0;
        for name in queue::ALL.iter().filter(|name| which.queues.is_empty() || which.queues.iter().any(|q| q == *name))
        {
            let dead = dead_queue(name);
            letters += self.connection.depth(&dead).await.with_context(|| absent(&dead))?.messages;
        }
        Ok(letters)
    }
}

fn absent(queue: &str) -> String {
    format!("looking at {queue} (`wildrydes topology apply` declares what is missing)")
}

impl Which {
    pub(super) fn chooses(&self) -> bool {
        !self.ids.is_empty()
            || !self.queues.is_empty()
            || self.reason.is_some()
            || self.batch.is_some()
            || self.older_than.is_some()
            || self.newer_than.is_some()
    }

    /// Whether it is one of these, ids left aside.
    pub(super) fn takes(&self, letter: &Letter, now: Timestamp) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|w| found == Some(w));
        let age = letter.dead_at.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
        is(&self.reason, Some(&letter.reason))
            && is(&self.batch, letter.batch_id.as_deref())
            && self.older_than.is_none_or(|least| age.is_some_and(|age| age >= least))
            && self.newer_than.is_none_or(|most| age.is_some_and(|age| age <= most))
    }
}
