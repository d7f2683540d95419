//! How messages are delivered: their properties, what a handler returns, and what is then done with the message.
//!
//! Depends on `message` and `text`.

pub mod dead_letter;
pub mod envelope;
pub mod failure;
pub mod outcome;
pub mod outgoing;
pub mod reply_address;
