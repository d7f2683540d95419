//! HTTP itself: sockets and their limits, keys, host names, headers, bodies, problems, the pace of uploads.
//!
//! Depends on `settings`, `limits` and `metrics`; the files that see a whole request also on `app`. Only `server` and `ops` depend
//! on other rooms: they serve what is in `api`.

pub(crate) mod auth;
pub(crate) mod body_guard;
pub(crate) mod connections;
pub(crate) mod encoding;
pub(crate) mod extract;
mod headers;
pub(crate) mod hosts;
mod listener;
mod ops;
pub(crate) mod pace;
pub mod problem;
pub(crate) mod request;
pub(crate) mod server;
pub(crate) mod traced;
