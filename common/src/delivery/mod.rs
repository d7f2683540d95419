//! How messages are delivered: their properties, the result of a handler, and how a message is then treated.
//!
//! Depends on `message` and `text`.

pub mod dead_letter;
pub mod envelope;
pub mod failure;
pub mod outcome;
pub mod outgoing;
pub mod reply_address;
