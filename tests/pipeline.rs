//! The integration tests of the whole fleet, in one binary. They may use every crate of the workspace and `support/`.
//!
//! `promises/` holds the tests of the promises of the README: the fleet from rides to a probability, under faults, in simulated
//! worlds, with hostile messages and unusual input, and who may do what. `interfaces/` holds the tests of what others use: the
//! `wildrydes` command, the HTTP API and its page, both brokers, schemas and the project's own rules. `measure/` holds programs
//! that print figures, `support/` what all of them share, `fuzz/` a workspace of its own.
//!
//! The modules have no common parent: filters such as `gateway::limits` name them directly.

#[path = "interfaces/browser/mod.rs"]
mod browser;
#[path = "interfaces/command/mod.rs"]
mod command;
#[path = "interfaces/conformance/mod.rs"]
mod conformance;
#[path = "interfaces/contract/mod.rs"]
mod contract;
#[path = "promises/faults/mod.rs"]
mod faults;
#[path = "promises/fleet/mod.rs"]
mod fleet;
#[path = "interfaces/gateway/mod.rs"]
mod gateway;
#[path = "promises/inputs/mod.rs"]
mod inputs;
#[path = "interfaces/kubernetes/mod.rs"]
mod kubernetes;
#[path = "interfaces/operator/mod.rs"]
mod operator;
#[path = "promises/poison/mod.rs"]
mod poison;
#[path = "promises/security/mod.rs"]
mod security;
#[path = "promises/simulation/mod.rs"]
mod simulation;
