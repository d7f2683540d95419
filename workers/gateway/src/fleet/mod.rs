//! The state of the fleet: queues, events, champion, and RabbitMQ's management API.
//!
//! Depends on `batches`, `link` and `metrics`.

pub mod management;
pub(crate) mod observe;
