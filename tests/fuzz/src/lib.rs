//! The properties, as the tests share them.

#[path = "../../support/properties.rs"]
pub mod properties;
