//! Tests of permissions on the broker, of TLS to it, and that no secret is printed.

mod deputy;
mod doctor;
mod permissions;
mod secrets;
mod tls;
mod users;
