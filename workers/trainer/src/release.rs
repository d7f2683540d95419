//! A trained release is written to the registry, judged and promoted. May depend on every other folder.

pub mod breeds;
pub mod decision;
pub mod delayed_labels;
mod known;
pub(crate) mod publication;

pub(crate) use known::known_decision;
