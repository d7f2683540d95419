//! The properties that `support/` shares with the tests.

#[path = "../../support/properties.rs"]
pub mod properties;
