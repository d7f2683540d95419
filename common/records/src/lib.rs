//! The fleet's records in the object store, typed: the only code that knows the paths of objects.
//!
//! Depends on the contract (crate `common`) and on the object store, but on no broker. Functions take the time as a
//! parameter; only the sweep of temporary files compares their age with the clock.
//!
//! ```text
//! layout      every path, derived from its inputs          staging     enriched chunks, until their batch is complete
//! store       opening, reading and writing objects         alias       which model version an alias names
//! batches     the records of a batch, its claim, its state served      serving statistics of a model version
//! uploads     bytes and records of submitted batches       control     paused workers, and what workers wait for
//! batch_log   the batches in their order of arrival
//! ```

pub mod alias;
pub mod batch_log;
pub mod batches;
pub mod control;
pub mod layout;
pub mod served;
pub mod staging;
pub mod store;
pub mod uploads;

pub use store::{Store, StoreSettings};
