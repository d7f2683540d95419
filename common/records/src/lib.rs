//! The fleet's records in the object store, typed: the only code that knows the paths of objects.
//!
//! Depends on the contract (crate `common`) and on the object store, but on no broker. Functions take the time as a
//! parameter; only the sweep of temporary files compares their age with the clock.
//!
//! ```text
//! layout      every path, derived from its inputs          staging     enriched chunks, until their batch is complete
//! store       opening, reading and writing objects         alias       which model version an alias names
//! batches     the records of a batch, its claim, its state datasets    joined rides and their manifests, written and read
//! uploads     bytes and records of submitted batches       served      serving statistics of a model version
//! batch_log   the batches in their order of arrival        control     paused workers, and why workers wait
//! ```

pub mod alias;
pub mod batch_log;
pub mod batches;
pub mod control;
pub mod datasets;
pub mod layout;
pub mod served;
pub mod staging;
pub mod store;
pub mod uploads;

pub use store::{Store, StoreSettings};
