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
mod outside;
mod permissions;
#[cfg(test)]
mod tests;

use crate::{Failed, Session, output::legible};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    NotChecked,
    Warning,
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable name.
    check: &'static str,
    verdict: Verdict,
    /// What was found, or why nobody looked.
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, verdict: Verdict, found: impl Into<String>, remedy: Option<String>) {
        self.0.push(Finding { check, verdict, found: found.into(), remedy });
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Verdict::Ok, found, None);
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Verdict::Warning, found, Some(remedy.into()));
    }

    fn broken(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Verdict::Broken, found, Some(remedy.into()));
    }

    fn not_checked(&mut self, check: &'static str, why: impl Into<String>) {
        self.add(check, Verdict::NotChecked, why, None);
    }

    /// One finding for a check that looks at many things: the complaints, or that there are none.
    fn judge(
        &mut self,
        check: &'static str,
        fine: impl Into<String>,
        complaints: Vec<String>,
        verdict: Verdict,
        remedy: &str,
    ) {
        match complaints.is_empty() {
            true => self.ok(check, fine),
            false => self.add(check, verdict, several(&complaints), Some(remedy.to_owned())),
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

/// The first few of many, and how many there are.
fn several(items: &[String]) -> String {
    const SHOWN: usize = 4;
    match items.len() {
        0..=SHOWN => items.join("; "),
        more => format!("{}; and {} more", items[..SHOWN].join("; "), more - SHOWN),
    }
}

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
        _ => Err(Failed::Told),
    }
}

impl Verdict {
    /// In the order of the last line.
    const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Broken, Self::NotChecked];

    fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::NotChecked => "not checked",
        }
    }
}

impl Findings {
    fn as_json(&self) -> Value {
        let counts: BTreeMap<_, _> = Verdict::ALL.map(|verdict| (verdict.words(), self.count(verdict))).into();
        json!({ "findings": self.0, "counts": counts })
    }

    /// One line for each finding, and one for its remedy. A cause that prevents several checks, such as a refusal by
    /// the management API, is printed once, with the list of those checks.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, Finding { check, verdict, found, remedy }) in self.0.iter().enumerate() {
            let same = |other: &&Finding| {
                other.verdict == Verdict::NotChecked && *verdict == Verdict::NotChecked && other.found == *found
            };
            if self.0[..at].iter().any(|other| same(&other)) {
                continue;
            }
            lines.push(format!("{:<12} {check:<22} {}", verdict.words(), legible(found, false)));
            let others: Vec<&str> = self.0[at + 1..].iter().filter(same).map(|other| other.check).collect();
            if !others.is_empty() {
                lines.push(format!("{:<12} {:<22} nor, for the same reason: {}", "", "", others.join(", ")));
            }
            lines.extend(remedy.as_ref().map(|remedy| format!("{:<12} {:<22} → {remedy}", "", "")));
        }
        let counts = Verdict::ALL.map(|verdict| format!("{} {}", self.count(verdict), verdict.words()));
        lines.extend([String::new(), counts.join(", ")]);
        lines
    }
}
