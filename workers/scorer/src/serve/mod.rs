//! The models that are served: which artefacts may be, the versions that aliases name, breed models on demand.
//!
//! Depends on nothing else in this crate.

pub mod artefact;
pub(crate) mod breeds;
pub(crate) mod follow;
pub(crate) mod models;
pub(crate) mod version;
