//! Dates of weather, in UTC. Pure.

use common::message::WeatherPlace;
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

/// Number of days after which a missing observation is no longer expected. GHCN-Daily lags behind by days, some stations by weeks.
pub const RECENT_DAYS: i64 = 60;

/// Returns the date at a time.
pub fn utc_date(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// Returns the date of the weather of a place.
pub fn date_of(place: &WeatherPlace) -> Date {
    place.statustime.datetime().date()
}

/// Returns whether an observation of a date may still be published: at most [`RECENT_DAYS`] ago, or in the future.
pub fn is_recent(date: Date, today: Date) -> bool {
    date >= today.saturating_sub(RECENT_DAYS.days())
}
