//! Which stations lie near a place, for all years and for each year.
//!
//! Pure. Depends on [`formats`](crate::formats), for the station list and the inventory.

pub mod nearest;
pub mod years;
