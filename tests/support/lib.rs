//! What the tests of the whole fleet stand on: a real RabbitMQ, a wire to it that can be cut, a stub of NOAA's services,
//! the fleet as processes, the fleet in a simulated world, what must hold of any input.

pub mod cut;
pub mod noaa;
pub mod processes;
pub mod properties;
pub mod rabbitmq;
pub mod real_data;
pub mod simulation;
pub mod tls;
