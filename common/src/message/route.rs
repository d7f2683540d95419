//! The way of a message through the fleet.

use crate::message::kind::Kind;

/// Who sends a message, through which exchange, and who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Name and major version.
    pub kind: Kind,
    /// The queue of the worker that sends it, or the role of an external client; a gateway sends as publisher and client.
    pub sender: &'static str,
    /// Exchange to which the message is published; see [`crate::fleet::exchange`].
    pub exchange: &'static str,
    /// The work queues that receive it. Empty for answers, and for events that only temporary queues receive.
    pub readers: &'static [&'static str],
}

/// A message that has a row in the table of messages.
pub trait Routed {
    /// Its way through the fleet.
    const ROUTE: Route;
}
