//! Who may do what on the broker, TLS to it, and that no secret is told.

mod deputy;
mod doctor;
mod permissions;
mod secrets;
mod tls;
mod users;
