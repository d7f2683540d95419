//! The model registry in the object store: inspects versions and changes which one is served. Depends on `session`,
//! `output` and `arguments`.

mod cautions;
mod diff;
mod drift;
mod export;
mod promote;
mod prune;
mod show;
mod versions;

use crate::{
    arguments::ModelCommand,
    session::{Failed, Session},
};
pub(crate) use cautions::cautions;
use records::store;

/// `model`
pub(crate) async fn model(session: &Session, command: &ModelCommand) -> Result<(), Failed> {
    if matches!(command, ModelCommand::Promote { .. } | ModelCommand::Rollback { .. } | ModelCommand::Retrain) {
        store::keep_from_others();
    }
    match command {
        ModelCommand::List { family, breeds } => show::list(session, family, *breeds).await,
        ModelCommand::Show { version, family } => show::show(session, version, family).await,
        ModelCommand::Diff { from, to, family } => diff::diff(session, from, to, family).await,
        ModelCommand::Promote { version, change } => promote::promote(session, version, change).await,
        ModelCommand::Rollback { to, change } => promote::rollback(session, to.as_deref(), change).await,
        ModelCommand::Drift { version, days, family } => drift::drift(session, version, *days, family).await,
        ModelCommand::Retrain => promote::retrain(session).await,
        ModelCommand::Prune(prune) => prune::prune(session, prune).await,
        ModelCommand::Export { version, format, out, force, family } => {
            export::export(session, version, *format, (out.as_deref(), *force), family).await
        }
    }
}
