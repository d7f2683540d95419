//! `report.html`: one page that shows a model and needs nothing but itself (no script, no font, no other file); pure, depends on
//! [`document`](crate::document) only.
//!
//! | file | content |
//! |---|---|
//! | `page` | the page from top to bottom: head, summary, data, origin |
//! | `effects`, `quality`, `rivals` | the sections in between |
//! | `words` | sentences that the metrics support |
//! | `charts`, `coverage` | metrics to marks on axes |
//! | `plot` | marks on axes to SVG |
//! | `parts`, `figures`, `odds`, `style` | building blocks of all sections |
//!
//! The same model gives the same bytes.

mod charts;
mod coverage;
mod effects;
mod figures;
pub mod odds;
mod page;
mod parts;
mod plot;
mod quality;
mod rivals;
mod style;
mod words;

use common::document::{Breeds, DataSummary, DelayedLabelMetrics, Verdict};
use common::model::Model;

/// The content of a page.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The model to show.
    pub model: &'a Model,
    /// Where the rides of the model came from.
    pub data: &'a DataSummary,
    /// The breed models of the same release.
    pub breeds: Option<&'a Breeds>,
    /// Absent before the promotion decision.
    pub verdict: Option<&'a Verdict>,
    /// How good the scores of served versions were.
    pub delayed_labels: &'a [DelayedLabelMetrics],
}

impl Page<'_> {
    /// Renders the page.
    pub fn html(&self) -> String {
        self.markup().into_string()
    }
}

#[cfg(test)]
pub(crate) mod tests;
