//! The contract between the workers, as data and pure functions.
//!
//! Nothing in here does I/O, reads a clock or an environment variable, draws a random number or names an async
//! runtime or a broker client; a test holds that (`tests/contract/house_rules.rs`).

pub mod coding;
pub mod dataset;
pub mod dead_letter;
pub mod envelope;
pub mod features;
pub mod layout;
pub mod message;
pub mod model;
pub mod outcome;
pub mod permissions;
pub mod reading;
pub mod reply_address;
pub mod ride;
pub mod served;
pub mod text;
pub mod topology;
pub mod waiting;
pub mod weather;
