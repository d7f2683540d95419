//! How a worker runs: brokers, the consume loop, configuration, logs, the object store. Depends on `common` and
//! `records`.
//!
//! ```text
//! main.rs ──▶ Process (arguments, configuration, logs) ──▶ worker::run(worker, broker)
//!                                                             │  connect → declare → consume, repeated
//!                                          broker (the port)  ▼  after every loss of the connection
//!                                          ├─ amqp    RabbitMQ through lapin
//!                                          └─ memory  in this process, without a server
//! ```

pub mod amqp;
pub mod backoff;
pub mod broker;
pub mod client;
pub mod compression;
pub mod config;
pub mod control;
pub mod health;
pub mod host;
pub mod memory;
pub mod metrics;
pub mod process;
pub mod proven;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
pub mod waiting;
pub mod worker;

pub use amqp::AmqpBroker;
pub use broker::{Broker, Connection};
pub use memory::MemoryBroker;
pub use process::Process;
pub use shutdown::Shutdown;
pub use worker::Worker;
