//! Parsers of the texts of weather sources and of the cache file: bytes become station-years.
//!
//! Depends on the contract (`common`) alone; only [`gzip`] reads asynchronously. Nothing here knows where a text comes from.

pub mod foreign;
pub mod ghcn;
pub mod gzip;
pub mod json;
pub mod left_out;
pub mod lines;
pub mod malformed;
pub mod station_year;
