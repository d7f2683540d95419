//! The worker that answers weather requests, by the same join as for rides.
//!
//! Every request gets an answer within its `expiration`, at least a typed error. An outage is reported and not waited out. A
//! lookup that takes longer continues without its request, so that a repeated request finds more station-years cached.

use crate::{
    almanac::{Almanac, READ_DEADLINE},
    cache::WEATHER_UNUSABLE,
};
use common::{
    envelope::{Envelope, Properties},
    message::{
        PlaceWeather, Undecodable, WeatherError, WeatherErrorCode, WeatherPlace, WeatherRequest, WeatherResponse,
    },
    outcome::{Failure, Outgoing, Outputs},
    ride::{Weather, WeatherMissing},
    topology::{self, queue},
};
use runtime::{Worker, broker::MESSAGE_TOO_LARGE};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Maximum number of lookups that read at a time, including those whose request has expired.
const LOOKUPS_MAX: usize = 64;
/// Time reserved for the answer to travel; at most a tenth of the request's `expiration`.
const ANSWER_TRAVEL_TIME: Duration = Duration::from_millis(500);

/// Turns a weather request into a weather response. [`crate::WeatherFetcher::lookup`] creates it.
#[derive(Debug)]
pub struct WeatherLookup {
    almanac: Arc<Almanac>,
    lookups: Arc<Semaphore>,
}

impl WeatherLookup {
    pub(crate) fn new(almanac: Arc<Almanac>) -> Self {
        Self { almanac, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    async fn answer(&self, request: WeatherRequest, expiration_ms: Option<u64>) -> WeatherResponse {
        let WeatherRequest { request_id, places } = request;
        let ttl_ms = topology::REQUEST_TTL_MS.unsigned_abs();
        let expiration = Duration::from_millis(expiration_ms.unwrap_or(ttl_ms).min(ttl_ms));
        let deadline = expiration - ANSWER_TRAVEL_TIME.min(expiration / 10);
        let error = match tokio::time::timeout(deadline, self.weather(&places)).await {
            Ok(Ok(weather)) => {
                let answers = places.iter().zip(weather).enumerate().map(|(index, (place, weather))| match weather {
                    Weather::Observed(observation) => PlaceWeather::Observed(observation),
                    Weather::Missing(why) => PlaceWeather::Failed { error: self.missing(index, place, why) },
                });
                return WeatherResponse { request_id, weather: answers.collect(), error: None };
            }
            Ok(Err(failure)) => failed(&failure),
            Err(_) => WeatherError {
                code: WeatherErrorCode::DeadlineExceeded,
                message: format!(
                    "the weather was not read within the {} ms of the request's expiration; reading continues, so ask again",
                    expiration.as_millis()
                ),
                field: None,
            },
        };
        WeatherResponse::failed(request_id, error)
    }

    /// Answers at once from memory if possible. Anything else is read in a separate task, which outlives the request.
    async fn weather(&self, places: &[WeatherPlace]) -> Result<Vec<Weather>, Failure> {
        if let Some(weather) = self.almanac.cached_weather(places) {
            return Ok(weather);
        }
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(Failure::transient)?;
        let (almanac, places) = (Arc::clone(&self.almanac), places.to_vec());
        let lookup = tokio::spawn(async move {
            let _permit = permit;
            tokio::time::timeout(READ_DEADLINE, almanac.weather(&places, None)).await
        });
        let late = |_| Failure::outage("weather service", "it answers too slowly");
        lookup.await.map_err(Failure::transient)?.map_err(late)?
    }

    fn missing(&self, index: usize, place: &WeatherPlace, why: WeatherMissing) -> WeatherError {
        let km = self.almanac.max_station_km();
        let (message, field) = match why {
            WeatherMissing::NoStationInReach => (
                format!(
                    "no station that measures temperature and precipitation lies within {km} km, the maximum distance \
                         (weather.max_station_km)"
                ),
                format!("places[{index}]"),
            ),
            WeatherMissing::NoObservationOnDate | WeatherMissing::NotYetPublished => (
                self.almanac.no_file(place).map(|no_file| no_file.why).unwrap_or_else(|| {
                    let date = place.statustime.datetime().date();
                    let yet =
                        if why == WeatherMissing::NotYetPublished { " yet: it is published days later" } else { "" };
                    format!("no station within {km} km has tmin, tmax and prcp of {date} (UTC){yet}")
                }),
                format!("places[{index}].statustime"),
            ),
        };
        WeatherError { code: why.into(), message, field: Some(field) }
    }
}

impl Worker for WeatherLookup {
    const NAME: &'static str = queue::WEATHER_LOOKUP;
    /// Requests mostly wait for the service.
    const CONCURRENCY: u16 = 16;
    type In = WeatherRequest;

    async fn handle(&self, envelope: Envelope<WeatherRequest>) -> Result<Outputs, Failure> {
        let Envelope { payload, properties } = envelope;
        let answer = self.answer(payload, properties.expiration_ms).await;
        Ok(Outputs::all(vec![Outgoing::reply(&answer, &properties)?]))
    }

    fn answer_undecodable(&self, properties: &Properties, why: &Undecodable) -> Option<Outgoing> {
        let (code, field) = match why {
            Undecodable::UnknownVersion { .. } => (WeatherErrorCode::UnknownVersion, None),
            Undecodable::UnknownKind { .. } => (WeatherErrorCode::MalformedRequest, None),
            Undecodable::Malformed { violation, .. } => {
                (WeatherErrorCode::MalformedRequest, Some(violation.path.clone()))
            }
        };
        error_reply(properties, WeatherError { code, message: why.to_string(), field })
    }

    fn answer_failure(&self, properties: &Properties, failure: &Failure) -> Option<Outgoing> {
        error_reply(properties, failed(failure))
    }
}

fn failed(failure: &Failure) -> WeatherError {
    let (code, message) = match failure {
        Failure::Outage { retry_after: Some(after), .. } => {
            (WeatherErrorCode::Unavailable, format!("{failure}; ask again in {} s", after.as_secs_f64().ceil()))
        }
        Failure::Outage { .. } => (WeatherErrorCode::Unavailable, format!("{failure}; ask again later")),
        Failure::Permanent { reason: WEATHER_UNUSABLE, why } => (WeatherErrorCode::Unavailable, why.clone()),
        // The request or its answer is too large.
        Failure::Permanent { reason: MESSAGE_TOO_LARGE, why } => (WeatherErrorCode::MalformedRequest, why.clone()),
        Failure::Permanent { .. } | Failure::Transient { .. } => {
            (WeatherErrorCode::Internal, format!("the weather lookup failed, ask again: {failure}"))
        }
    };
    WeatherError { code, message, field: None }
}

fn error_reply(request: &Properties, error: WeatherError) -> Option<Outgoing> {
    let named = request.correlation_id.as_deref().or(request.message_id.as_deref()).unwrap_or_default();
    let request_id = named.strip_suffix("/weather-request").unwrap_or(named);
    Outgoing::reply(&WeatherResponse::failed(request_id, error), request).ok()
}

#[cfg(test)]
mod tests;
