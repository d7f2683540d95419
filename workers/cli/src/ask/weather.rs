//! The weather of a ride that is scored by its place and time.

use crate::session::Failed;
use anyhow::anyhow;
use common::message::{Climatology, Forecast, PlaceWeather, WeatherPlace, WeatherRequest};
use common::ride::Observation;
use runtime::client::Client;
use std::time::Duration;

/// Asks the fleet of `client` for the weather of a place and time. Returns [`PlaceWeather::Failed`] if nobody has it.
///
/// # Errors
/// Fails if a later request may find it.
pub(super) async fn look_up(client: &Client, place: WeatherPlace, deadline: Duration) -> Result<PlaceWeather, Failed> {
    let request_id = format!("{:032x}", rand::random::<u128>());
    let request = WeatherRequest { request_id, places: vec![place], observed_only: false };
    let mut response = client.weather(&request, deadline).await?;
    match (response.error, response.weather.pop()) {
        (Some(error), _) => Err(Failed::Broken(anyhow!(error.message))),
        (None, Some(PlaceWeather::Failed { error })) if error.code.may_pass() => {
            Err(Failed::Broken(anyhow!(error.message)))
        }
        (None, Some(weather)) => Ok(weather),
        (None, None) => Err(Failed::Broken(anyhow!("the answer contains neither weather nor an error"))),
    }
}

/// Describes the weather and its source in words; empty for a place whose lookup failed.
pub(crate) fn in_words(weather: &PlaceWeather) -> String {
    let of = match weather {
        PlaceWeather::Observed(Observation { groundstation, station_km, .. }) => {
            format!("observed at station {groundstation}, {station_km:.1} km away")
        }
        PlaceWeather::Forecast(Forecast { source, cell, issued, .. }) => {
            format!(
                "forecast by {source} for grid cell {cell}, issued {} UTC",
                issued.datetime().strftime("%Y-%m-%d %H:%M")
            )
        }
        PlaceWeather::Climatology(Climatology { groundstation, station_km, years, .. }) => {
            format!(
                "usual for the season at station {groundstation}, {station_km:.1} km away (climatology of {years} years)"
            )
        }
        PlaceWeather::Failed { .. } => return String::new(),
    };
    let [tmin, tmax, prcp] = weather.elements().unwrap_or_default().map(|tenths| f64::from(tenths) / 10.0);
    format!("{of}: {tmin} to {tmax} °C, {prcp} mm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weather_is_described_by_its_kind() {
        let (tmin, tmax, prcp) = (-22, 89, 31);
        let (groundstation, station_km) = ("USW00094728".into(), 4.236);
        let observed = PlaceWeather::Observed(Observation { groundstation, station_km, tmin, tmax, prcp });
        assert_eq!(in_words(&observed), "observed at station USW00094728, 4.2 km away: -2.2 to 8.9 °C, 3.1 mm");
        let (source, cell, issued) = ("nws".into(), "OKX/33,35".into(), "2026-11-30T17:24:41Z".parse().unwrap());
        let forecast = PlaceWeather::Forecast(Forecast { source, cell, cell_km: 1.2, issued, tmin, tmax, prcp });
        let expected = "forecast by nws for grid cell OKX/33,35, issued 2026-11-30 17:24 UTC: -2.2 to 8.9 °C, 3.1 mm";
        assert_eq!(in_words(&forecast), expected);
        let groundstation = "USW00094728".into();
        let climatology = Climatology { groundstation, station_km, years: 10, tmin, tmax, prcp };
        let text = in_words(&PlaceWeather::Climatology(climatology));
        assert!(text.contains("climatology of 10 years"), "{text}");
    }
}
