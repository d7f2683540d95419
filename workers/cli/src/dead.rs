//! `dead`: the letters nobody could process. Looking at them takes none away.
//!
//! ```text
//! <queue>.dead ──list, show, export──▶ looked at, given back
//!              ──replay──▶ published where it came from, confirmed ──▶ acknowledged
//!              ──drop────▶ dead/<queue>/<id>.json written          ──▶ acknowledged
//! a copy       ──restore─▶ published where it came from, confirmed
//! ```
//!
//! Whatever is interrupted leaves a letter where it is, or published and where it is: everything downstream recognises
//! what it has seen.

mod act;
mod restore;
mod show;
#[cfg(test)]
mod tests;

use crate::{
    Failed, Session,
    arguments::{DeadCommand, Which},
};
use anyhow::Context;
pub(crate) use common::dead_letter::{self as letter, Letter};
use common::topology::{dead_queue, queue};
use gateway::LETTERS_READ_MAX;
use jiff::Timestamp;
use runtime::{
    Broker, Connection,
    broker::Delivery,
    client::{Client, ClientError},
    config::BrokerSettings,
    host,
    trace::TraceContext,
};
use std::{collections::HashSet, ops::ControlFlow, time::Duration};

/// `dead`
pub(crate) async fn dead(session: &Session, command: &DeadCommand) -> Result<(), Failed> {
    let broker = session.broker()?;
    let connection = broker.connect("wildrydes dead").await?;
    let letters =
        Letters { connection: connection.as_ref(), namespace: session.section::<BrokerSettings>()?.namespace };
    let done = match command {
        DeadCommand::List(options) => show::list(session, &letters, options).await,
        DeadCommand::Show { ids, full } => show::show(session, &letters, ids, *full).await,
        DeadCommand::Export { which, file, force } => {
            show::export(session, &letters, which, file.as_deref(), *force).await
        }
        DeadCommand::Replay { which, all, rate, dry_run } => {
            chosen(which, *all)?;
            act::replay(session, &letters, which, *rate, *dry_run).await
        }
        DeadCommand::Restore { copies, rate, dry_run } => {
            restore::restore(session, &letters, copies, *rate, *dry_run).await
        }
        DeadCommand::Drop { which, all, yes, dry_run } => {
            chosen(which, *all)?;
            act::drop_letters(session, &letters, which, *yes, *dry_run).await
        }
    };
    connection.close().await;
    done
}

/// Nobody replays or drops everything by leaving something out.
fn chosen(which: &Which, all: bool) -> Result<(), Failed> {
    if all || which.chooses() {
        return Ok(());
    }
    Err(Failed::Misused(anyhow::anyhow!(
        "which ones? Name ids, or --queue, --reason, --batch, --older-than or --newer-than, or --all"
    )))
}

/// The dead letters of a fleet.
pub(super) struct Letters<'a> {
    connection: &'a dyn Connection,
    namespace: String,
}

/// Reads the oldest dead letters of a worker, at most [`LETTERS_READ_MAX`], each with the id of its trace (empty if unknown).
///
/// # Errors
/// Fails if the broker cannot be used, or has no such queue.
pub(crate) async fn oldest(
    client: &Client,
    worker: &str,
    namespace: &str,
) -> Result<Vec<(String, Letter)>, ClientError> {
    let mut browser = client.browse(&dead_queue(worker)).await?;
    let mut letters = Vec::new();
    while letters.len() < LETTERS_READ_MAX
        && let Some(found) = browser.next().await?
    {
        let trace_id = TraceContext::of(&found.properties).map(TraceContext::trace_id).unwrap_or_default();
        letters.push((trace_id, Letter::read(worker, namespace, &found.properties, &found.body)));
    }
    browser.close().await?;
    Ok(letters)
}

/// A letter in hand: acknowledged, or given back when the queue has been walked through.
pub(super) struct Found {
    pub(super) letter: Letter,
    pub(super) delivery: Delivery,
}

impl Letters<'_> {
    /// Visits the letters that `which` chooses, queue by queue, until a visit breaks it off; each once, and none that
    /// arrives meanwhile. The number looked at.
    async fn walk(
        &self,
        which: &Which,
        mut visit: impl AsyncFnMut(Found) -> Result<ControlFlow<()>, Failed>,
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
                if visit(Found { letter, delivery }).await?.is_break() || limit.is_some_and(|limit| matching >= limit) {
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
    async fn count(&self, which: &Which) -> Result<u64, Failed> {
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
    fn chooses(&self) -> bool {
        !self.ids.is_empty()
            || !self.queues.is_empty()
            || self.reason.is_some()
            || self.batch.is_some()
            || self.older_than.is_some()
            || self.newer_than.is_some()
    }

    /// Whether it is one of these, ids left aside.
    fn takes(&self, letter: &Letter, now: Timestamp) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|w| found == Some(w));
        let age = letter.dead_at.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
        is(&self.reason, Some(&letter.reason))
            && is(&self.batch, letter.batch_id.as_deref())
            && self.older_than.is_none_or(|least| age.is_some_and(|age| age >= least))
            && self.newer_than.is_none_or(|most| age.is_some_and(|age| age <= most))
    }
}
