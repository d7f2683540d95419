//! Forecasts of Open-Meteo (<https://open-meteo.com/en/docs>), for the whole earth.
//!
//! Without a contract the service is for non-commercial use, and its data are licensed under CC BY 4.0, which requires attribution.

use crate::{
    dates::{date_of, utc_date},
    formats::{malformed::Malformed, station_year::DayWeather},
    live::{
        cell::{CellForecast, day_weather, rounded},
        hourly::Hourly,
        provider::NoEstimate,
    },
    sources::{service::Service, unavailable::Unavailable},
};
use common::message::{Forecast, WeatherPlace};
use jiff::{Timestamp, ToSpan, civil::Date};
use serde::Deserialize;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

/// Name of the service.
pub const NAME: &str = "open-meteo";
/// Parts of a degree to which a place is rounded: about 11 km, the grid of most models.
const PLACE_PARTS: f64 = 10.0;
/// Number of days before today for which values of the models are requested.
const PAST_DAYS: i64 = 60;
/// Number of days after today for which forecasts are requested.
const DAYS: i64 = 15;

/// A client of the service.
#[derive(Debug)]
pub struct OpenMeteo {
    service: Service,
    base: String,
    forecasts: Hourly<Option<Arc<CellForecast>>>,
}

#[derive(Deserialize)]
struct Answer {
    latitude: f64,
    longitude: f64,
    daily_units: Units,
    daily: Daily,
}

#[derive(Deserialize)]
struct Units {
    temperature_2m_max: String,
    temperature_2m_min: String,
    precipitation_sum: String,
}

/// One value for each day.
#[derive(Deserialize)]
struct Daily {
    /// Dates as `YYYY-MM-DD`.
    time: Vec<String>,
    temperature_2m_max: Vec<Option<f64>>,
    temperature_2m_min: Vec<Option<f64>>,
    precipitation_sum: Vec<Option<f64>>,
}

impl OpenMeteo {
    /// Returns a client of the service at `base`.
    pub fn new(service: Service, base: &str) -> Self {
        Self { service, base: base.to_owned(), forecasts: Hourly::default() }
    }

    /// Returns the forecast for the date of a place. Its time of issue is the time of the request, because the service does not say
    /// when its models ran.
    ///
    /// # Errors
    /// Fails if the service has no forecast of that date, or cannot be reached.
    pub async fn forecast(&self, place: &WeatherPlace, now: Timestamp) -> Result<Forecast, NoEstimate> {
        let date = date_of(place);
        if !dates(now).contains(&date) {
            return Err(NoEstimate::out_of_range("the 60 days before today and the 15 after it"));
        }
        let [latitude, longitude] = [place.latitude, place.longitude].map(|degrees| rounded(degrees, PLACE_PARTS));
        let position = format!("{latitude},{longitude}");
        let none = || NoEstimate::NotCovered(format!("it has no whole forecast of {date} (UTC)"));
        let forecast =
            self.forecasts.get(&position, now, self.cell(latitude, longitude, now)).await?.ok_or_else(none)?;
        forecast.at(place).ok_or_else(none)
    }

    async fn cell(
        &self,
        latitude: f64,
        longitude: f64,
        now: Timestamp,
    ) -> Result<Option<Arc<CellForecast>>, Unavailable> {
        let dates = dates(now);
        let url = format!(
            "{}/v1/forecast?latitude={latitude}&longitude={longitude}\
             &daily=temperature_2m_max,temperature_2m_min,precipitation_sum&timezone=UTC&start_date={}&end_date={}",
            self.base,
            dates.start(),
            dates.end()
        );
        let Some(answer) = self.service.read_json::<Answer>(&url).await? else { return Ok(None) };
        let days = answer.days().map_err(|malformed| Unavailable::NotWeather {
            location: url.clone(),
            name: "forecast",
            malformed,
        })?;
        let Answer { latitude, longitude, .. } = answer;
        let cell = format!("{latitude},{longitude}").into();
        Ok(Some(Arc::new(CellForecast { source: NAME, cell, middle: Some((latitude, longitude)), issued: now, days })))
    }
}

/// Returns the dates that may have a forecast.
fn dates(now: Timestamp) -> RangeInclusive<Date> {
    let today = utc_date(now);
    today.saturating_sub(PAST_DAYS.days())..=today.saturating_add(DAYS.days())
}

impl Answer {
    /// Returns the days that have all three elements.
    fn days(&self) -> Result<BTreeMap<Date, DayWeather>, Malformed> {
        let Self { daily_units: units, daily, .. } = self;
        for (name, unit, expected) in [
            ("temperature_2m_max", &units.temperature_2m_max, "°C"),
            ("temperature_2m_min", &units.temperature_2m_min, "°C"),
            ("precipitation_sum", &units.precipitation_sum, "mm"),
        ] {
            if unit != expected {
                return Err(Malformed::new(0, name, format!("unit {unit:?}: expected {expected}")));
            }
        }
        let day = |(index, date): (usize, &String)| {
            let value = |values: &[Option<f64>]| *values.get(index)?;
            let (tmin, tmax) = (value(&daily.temperature_2m_min)?, value(&daily.temperature_2m_max)?);
            Some((date.parse().ok()?, day_weather(tmin, tmax, value(&daily.precipitation_sum)?)?))
        };
        Ok(daily.time.iter().enumerate().filter_map(day).collect())
    }
}
