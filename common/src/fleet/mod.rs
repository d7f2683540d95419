//! The fleet as data: exchanges, queues and bindings, and the permissions of each user.
//!
//! `exchange` and `process` hold the names and depend on nothing; the others depend on `message` and `delivery`.

pub mod exchange;
pub mod permissions;
pub mod process;
pub mod topology;
