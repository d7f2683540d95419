//! `dead`: inspects, replays, drops and restores dead letters.
//!
//! ```text
//! <queue>.dead ──list, show, export──▶ returned to the queue
//!              ──replay──▶ published to its original exchange, confirmed ──▶ acknowledged
//!              ──drop────▶ dead/<queue>/<id>.json written                ──▶ acknowledged
//! a copy       ──restore─▶ published to its original exchange, confirmed
//! ```
//!
//! After an interruption a letter is still in its queue, possibly published as well. Processing a message twice changes
//! nothing.

mod act;
mod letters;
mod restore;
mod show;
#[cfg(test)]
mod tests;

use crate::{
    arguments::{DeadCommand, LetterFilter},
    session::{Failed, Session},
};
use letters::Letters;
use runtime::{Broker, config::BrokerSettings};

/// `dead`
pub(crate) async fn dead(session: &Session, command: &DeadCommand) -> Result<(), Failed> {
    let broker = session.broker()?;
    let connection = broker.connect("wildrydes dead").await?;
    let letters =
        Letters { connection: connection.as_ref(), namespace: session.section::<BrokerSettings>()?.namespace };
    let done = match command {
        DeadCommand::List(options) => show::list(session, &letters, options).await,
        DeadCommand::Show { ids, full } => show::show(session, &letters, ids, *full).await,
        DeadCommand::Export { filter, file, force } => {
            show::export(session, &letters, filter, file.as_deref(), *force).await
        }
        DeadCommand::Replay { filter, all, rate, dry_run } => {
            require_condition(filter, *all)?;
            act::replay(session, &letters, filter, *rate, *dry_run).await
        }
        DeadCommand::Restore { copies, rate, dry_run } => {
            restore::restore(session, &letters, copies, *rate, *dry_run).await
        }
        DeadCommand::Drop { filter, all, yes, dry_run } => {
            require_condition(filter, *all)?;
            act::drop_letters(session, &letters, filter, *yes, *dry_run).await
        }
    };
    connection.close().await;
    done
}

/// Requires a condition or `--all`, so that a forgotten option does not replay or drop everything.
fn require_condition(filter: &LetterFilter, all: bool) -> Result<(), Failed> {
    if all || filter.is_set() {
        return Ok(());
    }
    Err(Failed::Misused(anyhow::anyhow!(
        "no letters are selected: name ids, or --queue, --reason, --batch, --older-than or --newer-than, or --all"
    )))
}
