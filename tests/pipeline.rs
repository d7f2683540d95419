//! The fleet, tested as a whole.
//!
//! `contract` schemas, examples, types and topology against each other · `conformance` both brokers and the worker loop ·
//! `fleet` five workers, rides in, probability out · `faults` what befalls brokers, wires and workers · `command` the
//! `wildrydes` command as a person uses it · `security` who may do what, TLS, and that no secret is told · `simulation` the
//! fleet in a world made of a seed · `poison` what is hostile ends where it should, and nothing beside it suffers · `operator`
//! what one does when something does fail · `gateway` scores, batches and models over HTTP · `browser` the page as a person uses
//! it · `inputs` what people really hand in.

mod browser;
mod command;
mod conformance;
mod contract;
mod faults;
mod fleet;
mod gateway;
mod inputs;
mod operator;
mod poison;
mod security;
mod simulation;
