//! What the workers of the Wild Rydes fleet have in common.
//!
//! ```text
//!            contract  (pure: no I/O, no clock, no randomness)
//!   ┌───────────────────────────────────────────────────────────┐
//!   │ ride        one ride, validated          message   wire   │
//!   │ envelope    properties of a message      topology  queues │
//!   │ outcome     Outputs, Failure, decide     layout    paths  │
//!   │ dataset     columns, manifest            model     artefact│
//!   └───────────────────────────────────────────────────────────┘
//!            runtime   (the shell: the only place that names lapin)
//!   ┌───────────────────────────────────────────────────────────┐
//!   │ worker      trait Worker, run            broker   the port │
//!   │ amqp        RabbitMQ behind the port     memory   no server│
//!   │ client      publish, call, follow        store    objects  │
//!   │ config      file, environment, flags     telemetry  logs   │
//!   └───────────────────────────────────────────────────────────┘
//! ```
//!
//! A worker is a pure core plus one implementation of [`runtime::Worker`]: its handler *returns* what it wants
//! published, and the runtime publishes, waits for the confirms and only then acknowledges the input. Start reading
//! at [`contract::topology`] to see the whole fleet, then [`contract::outcome`] for what a handler may answer, then
//! [`runtime::worker`] for what is done with the answer.

pub mod contract;
pub mod runtime;
