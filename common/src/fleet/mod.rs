//! The fleet as data: exchanges, queues and bindings, and who may do what with them.
//!
//! Depends on `message` and `delivery`.

pub mod exchange;
pub mod permissions;
pub mod topology;
