//! Joins each ride with NOAA's daily observations at the nearest station that has them for the ride's date.
//!
//! ```text
//!       ride-chunk ─▶ fetcher ─▶ enriched-chunk
//!  weather-request ─▶ lookup  ─▶ weather-response    one queue and connection each: no request waits behind a batch
//!                        ├─▶ live   forecasts and climatology, for lookups only
//!                     almanac   station list, read once per process
//!                        │
//!                       join ◀── stations   k-d tree over the station list
//!      missing           │  ▲
//!      station-years     ▼  │   known station-years
//!                      cache    memory ─▶ object store ─▶ sources   bucket, folder or NCEI access service
//!                                                            │
//!                                                         formats   bytes become station-years
//! ```
//!
//! * [`join`] (pure, start here): the rule that assigns a station to a ride;
//! * [`stations`] (pure): the stations around a place;
//! * [`formats`] (pure but for `gzip`): NOAA's texts and the cache file;
//! * [`sources`]: HTTP and folders, with rate limit, retries and patience;
//! * [`cache`]: station-years in memory and in the object store, one request for each;
//! * [`almanac`]: all of these together, shared by the two workers of a process;
//! * `dates` (pure): UTC dates, and which observations may still be published;
//! * [`live`]: weather that no station has published, by provider; no dataset ever has it;
//! * [`inspect`](mod@inspect): a check of a source before it is used.

pub mod almanac;
pub mod cache;
mod dates;
mod fetcher;
pub mod formats;
pub mod inspect;
pub mod join;
pub mod live;
pub mod lookup;
pub mod process;
mod settings;
pub mod sources;
pub mod stations;

#[cfg(test)]
mod tests;

pub use fetcher::WeatherFetcher;
pub use inspect::{Inspection, inspect, inspect_forecasts};
pub use lookup::WeatherLookup;
pub use settings::Settings;
