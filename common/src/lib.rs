//! The contract between the workers of the Wild Rydes fleet, as data and pure functions.
//!
//! No code in this crate does I/O, reads a clock or an environment variable, draws a random number, or names an async runtime or a
//! broker client: its dependencies offer none of these.
//!
//! ```text
//! ride        one ride, validated               message     what travels between workers
//! features    inputs of the model               envelope    properties of a message
//! reading     how the bytes of a batch are read outcome     what a handler returns, and what follows from it
//! dataset     columns, claim, manifest          topology    exchanges, queues, bindings
//! model       artefact, alias, metrics          permissions who may do what on the broker
//! served      serving statistics                dead_letter why a message was given up
//! ```
//!
//! Three crates build on one another: `common`, then `records` (what the fleet keeps in the object store), then `runtime` (how a
//! worker runs). A worker is a pure core and one implementation of `runtime::Worker`: its handler *returns* what it wants published;
//! the runtime publishes, waits for the confirms and only then acknowledges the input. Start at [`topology`] to see the fleet, then
//! read [`outcome`] for what a handler may return, then `runtime::worker` for what is done with it.

pub mod coding;
pub mod delivery;
pub mod document;
pub mod features;
pub mod fleet;
pub mod message;
pub mod object_path;
pub mod reading;
pub mod ride;
pub mod text;
pub mod weather;

pub use delivery::{dead_letter, envelope, outcome, reply_address};
pub use document::{dataset, model, served, waiting};
pub use fleet::{exchange, permissions, topology};
