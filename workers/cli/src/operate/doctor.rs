//! `doctor`: checks a fleet; each finding comes with its remedy. Changes nothing but scratch objects in the store,
//! which it removes again.
//!
//! ```text
//! broker    connection, version, feature flags, alarms, clock   the management API answers what AMQP does not; without
//! queues    existence, arguments, policies, bindings, depths    it a check is "not checked", with the reason
//! store     conditional writes, unfinished uploads, paused and waiting workers, documents of unknown versions
//! weather   station list, station files, clock, forecast services
//! ```

mod broker;
mod findings;
mod outside;
mod permissions;
mod store;
#[cfg(test)]
mod tests;

use crate::{
    arguments::DoctorPart,
    output::print_json,
    session::{Failed, Session},
};
use findings::{Findings, Severity};

/// `doctor`
pub(crate) async fn doctor(session: &Session, only: Option<DoctorPart>) -> Result<(), Failed> {
    let checks = |part| only.is_none_or(|only| only == part);
    let mut findings = Findings::default();
    if checks(DoctorPart::Broker) {
        broker::examine(session, &mut findings).await?;
    }
    if checks(DoctorPart::Store) {
        let store = outside::examine_store(session, &mut findings).await?;
        if only.is_none() {
            outside::versions(session, store.as_ref(), &mut findings).await?;
        }
    }
    if checks(DoctorPart::Weather) {
        outside::weather(session, &mut findings).await?;
    }
    match session.shared.json {
        true => print_json(&findings.as_json())?,
        false => println!("{}", findings.lines().join("\n")),
    }
    match findings.count(Severity::Broken) {
        0 => Ok(()),
        _ => Err(Failed::Reported),
    }
}
