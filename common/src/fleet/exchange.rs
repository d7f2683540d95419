//! Names of the fleet's exchanges, without the namespace.

/// Batches from publishers, with any routing key.
pub const INGEST: &str = "ingest";
/// Work between the stages, routed by message kind.
pub const WORK: &str = "work";
/// Events, for any number of subscribers.
pub const EVENTS: &str = "events";
/// Requests for scores and for weather, which workers answer.
pub const RPC: &str = "rpc";
/// Messages on their way into a retry queue, and back to their work queue.
pub const RETRY: &str = "retry";
/// Dead letters, routed by the work queue they come from.
pub const DEAD: &str = "dead";
/// The default exchange: an answer goes directly to the queue that the request names.
pub const DEFAULT: &str = "";
