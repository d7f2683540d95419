//! Implements the broker port for RabbitMQ with lapin: the only code that names lapin.
//!
//! A process has two TCP connections, one for publishing and one for consuming, because a broker under an alarm stops
//! reading from a connection that publishes, acknowledgements included. There is no automatic recovery: after an error
//! the caller connects again and repeats declaring and consuming. Every await has a deadline.

mod broker;
mod browser;
mod connection;
mod consumer;
mod convert;
mod declare;
mod delivery;
mod inspect;
mod legible;
mod operation;
mod publisher;
mod tls;
mod transport;

pub use broker::AmqpBroker;
pub use inspect::Presence;
