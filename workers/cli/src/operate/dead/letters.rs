//! Reads the dead-letter queues of a fleet.

use crate::{arguments::LetterFilter, session::Failed};
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

/// An unacknowledged letter; it returns to its queue after the walk unless it is acknowledged.
pub(super) struct HeldLetter {
    pub(super) letter: Letter,
    pub(super) delivery: Delivery,
}

impl Letters<'_> {
    /// Visits the letters that match `filter`, queue by queue, until a visit breaks. Visits each letter once, and none that
    /// arrives meanwhile. Returns the number of letters inspected.
    pub(super) async fn walk(
        &self,
        filter: &LetterFilter,
        mut visit: impl AsyncFnMut(HeldLetter) -> Result<ControlFlow<()>, Failed>,
    ) -> Result<u64, Failed> {
        let (now, limit) = (host::now(), filter.limit.filter(|limit| *limit > 0));
        let ids: HashSet<&str> = filter.ids.iter().map(String::as_str).collect();
        let (mut inspected, mut matching) = (0, 0);
        let all = queue::ALL.map(str::to_owned);
        for name in if filter.queues.is_empty() { &all[..] } else { &filter.queues[..] } {
            let dead = dead_queue(name);
            let waiting = self.connection.depth(&dead).await.with_context(|| absent(&dead))?.messages;
            if waiting == 0 {
                continue;
            }
            let mut browser = self.connection.browse(&dead).await?;
            let mut is_done = false;
            for _ in 0..waiting {
                let Some(delivery) = browser.next().await? else { break };
                inspected += 1;
                let letter = Letter::read(name, &self.namespace, &delivery.properties, &delivery.body);
                if !(ids.is_empty() || ids.contains(letter.id.as_str())) || !filter.matches(&letter, now) {
                    continue;
                }
                matching += 1;
                if visit(HeldLetter { letter, delivery }).await?.is_break()
                    || limit.is_some_and(|limit| matching >= limit)
                {
                    is_done = true;
                    break;
                }
            }
            browser.close().await?;
            if is_done {
                break;
            }
        }
        Ok(inspected)
    }

    /// Returns the number of letters in the selected queues.
    pub(super) async fn count(&self, filter: &LetterFilter) -> Result<u64, Failed> {
        let mut letters = 0;
        for name in
            queue::ALL.iter().filter(|name| filter.queues.is_empty() || filter.queues.iter().any(|q| q == *name))
        {
            let dead = dead_queue(name);
            letters += self.connection.depth(&dead).await.with_context(|| absent(&dead))?.messages;
        }
        Ok(letters)
    }
}

fn absent(queue: &str) -> String {
    format!("inspecting {queue} (`wildrydes topology apply` declares a missing queue)")
}

impl LetterFilter {
    /// Returns whether there is any condition.
    pub(super) fn is_set(&self) -> bool {
        !self.ids.is_empty()
            || !self.queues.is_empty()
            || self.reason.is_some()
            || self.batch.is_some()
            || self.older_than.is_some()
            || self.newer_than.is_some()
    }

    /// Returns whether a letter meets every condition except the ids.
    pub(super) fn matches(&self, letter: &Letter, now: Timestamp) -> bool {
        let is =
            |expected: &Option<String>, actual: Option<&str>| expected.as_deref().is_none_or(|e| actual == Some(e));
        let age = letter.dead_at.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
        is(&self.reason, Some(&letter.reason))
            && is(&self.batch, letter.batch_id.as_deref())
            && self.older_than.is_none_or(|least| age.is_some_and(|age| age >= least))
            && self.newer_than.is_none_or(|most| age.is_some_and(|age| age <= most))
    }
}
