//! What the tests of the whole fleet stand on: a real RabbitMQ, a stub of NOAA's services, the fleet as processes.

pub mod noaa;
pub mod processes;
pub mod rabbitmq;
pub mod real_data;
