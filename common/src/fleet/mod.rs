//! The fleet as data: exchanges, queues and bindings, and the permissions of each user.
//!
//! Depends on `message` and `delivery`.

pub mod exchange;
pub mod permissions;
pub mod topology;
