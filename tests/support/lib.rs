//! What the tests of the whole fleet share: RabbitMQ, object stores, brokers in containers, a proxy that disturbs connections, stubs of
//! NOAA's services and of forecast services, the fleet as processes, a browser, faults, the simulated world, properties of any input, permissions on the
//! broker, and waits.

pub mod azure;
pub mod browser;
pub mod careless_s3;
pub mod collector;
pub mod containers;
pub mod counting;
pub mod datasets;
pub mod disturbed;
pub mod faults;
pub mod forecasts;
pub mod gateway;
pub mod models;
pub mod noaa;
pub mod processes;
pub mod prometheus;
pub mod properties;
pub mod proxy;
pub mod rabbitmq;
pub mod real_data;
pub mod s3;
pub mod secrets;
pub mod service;
pub mod simulation;
pub mod tls;
pub mod trust;
pub mod wait;

/// Prints a line on standard error, also if the test passes: libtest captures the output of the print macros.
pub fn print_uncaptured(words: impl std::fmt::Display) {
    use std::io::Write;
    // Nothing can be done if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{words}");
}
