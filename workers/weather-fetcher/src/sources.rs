//! Where weather comes from and how it is read there: folders, NOAA's bucket and its access service.
//!
//! Depends on [`formats`](crate::formats). The only room that speaks HTTP.

pub mod body;
pub mod client;
pub mod file_naming;
pub mod http;
pub mod location;
pub mod patience;
pub mod request_policy;
pub mod service;
pub mod source;
pub mod unavailable;
