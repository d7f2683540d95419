//! The fleet's records in the object store, typed: the only code that knows the paths of objects.
//!
//! Depends on the contract (crate `common`) and on the object store, but on no broker. Functions take the time as a
//! parameter; only the sweep of temporary files compares their age with the clock.
//!
//! ```text
//! layout      every path, derived from its inputs          staging     enriched chunks, until their batch is complete
//! store       opening, listing, reading, writing objects   registry    model versions and their aliases
//! batch_log   the batches in their order of arrival        serving     serving statistics and scored rides
//! control     paused workers, and why workers wait      datasets    joined rides and their manifests, written and read
//! ```

pub mod batch_log;
pub mod batches;
pub mod control;
pub mod datasets;
pub mod layout;
pub mod registry;
pub mod serving;
pub mod staging;
pub mod store;
pub mod uploads;

pub use store::{Store, StoreSettings};
