//! What the tests of the whole fleet stand on: a real RabbitMQ, brokers of a test's own to do harm to, a proxy that does to
//! connections what networks do, a stub of NOAA's services, the fleet as processes, a browser on its page, the faults it
//! must stand, the fleet in a simulated world, what must hold of any input, who may do what on the broker.

pub mod browser;
pub mod containers;
pub mod datasets;
pub mod disturbed;
pub mod faults;
pub mod gateway;
pub mod models;
pub mod noaa;
pub mod processes;
pub mod properties;
pub mod proxy;
pub mod rabbitmq;
pub mod real_data;
pub mod secrets;
pub mod simulation;
pub mod tls;
pub mod trust;

/// Says something on standard error that is seen though the test passes: what the print macros print, libtest keeps to
/// itself then.
pub fn aloud(words: impl std::fmt::Display) {
    use std::io::Write;
    // Nothing can be done where nobody listens.
    let _ = writeln!(std::io::stderr(), "{words}");
}
