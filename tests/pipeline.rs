//! The fleet, tested as a whole.
//!
//! `contract` schemas, examples, types and topology against each other · `conformance` both brokers and the worker loop ·
//! `fleet` five workers, rides in, probability out · `faults` what befalls brokers, wires and workers · `command` the
//! `wildrydes` command as a person uses it · `simulation` the fleet in a world made of a seed.

mod command;
mod conformance;
mod contract;
mod faults;
mod fleet;
mod simulation;
