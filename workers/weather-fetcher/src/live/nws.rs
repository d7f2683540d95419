//! Forecasts of the US National Weather Service (<https://www.weather.gov/documentation/services-web-api>): a place belongs to a
//! grid cell of an office, and the cell has values over intervals.

use crate::{
    dates::{date_of, utc_date},
    formats::{malformed::Malformed, station_year::DayWeather},
    live::{
        cell::{CellForecast, day_weather, rounded},
        hourly::Hourly,
        interval::{Valued, amount, extreme, of_largest_overlap},
        provider::NoEstimate,
    },
    sources::{service::Service, unavailable::Unavailable},
};
use common::message::{Forecast, WeatherPlace};
use compact_str::CompactString;
use jiff::{Span, Timestamp, ToSpan, civil::Date};
use reqwest::Url;
use serde::Deserialize;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

/// Name of the service.
pub const NAME: &str = "nws";
/// Parts of a degree to which a place is rounded: about a kilometre, less than half a grid cell.
const PLACE_PARTS: f64 = 100.0;
/// Number of days after today that a forecast may reach.
const DAYS: i64 = 7;
/// Where the path of a grid cell begins.
const GRIDPOINTS: &str = "/gridpoints/";

/// A client of the service.
#[derive(Debug)]
pub struct Nws {
    service: Service,
    base: String,
    /// The grid cell of each place; `None` outside the area of the service.
    cells: Hourly<Option<CompactString>>,
    forecasts: Hourly<Option<Arc<CellForecast>>>,
}

/// The answer about a place.
#[derive(Deserialize)]
struct Point {
    properties: PointProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PointProperties {
    /// URL of the grid cell; absent or null where the service has no forecasts, as at sea.
    forecast_grid_data: Option<String>,
}

/// The answer about a grid cell.
#[derive(Deserialize)]
struct Gridpoint {
    geometry: Option<Geometry>,
    properties: Layers,
}

/// The outline of the cell: rings of longitude and latitude, degrees.
#[derive(Deserialize)]
struct Geometry {
    coordinates: Vec<Vec<(f64, f64)>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layers {
    /// Time of issue, RFC 3339.
    update_time: String,
    #[serde(default)]
    max_temperature: Layer,
    #[serde(default)]
    min_temperature: Layer,
    /// The temperature hour by hour.
    #[serde(default)]
    temperature: Layer,
    #[serde(default)]
    quantitative_precipitation: Layer,
}

#[derive(Default, Deserialize)]
struct Layer {
    /// Unit, for example `wmoUnit:degC`.
    #[serde(default)]
    uom: String,
    #[serde(default)]
    values: Vec<LayerValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayerValue {
    valid_time: String,
    value: Option<f64>,
}

impl Nws {
    /// Returns a client of the service at `base`.
    pub fn new(service: Service, base: &str) -> Self {
        Self { service, base: base.to_owned(), cells: Hourly::default(), forecasts: Hourly::default() }
    }

    /// Returns the forecast for the date of a place.
    ///
    /// # Errors
    /// Fails if the service has no forecast of that place and date, or cannot be reached.
    pub async fn forecast(&self, place: &WeatherPlace, now: Timestamp) -> Result<Forecast, NoEstimate> {
        let date = date_of(place);
        if !dates(now).contains(&date) {
            return Err(NoEstimate::out_of_range("today and the 7 days after it"));
        }
        let [latitude, longitude] = [place.latitude, place.longitude].map(|degrees| rounded(degrees, PLACE_PARTS));
        let position = format!("{latitude},{longitude}");
        let outside = || NoEstimate::NotCovered("it forecasts for land in the United States only".to_owned());
        let cell = self.cells.get(&position, now, self.cell(&position)).await?.ok_or_else(outside)?;
        let forecast = self.forecasts.get(&cell, now, self.gridpoint(&cell, now)).await?.ok_or_else(outside)?;
        let incomplete = || format!("grid cell {cell} lacks an element of {date} (UTC)");
        forecast.at(place).ok_or_else(|| NoEstimate::NotCovered(incomplete()))
    }

