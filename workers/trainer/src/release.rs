//! A trained release is written, judged and promoted; the only folder that changes the registry. May depend on every other folder.

pub mod announcement;
pub mod breed_champions;
pub mod breeds;
pub mod decision;
pub mod delayed_labels;
pub(crate) mod publication;
pub mod registry;
