//! What checks found, and how it is printed.

use crate::output::legible;
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
    pub(super) verdict: Verdict,
    /// What was found, or why nobody looked.
    pub(super) found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.0.push(Finding { check, verdict, found: found.into(), remedy });
    }

    pub(super) fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Verdict::Ok, found, None);
    }

    pub(super) fn warn(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Verdict::Warning, found, Some(remedy.into()));
    }

    pub(super) fn broken(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Verdict::Broken, found, Some(remedy.into()));
    }

    pub(super) fn not_checked(&mut self, check: &'static str, why: impl Into<String>) {
        self.add(check, Verdict::NotChecked, why, None);
    }

    /// One finding for a check that looks at many things: the complaints, or that there are none.
    pub(super) fn judge(
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

    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

/// The first few of many, and how many there are.
pub(super) fn several(items: &[String]) -> String {
    const SHOWN: usize = 4;
    match items.len() {
        0..=SHOWN => items.join("; "),
        more => format!("{}; and {} more", items[..SHOWN].join("; "), more - SHOWN),
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
    pub(super) fn as_json(&self) -> Value {
        let counts: BTreeMap<_, _> = Verdict::ALL.map(|verdict| (verdict.words(), self.count(verdict))).into();
        json!({ "findings": self.0, "counts": counts })
    }

    /// One line for each finding, and one for its remedy. A cause that prevents several checks, such as a refusal by
    /// the management API, is printed once, with the list of those checks.
    pub(super) fn lines(&self) -> Vec<String> {
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
