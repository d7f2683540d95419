//! RabbitMQ behind the port, through lapin: the only place that names it.
//!
//! Two TCP connections a process: one publishes, one consumes, because a broker under an alarm stops reading from the
//! connection that publishes, acknowledgements included. No automatic recovery: when anything breaks, the caller
//! connects anew, declares and consumes from the top. Every await has a deadline.

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
