//! The exchanges of the fleet, by name.

/// Where publishers hand in batches. Takes any routing key.
pub const INGEST: &str = "ingest";
/// Work between the stages, routed by kind.
pub const WORK: &str = "work";
/// What has happened, for whoever wants to know.
pub const EVENTS: &str = "events";
/// Requests that are answered: for scores, for weather.
pub const RPC: &str = "rpc";
/// Rungs: messages that wait before they are tried again.
pub const RETRY: &str = "retry";
/// Dead letters.
pub const DEAD: &str = "dead";
