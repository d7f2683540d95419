//! The faults that a fleet must survive. Each is a function that disturbs a batch and compares the outcome with the undisturbed
//! run. `tests/promises/faults/` runs each at its smallest, the `chaos` program at length.

pub mod alarms;
pub mod broker;
pub mod cluster;
pub mod kills;
pub mod queues;
pub mod slow;
pub mod wire;
