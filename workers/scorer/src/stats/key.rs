//! The key of serving statistics.

/// One version on one day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) model: String,
    pub(crate) model_id: String,
    /// `YYYY-MM-DD`, UTC.
    pub(crate) date: String,
}
