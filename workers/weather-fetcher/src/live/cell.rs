//! The forecast of a grid cell: some days, each with all three elements.

use crate::{dates::date_of, formats::station_year::DayWeather, stations::nearest::haversine_km};
use common::{
    message::{Forecast, WeatherPlace},
    weather,
};
use compact_str::CompactString;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use std::collections::BTreeMap;

/// The days that a service forecasts for one grid cell.
#[derive(Debug, Clone, PartialEq)]
pub struct CellForecast {
    /// Name of the service.
    pub source: &'static str,
    /// Id of the cell, in the form of the service.
    pub cell: CompactString,
    /// Latitude and longitude of the middle, degrees; `None` if the service does not say.
    pub middle: Option<(f64, f64)>,
    /// Time at which the forecast was issued.
    pub issued: Timestamp,
    /// The days that have all three elements, by UTC date.
    pub days: BTreeMap<Date, DayWeather>,
}

impl CellForecast {
    /// Returns the forecast for the date of a place in this cell; `None` if the forecast of that date lacks an element. The
    /// distance is 0 if the middle is unknown.
    pub fn at(&self, place: &WeatherPlace) -> Option<Forecast> {
        let DayWeather { tmin, tmax, prcp } = *self.days.get(&date_of(place))?;
        Some(Forecast {
            source: self.source.into(),
            cell: self.cell.clone(),
            cell_km: self.middle.map_or(0.0, |middle| haversine_km((place.latitude, place.longitude), middle)),
            issued: self.issued.to_zoned(TimeZone::UTC).datetime().into(),
            tmin: tmin.into(),
            tmax: tmax.into(),
            prcp: prcp.into(),
        })
    }
}

/// Converts °C and mm to the tenths of a dataset; `None` if that weather is impossible.
pub fn day_weather(tmin: f64, tmax: f64, prcp: f64) -> Option<DayWeather> {
    let [tmin, tmax, prcp] = [tmin, tmax, prcp].map(|value| (value * 10.0).round());
    weather::check(Some(tmin), Some(tmax), Some(prcp)).ok()?;
    // The check bounds the values far within 16 bits.
    Some(DayWeather { tmin: tmin as i16, tmax: tmax as i16, prcp: prcp as i16 })
}

/// Rounds a coordinate in degrees to a multiple of 1 / `parts` degree.
pub fn rounded(degrees: f64, parts: f64) -> f64 {
    // The sum turns −0 into 0.
    (degrees * parts).round() / parts + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_weather_is_no_forecast() {
        assert_eq!(day_weather(-3.26, 4.04, 1.26), Some(DayWeather { tmin: -33, tmax: 40, prcp: 13 }));
        for (tmin, tmax, prcp) in [(5.0, 4.0, 0.0), (20.0, 75.0, 0.0), (1.0, 2.0, -1.0), (f64::NAN, 2.0, 0.0)] {
            assert_eq!(day_weather(tmin, tmax, prcp), None, "{tmin} {tmax} {prcp}");
        }
    }

    #[test]
    fn coordinates_are_rounded_without_a_negative_zero() {
        let text = |degrees, parts| rounded(degrees, parts).to_string();
        assert_eq!(
            [text(-0.001, 100.0), text(40.7829, 100.0), text(-74.0, 100.0), text(-73.96, 10.0)],
            ["0", "40.78", "-74", "-74"]
        );
    }
}
