//! Typed access to all that the fleet keeps in the object store. No other crate knows the paths of objects.
//!
//! Depends on the contract (crate `common`) and on the object store, but on no broker. Functions take the time as a
//! parameter; only the sweep of temporary files compares their age with the clock.
//!
//! ```text
//! layout      every path, derived from its inputs          store       opening, listing, reading, writing objects
//! uploads     bytes and records of submitted batches       batches     records, claim and state of a batch
//! batch_log   the batches in their order of arrival        staging     enriched chunks, until their batch is complete
//! datasets    joined rides and their manifests             registry    model versions and their aliases
//! refreshes   attempts to join a batch again               control     paused workers, and why workers wait
//! serving     serving statistics and scored rides
//! tls         the cryptography of all connections
//! ```

pub mod batch_log;
pub mod batches;
pub mod control;
pub mod datasets;
pub mod layout;
pub mod refreshes;
pub mod registry;
pub mod serving;
pub mod staging;
pub mod store;
pub mod tls;
pub mod uploads;

pub use store::{Store, StoreSettings};