    /// Returns the grid cell of a place, such as `OKX/33,35`; `None` outside the area of the service.
    async fn cell(&self, position: &str) -> Result<Option<CompactString>, Unavailable> {
        let url = format!("{}/points/{position}", self.base);
        let Some(point) = self.service.read_json::<Point>(&url).await? else { return Ok(None) };
        let Some(grid_data) = point.properties.forecast_grid_data else { return Ok(None) };
        // Only the path counts: the cell is requested from the configured address, which may be a proxy.
        let parsed = Url::parse(&grid_data).ok();
        let cell = parsed.as_ref().and_then(|url| url.path().split_once(GRIDPOINTS)).map(|(_, cell)| cell.into());
        let why = || Malformed::new(0, "forecastGridData", format!("{grid_data:?}: expected the URL of a gridpoint"));
        cell.map(Some).ok_or_else(|| not_a_forecast(&url, why()))
    }

    async fn gridpoint(&self, cell: &str, now: Timestamp) -> Result<Option<Arc<CellForecast>>, Unavailable> {
        let url = format!("{}{GRIDPOINTS}{cell}", self.base);
        let Some(gridpoint) = self.service.read_json::<Gridpoint>(&url).await? else { return Ok(None) };
        let Gridpoint { geometry, properties } = gridpoint;
        let refused = |malformed| not_a_forecast(&url, malformed);
        let days = days(&properties, dates(now)).map_err(refused)?;
        let issued =
            properties.update_time.parse().map_err(|why: jiff::Error| refused(Malformed::new(0, "updateTime", why)))?;
        let middle = geometry.as_ref().and_then(middle);
        Ok(Some(Arc::new(CellForecast { source: NAME, cell: cell.into(), middle, issued, days })))
    }
}

fn not_a_forecast(url: &str, malformed: Malformed) -> Unavailable {
    Unavailable::NotWeather { location: url.to_owned(), name: "forecast", malformed }
}

/// Returns the dates that may have a forecast.
fn dates(now: Timestamp) -> RangeInclusive<Date> {
    let today = utc_date(now);
    today..=today.saturating_add(DAYS.days())
}

/// Returns the mean of the corners of a cell.
fn middle(geometry: &Geometry) -> Option<(f64, f64)> {
    let ring = geometry.coordinates.first()?;
    // The last corner repeats the first.
    let corners = ring.split_last().map(|(_, corners)| corners).filter(|corners| !corners.is_empty())?;
    let count = corners.len() as f64;
    let (longitude, latitude) = corners.iter().fold((0.0, 0.0), |sum, at| (sum.0 + at.0 / count, sum.1 + at.1 / count));
    (latitude.abs() <= 90.0 && longitude.abs() <= 180.0).then_some((latitude, longitude))
}

/// Returns the days that have all three elements.
///
/// Each extreme is the value of the interval that overlaps the UTC date most. The service drops an interval once it is over: in the
/// afternoon, the minimum of the morning is gone. Then the extreme comes from the hourly temperatures of the rest of the date. The
/// precipitation is the sum of the intervals, each in proportion to its overlap with the date.
fn days(layers: &Layers, dates: RangeInclusive<Date>) -> Result<BTreeMap<Date, DayWeather>, Malformed> {
    let maxima = layers.max_temperature.values("maxTemperature", "degC")?;
    let minima = layers.min_temperature.values("minTemperature", "degC")?;
    let hourly = layers.temperature.values("temperature", "degC")?;
    let amounts = layers.quantitative_precipitation.values("quantitativePrecipitation", "mm")?;
    let day = |date: Date| {
        let tmin = of_largest_overlap(&minima, date).or_else(|| extreme(&hourly, date, f64::min))?;
        let tmax = of_largest_overlap(&maxima, date).or_else(|| extreme(&hourly, date, f64::max))?;
        // An extreme of the rest of the date may lie beyond the other one, which is of the whole date.
        day_weather(tmin.min(tmax), tmax.max(tmin), amount(&amounts, date)?)
    };
    let all = dates.start().series(Span::new().days(1)).take_while(|date| date <= dates.end());
    Ok(all.filter_map(|date| Some((date, day(date)?))).collect())
}

impl Layer {
    /// Returns the known values. Checks the unit of a layer that has any.
    fn values(&self, name: &'static str, unit: &str) -> Result<Vec<Valued>, Malformed> {
        let known = self.values.iter().filter_map(|at| Some((&at.valid_time, at.value?)));
        let values = known.map(|(valid_time, value)| {
            let interval = valid_time.parse();
            let interval = interval.map_err(|why| Malformed::new(0, name, format!("{valid_time:?}: {why}")))?;
            Ok(Valued { interval, value })
        });
        let values = values.collect::<Result<Vec<Valued>, Malformed>>()?;
        // A namespace comes before the unit: `wmoUnit:` today, `unit:` before.
        if !values.is_empty() && self.uom.rsplit(':').next() != Some(unit) {
            return Err(Malformed::new(0, name, format!("unit {:?}: expected wmoUnit:{unit}", self.uom)));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use serde_json::{Value, json};

    const TODAY: Date = date(2026, 11, 30);

    fn layers(layers: Value) -> Result<BTreeMap<Date, DayWeather>, Malformed> {
        let mut all = json!({ "updateTime": "2026-11-30T10:00:00+00:00" });
        all.as_object_mut().unwrap().append(&mut layers.as_object().unwrap().clone());
        days(&serde_json::from_value(all).unwrap(), TODAY..=date(2026, 12, 2))
    }

    fn layer(uom: &str, values: &[(&str, Option<f64>)]) -> Value {
        let value = |(time, value): &(&str, Option<f64>)| json!({ "validTime": time, "value": value });
        json!({ "uom": uom, "values": values.iter().map(value).collect::<Vec<_>>() })
    }

    fn of(tmin: i16, tmax: i16, prcp: i16) -> DayWeather {
        DayWeather { tmin, tmax, prcp }
    }

    /// A forecast of the afternoon: the minimum of the morning and the first half of the precipitation are over.
    #[test]
    fn a_day_needs_all_three_elements_and_its_rest_is_enough() {
        let dry = layer("wmoUnit:mm", &[("2026-11-30T12:00:00+00:00/P1DT12H", Some(3.0))]);
        let hourly: Vec<(String, Option<f64>)> =
            (18..24).map(|hour| (format!("2026-11-30T{hour}:00:00+00:00/PT1H"), Some(f64::from(24 - hour)))).collect();
        let hourly: Vec<(&str, Option<f64>)> = hourly.iter().map(|(time, value)| (time.as_str(), *value)).collect();
        let maxima = layer(
            "wmoUnit:degC",
            &[
                ("2026-11-30T12:00:00+00:00/PT13H", Some(8.9)),
                ("2026-12-01T12:00:00+00:00/PT13H", Some(7.0)),
                ("2026-12-02T12:00:00+00:00/PT13H", None),
            ],
        );
        let minima = layer(
            "wmoUnit:degC",
            &[("2026-12-01T00:00:00+00:00/PT14H", Some(-1.0)), ("2026-12-02T00:00:00+00:00/PT14H", Some(-2.0))],
        );
        let found = layers(json!({
            "maxTemperature": maxima, "minTemperature": minima, "temperature": layer("unit:degC", &hourly),
            "quantitativePrecipitation": dry,
        }));
        assert_eq!(found, Ok([(TODAY, of(10, 89, 10)), (date(2026, 12, 1), of(-10, 70, 20))].into()));
        assert_eq!(layers(json!({ "maxTemperature": maxima, "minTemperature": minima })), Ok(BTreeMap::new()));
    }

    #[test]
    fn other_units_and_texts_are_refused() {
        for (uom, time, words) in [
            ("wmoUnit:degF", "2026-11-30T12:00:00+00:00/PT13H", "unit \"wmoUnit:degF\": expected wmoUnit:degC"),
            ("", "2026-11-30T12:00:00+00:00/PT13H", "expected wmoUnit:degC"),
            ("wmoUnit:degC", "noon", "\"noon\": expected an ISO 8601 interval"),
        ] {
            let why = layers(json!({ "maxTemperature": layer(uom, &[(time, Some(48.0))]) })).unwrap_err();
            assert!(why.to_string().contains(words) && why.column == "maxTemperature", "{why}");
        }
        assert_eq!(layers(json!({ "maxTemperature": layer("wmoUnit:degF", &[]) })), Ok(BTreeMap::new()), "no value");
    }

    #[test]
    fn the_middle_of_a_cell_is_the_mean_of_its_corners() {
        let of = |coordinates| middle(&Geometry { coordinates });
        let ring = vec![(-74.0, 40.0), (-73.0, 40.0), (-73.0, 41.0), (-74.0, 41.0), (-74.0, 40.0)];
        assert_eq!(of(vec![ring]), Some((40.5, -73.5)));
        assert_eq!(
            [of(vec![]), of(vec![vec![]]), of(vec![vec![(0.0, 0.0)]]), of(vec![vec![(0.0, 99.0); 5]])],
            [None; 4]
        );
    }
}
