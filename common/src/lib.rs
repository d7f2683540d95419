//! The contract between the workers of the Wild Rydes fleet, as data and pure functions.
//!
//! No code in this crate does I/O, reads a clock or an environment variable, draws a random number, or names an async
//! runtime or a broker client: none of its dependencies offers them.
//!
//! ```text
//! ride        one validated ride                message     the messages between workers
//! features    inputs of the model               envelope    properties of a message
//! reading     how the bytes of a batch are read outcome     result of a handler, and the decision that follows
//! dataset     claim, manifest                   topology    exchanges, queues, bindings
//! model       artefact, alias, metrics          permissions permissions of each user on the broker
//! served      serving statistics                dead_letter why a message was given up
//! imputation  scores without all features
//! ```
//!
//! Three crates build on one another: `common`, then `records` (the contents of the object store), then `runtime` (how
//! a worker runs). A worker is a pure core and one implementation of `runtime::Worker`. Its handler *returns* the
//! messages to publish; the runtime publishes them, waits for the confirms and only then acknowledges the input. Start
//! at [`topology`] to see the fleet, then read [`outcome`] for the results of a handler, then `runtime::worker` for the
//! loop that runs it.

pub mod coding;
pub mod delivery;
pub mod document;
pub mod features;
pub mod fleet;
pub mod imputation;
pub mod message;
pub mod object_path;
pub mod reading;
pub mod ride;
pub mod schema;
pub mod text;
pub mod weather;

pub use delivery::{dead_letter, envelope, outcome, reply_address};
pub use document::{dataset, model, served, waiting};
pub use fleet::{exchange, permissions, topology};
