//! The shell around the workers: brokers, the consume loop, configuration, logs, the object store.
//!
//! ```text
//! main.rs ──▶ Process (arguments, configuration, logs) ──▶ worker::run(worker, broker)
//!                                                             │  connect → declare → consume, from the top
//!                                          broker (the port)  ▼  whenever the connection is lost
//!                                          ├─ amqp    RabbitMQ through lapin
//!                                          └─ memory  in this process, no server
//! ```

pub mod broker;
pub mod config;
pub mod store;
pub mod worker;

pub use broker::{Broker, Connection};
pub use store::Store;
pub use worker::Worker;
