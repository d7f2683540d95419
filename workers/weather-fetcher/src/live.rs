//! Weather that no station has published: forecasts of today and the coming days, and climatology.
//!
//! ```text
//!  place and date ─▶ nws ─▶ open_meteo ─▶ climatology    in the configured order; each gets its share of the time left
//!                     │          │             │
//!                  hourly     hourly        almanac      one request per grid cell and hour; station-years are cached
//! ```
//!
//! Only lookups use this weather. A dataset has observations alone: [`crate::almanac`], which joins rides, does not use this module, and
//! nothing here returns a [`common::ride::Weather`].

mod cell;
pub mod climatology;
mod hourly;
mod interval;
mod nws;
mod open_meteo;
pub mod provider;

use self::{
    climatology::Mean,
    nws::Nws,
    open_meteo::OpenMeteo,
    provider::{NoEstimate, Provider, Providers},
};
use crate::{
    almanac::Almanac,
    dates::{date_of, utc_date},
    formats::station_year::DayWeather,
    sources::{http::Http, service::Service},
};
use common::message::{Climatology, PlaceWeather, WeatherPlace};
use futures::StreamExt;
use jiff::Timestamp;
use runtime::host;
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

/// Maximum number of stations whose history is read for one place.
const STATIONS_MAX: usize = 8;
/// Maximum number of places for which one request asks at a time.
const PLACES_MAX: usize = 8;
/// Maximum number of places for which one provider is asked at a time, including those whose request has expired.
const ASKED_MAX: usize = 64;

/// The providers, in order of preference.
#[derive(Debug)]
pub struct LiveWeather {
    sources: Vec<Asked>,
}

/// A provider with its own limit, so that requests to a silent service do not keep the next provider from answering.
#[derive(Debug)]
struct Asked {
    source: Arc<LiveSource>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
enum LiveSource {
    Nws(Nws),
    OpenMeteo(OpenMeteo),
    Climatology(Arc<Almanac>),
}

/// Why there is no weather: the answer of each provider, in the order in which they were asked.
pub type Refusals = Vec<(Provider, NoEstimate)>;

impl LiveWeather {
    /// Sends no request yet. Each service is asked at most `requests_per_second` times a second.
    pub fn new(
        providers: &Providers,
        requests_per_second: NonZeroU32,
        http: &Arc<dyn Http>,
        almanac: &Arc<Almanac>,
    ) -> Self {
        let asked = |&provider: &Provider| {
            let forecasts = LiveSource::forecasts(provider, providers, requests_per_second, http);
            let source = Arc::new(forecasts.unwrap_or_else(|| LiveSource::Climatology(Arc::clone(almanac))));
            Asked { source, permits: Arc::new(Semaphore::new(ASKED_MAX)) }
        };
        Self { sources: providers.order.iter().map(asked).collect() }
    }

    /// Returns whether there is no provider.
    pub fn is_off(&self) -> bool {
        self.sources.is_empty()
    }

    /// Asks the providers for each place, in order of preference, until `deadline`. Each provider gets an equal share of the time
    /// that is left, so that a silent one does not keep the next from answering. A request continues after its share is over.
    pub async fn estimate(&self, places: &[WeatherPlace], deadline: Instant) -> Vec<Result<PlaceWeather, Refusals>> {
        let mut estimates: Vec<Result<PlaceWeather, Refusals>> = vec![Err(Vec::new()); places.len()];
        for (index, asked) in self.sources.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(self.sources.len() - index).unwrap_or(u32::MAX);
            let end = Instant::now() + share;
            let pending: Vec<usize> = (0..places.len()).filter(|&at| estimates[at].is_err()).collect();
            let answers = pending.into_iter().map(|at| async move {
                // A timeout polls its future once even if its time is over, which would send a useless request.
                let is_over = Instant::now() >= end;
                let answer = if is_over { None } else { timeout_at(end, asked.weather(places[at])).await.ok() };
                (at, answer.unwrap_or_else(|| Err(no_answer(share))))
            });
            let mut answers = futures::stream::iter(answers).buffer_unordered(PLACES_MAX);
            while let Some((at, answer)) = answers.next().await {
                match (answer, &mut estimates[at]) {
                    (Ok(weather), estimate) => *estimate = Ok(weather),
                    (Err(why), Err(refusals)) => {
                        let provider = asked.source.provider();
                        tracing::debug!(%provider, %why, "no estimate of the weather");
                        refusals.push((provider, why));
                    }
                    (Err(_), Ok(_)) => {}
                }
            }
        }
        estimates
    }
}

