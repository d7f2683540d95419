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
mod letters;
mod restore;
mod show;
#[cfg(test)]
mod tests;

use crate::{
    arguments::{DeadCommand, Which},
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
