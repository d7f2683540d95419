//! The findings of checks, and how they are printed.

use crate::output::legible;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strum::IntoEnumIterator;

/// Result of a check, in the order of the summary line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::EnumIter, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub(crate) enum Severity {
    Ok,
    Warning,
    Broken,
    #[strum(serialize = "not checked")]
    NotChecked,
}

/// Result of one check, with details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable name of the check.
    check: &'static str,
    #[serde(rename = "verdict")]
    pub(super) severity: Severity,
    /// What the check found, or why it did not run.
    pub(super) found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// The findings so far, in the order of the checks.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(
        &mut self,
        check: &'static str,
        severity: Severity,
        found: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.0.push(Finding { check, severity, found: found.into(), remedy });
    }

    pub(super) fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Severity::Ok, found, None);
    }

    pub(super) fn warn(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Severity::Warning, found, Some(remedy.into()));
    }

    pub(super) fn broken(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Severity::Broken, found, Some(remedy.into()));
    }

    pub(super) fn not_checked(&mut self, check: &'static str, why: impl Into<String>) {
        self.add(check, Severity::NotChecked, why, None);
    }

    /// Adds one finding for a check of many items: the complaints with `severity` and `remedy`, or `fine` if there are none.
    pub(super) fn judge(
        &mut self,
        check: &'static str,
        fine: impl Into<String>,
        complaints: Vec<String>,
        severity: Severity,
        remedy: &str,
    ) {
        match complaints.is_empty() {
            true => self.ok(check, fine),
            false => self.add(check, severity, several(&complaints), Some(remedy.to_owned())),
        }
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Joins the first few of many items, with the number of the others.
pub(super) fn several(items: &[String]) -> String {
    const ITEMS_MAX: usize = 4;
    match items.len() {
        0..=ITEMS_MAX => items.join("; "),
        count => format!("{}; and {} more", items[..ITEMS_MAX].join("; "), count - ITEMS_MAX),
    }
}

impl Findings {
    pub(super) fn as_json(&self) -> Value {
        let counts: BTreeMap<_, _> = Severity::iter().map(|of| (of.into_str(), self.count(of))).collect();
        json!({ "findings": self.0, "counts": counts })
    }

    /// Returns one line per finding and one per remedy, and a summary. A cause that prevents several checks, such as a refusal
    /// by the management API, is printed once, with the list of those checks.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, Finding { check, severity, found, remedy }) in self.0.iter().enumerate() {
            let same = |other: &&Finding| {
                other.severity == Severity::NotChecked && *severity == Severity::NotChecked && other.found == *found
            };
            if self.0[..at].iter().any(|other| same(&other)) {
                continue;
            }
            lines.push(format!("{:<12} {check:<22} {}", severity.into_str(), legible(found, false)));
            let others: Vec<&str> = self.0[at + 1..].iter().filter(same).map(|other| other.check).collect();
            if !others.is_empty() {
                lines.push(format!("{:<12} {:<22} not checked for the same reason: {}", "", "", others.join(", ")));
            }
            lines.extend(remedy.as_ref().map(|remedy| format!("{:<12} {:<22} → {remedy}", "", "")));
        }
        let counts: Vec<_> = Severity::iter().map(|of| format!("{} {}", self.count(of), of.into_str())).collect();
        lines.extend([String::new(), counts.join(", ")]);
        lines
    }
}
