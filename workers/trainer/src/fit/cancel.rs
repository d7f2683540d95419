//! How a shutdown ends a computation.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Asks computations in other threads to end early.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks every computation that holds a clone to end at its next pass over the rides.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether cancellation was requested.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
