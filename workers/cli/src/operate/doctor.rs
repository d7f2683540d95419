//! `doctor`: is everything as it should be? Each finding with its remedy. Nothing is changed but a scratch object in the
//! store, which is removed again.
//!
//! ```text
//! broker    reached? version, features, alarms, clock     what AMQP does not tell, the management API is asked; where it
//! queues    there? arguments, policies, bindings, depths  does not answer, a check is "not checked", with the reason
//! store     reached? conditional writes                   paused and waiting workers, documents of unknown versions
//! weather   reached? clock
//! ```

mod broker;
mod findings;
mod outside;
mod permissions;
#[cfg(test)]
mod tests;

use crate::session::{Failed, Session};
use findings::{Findings, Verdict};

/// `doctor`
pub(crate) async fn doctor(session: &Session) -> Result<(), Failed> {
    let mut findings = Findings::default();
    broker::examine(session, &mut findings).await?;
    outside::examine(session, &mut findings).await?;
    match session.shared.json {
        true => println!("{}", serde_json::to_string_pretty(&findings.as_json())?),
        false => println!("{}", findings.lines().join("\n")),
    }
    match findings.count(Verdict::Broken) {
        0 => Ok(()),
        _ => Err(Failed::Reported),
    }
}
