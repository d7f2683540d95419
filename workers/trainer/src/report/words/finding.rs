//! A question about a model with its answer.

use common::model::{Metrics, Model};

/// How good an answer is, for the mark beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Tone {
    /// Favourable.
    Good,
    /// Favourable with reservations, or unclear.
    Weak,
    /// Unfavourable.
    Bad,
    /// The model has no data for an answer.
    Unknown,
}

/// A question about the model, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Finding {
    pub(in crate::report) question: &'static str,
    pub(in crate::report) tone: Tone,
    /// Answer in a few words.
    pub(in crate::report) short: String,
    /// Answer in sentences, with the figures.
    pub(in crate::report) long: String,
}

impl Finding {
    pub(super) fn new(question: &'static str, tone: Tone, short: &str, long: impl Into<String>) -> Self {
        Self { question, tone, short: short.to_owned(), long: long.into() }
    }
}

/// Returns the metrics to judge by, and a description of their rides.
pub(in crate::report) fn evaluation(model: &Model) -> (&Metrics, &'static str) {
    model.test.as_ref().map_or((&model.train, "trained on, which favours the model"), |test| (test, "held out"))
}
