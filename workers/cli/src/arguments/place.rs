//! A place and a time on the command line.

use clap::Args;
use common::{
    message::WeatherPlace,
    ride::{StatusTime, TIME_FORMS},
};
use runtime::host;
use std::str::FromStr;

/// The place and time of a ride whose weather is looked up.
#[derive(Debug, Clone, Args)]
pub struct PlaceAndTime {
    /// Look up the weather of this place, degrees north and east, instead of --tmin, --tmax and --prcp
    #[arg(long, value_name = "LAT,LON", allow_hyphen_values = true, conflicts_with_all = ["tmin", "tmax", "temperature", "prcp", "units"])]
    pub at: Option<Place>,
    /// Time of the ride, whose UTC date is the day of the weather; also `now` [default: now]
    #[arg(long, requires = "at", value_parser = time)]
    pub time: Option<StatusTime>,
}

/// A place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Degrees north, −90 to 90.
    pub latitude: f64,
    /// Degrees east, −180 to 180.
    pub longitude: f64,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected degrees north and degrees east, as in 40.7,-74.0";
        let (latitude, longitude) = text.split_once(',').ok_or(expected)?;
        let degrees = |text: &str, max: f64| text.trim().parse().ok().filter(|degrees: &f64| degrees.abs() <= max);
        let (Some(latitude), Some(longitude)) = (degrees(latitude, 90.0), degrees(longitude, 180.0)) else {
            return Err(expected);
        };
        Ok(Self { latitude, longitude })
    }
}

fn time(text: &str) -> Result<StatusTime, String> {
    host::read_time(text).map_err(|_| format!("expected now, or {TIME_FORMS}"))
}

impl PlaceAndTime {
    /// Returns what to look the weather up for, if anything.
    pub fn weather_place(&self) -> Option<WeatherPlace> {
        let Place { latitude, longitude } = self.at?;
        Some(WeatherPlace { latitude, longitude, statustime: self.time.or_else(|| time("now").ok())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_two_numbers_of_degrees() {
        assert_eq!("40.7,-74.0".parse(), Ok(Place { latitude: 40.7, longitude: -74.0 }));
        assert_eq!(" -33.9 , 151 ".parse(), Ok(Place { latitude: -33.9, longitude: 151.0 }));
        for text in ["40.7", "40.7,", "91,0", "0,181", "nan,0", "40,7,-74", "New York"] {
            assert!(text.parse::<Place>().is_err_and(|why| why.contains("as in 40.7,-74.0")), "{text}");
        }
    }
}