impl Asked {
    /// Asks the provider, in a task that outlives its request.
    async fn weather(&self, place: WeatherPlace) -> Result<PlaceWeather, NoEstimate> {
        let stopped = |_| NoEstimate::Unavailable("the process is shutting down".to_owned());
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(stopped)?;
        let source = Arc::clone(&self.source);
        let task = tokio::spawn(async move {
            let _permit = permit;
            source.weather(&place, host::now()).await
        });
        task.await.unwrap_or_else(|why| Err(NoEstimate::Unavailable(why.to_string())))
    }
}

impl LiveSource {
    /// Returns a client of a forecast service; `None` for climatology.
    fn forecasts(
        provider: Provider,
        Providers { nws_url, open_meteo_url, .. }: &Providers,
        requests_per_second: NonZeroU32,
        http: &Arc<dyn Http>,
    ) -> Option<Self> {
        let service = |name| Service::new(name, Arc::clone(http), requests_per_second);
        match provider {
            Provider::Nws => Some(Self::Nws(Nws::new(service(nws::NAME), nws_url))),
            Provider::OpenMeteo => Some(Self::OpenMeteo(OpenMeteo::new(service(open_meteo::NAME), open_meteo_url))),
            Provider::Climatology => None,
        }
    }

    fn provider(&self) -> Provider {
        match self {
            Self::Nws(_) => Provider::Nws,
            Self::OpenMeteo(_) => Provider::OpenMeteo,
            Self::Climatology(_) => Provider::Climatology,
        }
    }

    async fn weather(&self, place: &WeatherPlace, now: Timestamp) -> Result<PlaceWeather, NoEstimate> {
        match self {
            Self::Nws(nws) => nws.forecast(place, now).await.map(PlaceWeather::Forecast),
            Self::OpenMeteo(open_meteo) => open_meteo.forecast(place, now).await.map(PlaceWeather::Forecast),
            Self::Climatology(almanac) => history(almanac, place, now).await.map(PlaceWeather::Climatology),
        }
    }
}

/// Asks each forecast service once for the weather of today in New York, for `patience` at most.
pub(crate) async fn sample(
    providers: &Providers,
    requests_per_second: NonZeroU32,
    http: &Arc<dyn Http>,
    patience: Duration,
) -> Vec<(Provider, Result<PlaceWeather, NoEstimate>)> {
    let statustime = utc_date(host::now()).at(12, 0, 0, 0).into();
    let place = WeatherPlace { latitude: 40.7128, longitude: -74.006, statustime };
    let mut answers = Vec::new();
    for &provider in &providers.order {
        let Some(source) = LiveSource::forecasts(provider, providers, requests_per_second, http) else { continue };
        let answer = tokio::time::timeout(patience, source.weather(&place, host::now())).await;
        let silent = || NoEstimate::Unavailable(format!("no answer within {} s", patience.as_secs()));
        answers.push((provider, answer.unwrap_or_else(|_| Err(silent()))));
    }
    answers
}

/// Returns the climatology of the nearest station with a history.
async fn history(almanac: &Almanac, place: &WeatherPlace, now: Timestamp) -> Result<Climatology, NoEstimate> {
    let (date, today) = (date_of(place), utc_date(now));
    let years = climatology::years_needed(date, today);
    let found = almanac.nearest_by(place, &years, STATIONS_MAX, |station_years| {
        climatology::mean(date, today, |day| station_years.get(&day.year())?.day(day.month(), day.day()))
    });
    let found = found.await.map_err(|failure| NoEstimate::Unavailable(failure.to_string()))?;
    let (groundstation, station_km, Mean { years, weather }) = found.ok_or_else(|| {
        NoEstimate::NotCovered(format!(
            "none of the {STATIONS_MAX} nearest stations within {} km has {} years around that day",
            almanac.max_station_km(),
            climatology::YEARS_MIN
        ))
    })?;
    let DayWeather { tmin, tmax, prcp } = weather;
    Ok(Climatology { groundstation, station_km, years, tmin: tmin.into(), tmax: tmax.into(), prcp: prcp.into() })
}

fn no_answer(share: Duration) -> NoEstimate {
    NoEstimate::Unavailable(format!("no answer within {} ms, its share of the request's expiration", share.as_millis()))
}
