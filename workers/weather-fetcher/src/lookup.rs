//! The worker that answers weather requests, by the same join as for rides, and with forecasts and climatology where it finds no
//! observation. It also adds the weather to score requests with places, which then go on to a scorer.
//!
//! Every request gets an answer within its `expiration`, at least a typed error. An outage is reported and not waited out. A
//! lookup that takes longer continues without its request, so that a repeated request finds more station-years cached.

use crate::{
    almanac::{Almanac, READ_DEADLINE},
    cache::WEATHER_UNUSABLE,
    dates::{date_of, is_recent, utc_date},
    live::{LiveWeather, Refusals, provider::NoEstimate},
};
use bytes::Bytes;
use common::{
    envelope::{Envelope, Properties},
    message::{
        Input, Kind, Message, PlaceWeather, ScoreError, ScoreErrorCode, ScoreRequest, ScoreResponse, Undecodable,
        WITH_WEATHER, WeatherError, WeatherErrorCode, WeatherPlace, WeatherRequest, WeatherResponse,
    },
    outcome::{Failure, Outgoing, Outputs},
    ride::{Weather, WeatherMissing},
    topology::{self, queue},
};
use runtime::{Worker, broker::MESSAGE_TOO_LARGE, host, metrics::metrics, trace};
use std::{collections::BTreeMap, fmt::Write, slice, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};

/// Maximum number of lookups that read at a time, including those whose request has expired.
const LOOKUPS_MAX: usize = 64;
/// Time reserved for the answer to travel; at most a tenth of the request's `expiration`.
const ANSWER_TRAVEL_TIME: Duration = Duration::from_millis(500);
/// Maximum time to answer, milliseconds: a request expires after it.
const REQUEST_TTL_MS: u64 = topology::REQUEST_TTL_MS.unsigned_abs();

/// A message to the lookup.
#[derive(Debug, Clone, PartialEq)]
pub enum LookupIn {
    /// A request for weather.
    Weather(WeatherRequest),
    /// A request for scores that needs weather first.
    Score(ScoreRequest),
}

impl Input for LookupIn {
    const KINDS: &'static [Kind] = &[WeatherRequest::KIND, ScoreRequest::KIND];

    fn decode(kind: Kind, body: &Bytes) -> Result<Self, Undecodable> {
        match kind == ScoreRequest::KIND {
            true => common::message::decode(body).map(Self::Score),
            false => common::message::decode(body).map(Self::Weather),
        }
    }

    fn batch_id(&self) -> Option<&str> {
        None
    }
}

/// Turns a weather request into a weather response, and adds the weather to a score request. [`crate::WeatherFetcher::lookup`] creates it.
#[derive(Debug)]
pub struct WeatherLookup {
    almanac: Arc<Almanac>,
    live: Arc<LiveWeather>,
    lookups: Arc<Semaphore>,
}

