//! The texts of GHCN-Daily as NOAA serves them. A row that violates the format is left out and counted; a text without a
//! valid row is not weather. Depends on the rest of [`formats`](crate::formats) and on the contract.
//!
//! Formats: <https://www.ncei.noaa.gov/pub/data/ghcn/daily/readme.txt> (station list, inventory, flags),
//! <https://noaa-ghcn-pds.s3.amazonaws.com/readme-by_station.txt> (CSV by station) and
//! <https://www.ncei.noaa.gov/support/access-data-service-api-user-documentation> (JSON).

mod access;
mod by_station;
mod heading;
mod lists;

pub use access::AccessAnswer;
pub use by_station::{ByStation, FIRST_YEAR};
pub use lists::{Inventory, InventoryList, Station, StationList, YearRange};
