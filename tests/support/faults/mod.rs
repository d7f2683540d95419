//! The faults a fleet must stand, each as a function that strikes a batch in the middle and holds the outcome to that of
//! the undisturbed run. `tests/promises/faults/` runs each at its smallest, the `chaos` program at length.

pub mod alarms;
pub mod broker;
pub mod cluster;
pub mod kills;
pub mod queues;
pub mod slow;
pub mod wire;