impl WeatherLookup {
    pub(crate) fn new(almanac: Arc<Almanac>, live: Arc<LiveWeather>) -> Self {
        Self { almanac, live, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    async fn answer(&self, request: WeatherRequest, expiration_ms: Option<u64>) -> WeatherResponse {
        let WeatherRequest { request_id, places, observed_only } = request;
        let expiration = Duration::from_millis(expiration_ms.unwrap_or(REQUEST_TTL_MS).min(REQUEST_TTL_MS));
        let weather = self.look_up(&request_id, &places, observed_only, expiration).await;
        match error_of_all(&weather) {
            Some(error) => WeatherResponse::failed(request_id, error.clone()),
            None => WeatherResponse { request_id, weather, error: None },
        }
    }

    /// Returns the score request with the weather of its places, on its way to a scorer.
    async fn with_weather(&self, mut request: ScoreRequest, properties: &Properties) -> Result<Outgoing, Failure> {
        let began = Instant::now();
        let (indexes, places): (Vec<usize>, Vec<WeatherPlace>) = request.places().into_iter().unzip();
        // The way through the scorer takes time as well.
        let expiration_ms = properties.expiration_ms.unwrap_or(REQUEST_TTL_MS).min(REQUEST_TTL_MS);
        let expiration = time_to_answer(Duration::from_millis(expiration_ms));
        let found = self.look_up(&request.request_id, &places, false, expiration).await;
        for (index, found) in indexes.into_iter().zip(found) {
            request.rides[index].add_weather(found, request.units);
        }
        // The broker counts the time from each publication.
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let left_ms = properties.expiration_ms.map(|given| given.saturating_sub(elapsed_ms).max(1));
        Outgoing::forward(&request, properties, &WITH_WEATHER, left_ms)
    }

    async fn look_up(
        &self,
        request_id: &str,
        places: &[WeatherPlace],
        observed_only: bool,
        expiration: Duration,
    ) -> Vec<PlaceWeather> {
        let weather = match observed_only || self.live.is_off() {
            true => self.observed(places, &(0..places.len()).collect::<Vec<_>>(), expiration).await,
            false => self.of_any_kind(places, expiration).await,
        };
        let mut kinds: BTreeMap<&'static str, u32> = BTreeMap::new();
        for place in &weather {
            let kind = place.kind().map_or("none", Into::into);
            metrics().weather_answer(kind);
            *kinds.entry(kind).or_default() += 1;
        }
        tracing::debug!(request_id, ?kinds, "weather looked up");
        trace::attribute("wildrydes.weather.kinds", kinds.into_keys().collect::<Vec<_>>().join(","));
        weather
    }

    /// Returns the observations of the places; where there is none, what the live providers have for the place and date. If the
    /// observations of recent days are not read within half of the time, the providers answer in their place.
    async fn of_any_kind(&self, places: &[WeatherPlace], expiration: Duration) -> Vec<PlaceWeather> {
        let deadline = Instant::now() + time_to_answer(expiration);
        let today = utc_date(host::now());
        let is_recent = |place: &WeatherPlace| is_recent(date_of(place), today);
        // A folder may hold any date. A service has no observation of a day that is not over.
        let may_be_published = |place: &WeatherPlace| self.almanac.reads_folder() || date_of(place) < today;
        let share = if places.iter().any(is_recent) { expiration / 2 } else { expiration };
        let not_yet = |(index, place)| PlaceWeather::Failed { error: unpublished(index, place) };
        let mut weather: Vec<PlaceWeather> = places.iter().enumerate().map(not_yet).collect();
        let published: Vec<usize> = indexes(places, |_, place| may_be_published(place));
        for (&index, found) in published.iter().zip(self.observed(places, &published, share).await) {
            weather[index] = found;
        }
        let pending = indexes(places, |index, place| match &weather[index] {
            PlaceWeather::Failed { error } => is_recent(place) || !error.code.may_pass(),
            _ => false,
        });
        let asked: Vec<WeatherPlace> = pending.iter().map(|&index| places[index]).collect();
        for (&index, estimate) in pending.iter().zip(self.live.estimate(&asked, deadline).await) {
            match (&mut weather[index], estimate) {
                (found, Ok(estimate)) => *found = estimate,
                (PlaceWeather::Failed { error }, Err(refusals)) => add_refusals(error, &refusals),
                _ => {}
            }
        }
        weather
    }

    /// Returns the observations of the places at `asked`, in that order, or why they have none.
    async fn observed(&self, places: &[WeatherPlace], asked: &[usize], share: Duration) -> Vec<PlaceWeather> {
        let of: Vec<WeatherPlace> = asked.iter().map(|&index| places[index]).collect();
        if of.is_empty() {
            return Vec::new();
        }
        let answered = |index: usize, place: &WeatherPlace, weather: Weather| match weather {
            Weather::Observed(observation) => PlaceWeather::Observed(observation),
            Weather::Missing(why) => PlaceWeather::Failed { error: self.missing(index, place, why) },
        };
        let error = match tokio::time::timeout(time_to_answer(share), self.weather(&of)).await {
            Ok(Ok(weather)) => {
                let answers = asked.iter().zip(&of).zip(weather);
                return answers.map(|((&index, place), weather)| answered(index, place, weather)).collect();
            }
            Ok(Err(failure)) => failed(&failure),
            Err(_) => WeatherError {
                code: WeatherErrorCode::DeadlineExceeded,
                message: format!(
                    "the weather was not read within the {} ms of the request's expiration; reading continues, so ask again",
                    share.as_millis()
                ),
                field: None,
            },
        };
        // Places whose weather is in memory do not wait for the others.
        let answers = asked.iter().zip(&of).map(|(&index, place)| {
            let cached = self.almanac.cached_weather(slice::from_ref(place)).and_then(|mut weather| weather.pop());
            cached.map_or_else(
                || PlaceWeather::Failed { error: error.clone() },
                |weather| answered(index, place, weather),
            )
        });
        answers.collect()
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
                    let yet =
                        if why == WeatherMissing::NotYetPublished { " yet: it is published days later" } else { "" };
                    format!("no station within {km} km has tmin, tmax and prcp of {} (UTC){yet}", date_of(place))
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
    type In = LookupIn;

    async fn handle(&self, envelope: Envelope<LookupIn>) -> Result<Outputs, Failure> {
        let Envelope { payload, properties } = envelope;
        let outgoing = match payload {
            LookupIn::Weather(request) => {
                Outgoing::reply(&self.answer(request, properties.expiration_ms).await, &properties)?
            }
            LookupIn::Score(request) => self.with_weather(request, &properties).await?,
        };
        Ok(Outputs::all(vec![outgoing]))
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

/// Returns the time until an answer must be sent to arrive within `expiration`.
fn time_to_answer(expiration: Duration) -> Duration {
    expiration - ANSWER_TRAVEL_TIME.min(expiration / 10)
}

/// Returns the positions of the places that `keep` selects.
fn indexes(places: &[WeatherPlace], keep: impl Fn(usize, &WeatherPlace) -> bool) -> Vec<usize> {
    places.iter().enumerate().filter(|(index, place)| keep(*index, place)).map(|(index, _)| index).collect()
}

fn unpublished(index: usize, place: &WeatherPlace) -> WeatherError {
    WeatherError {
        code: WeatherErrorCode::NoObservationOnDate,
        message: format!("no station can have published the weather of {} (UTC) yet", date_of(place)),
        field: Some(format!("places[{index}].statustime")),
    }
}

/// Adds why no provider has the weather either. If one could not be asked, a later retry may help.
fn add_refusals(error: &mut WeatherError, refusals: &Refusals) {
    for (provider, why) in refusals {
        // Writing to a text cannot fail.
        let _ = write!(error.message, "; {provider}: {why}");
    }
    if refusals.iter().any(|(_, why)| matches!(why, NoEstimate::Unavailable(_))) {
        (error.code, error.field) = (WeatherErrorCode::Unavailable, None);
    }
}

/// Returns the error of the request as a whole: that of its first place, if no place has weather, for reasons that may pass.
fn error_of_all(weather: &[PlaceWeather]) -> Option<&WeatherError> {
    let passes = |weather: &PlaceWeather| matches!(weather, PlaceWeather::Failed { error } if error.code.may_pass());
    match weather.first()? {
        PlaceWeather::Failed { error } if weather.iter().all(passes) => Some(error),
        _ => None,
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

/// Answers in the form that the client expects: that of its request.
fn error_reply(request: &Properties, error: WeatherError) -> Option<Outgoing> {
    let is_score = request.kind.as_deref().is_some_and(|kind| kind.starts_with(ScoreRequest::KIND.name));
    if is_score {
        let code = match error.code {
            WeatherErrorCode::UnknownVersion => ScoreErrorCode::UnknownVersion,
            WeatherErrorCode::MalformedRequest => ScoreErrorCode::MalformedRequest,
            _ => ScoreErrorCode::Internal,
        };
        let error = ScoreError { code, message: error.message, field: error.field };
        return Outgoing::refusal::<ScoreRequest, _>(request, |id| ScoreResponse::failed(id, error));
    }
    Outgoing::refusal::<WeatherRequest, _>(request, |id| WeatherResponse::failed(id, error))
}

#[cfg(test)]
pub(crate) mod tests;
