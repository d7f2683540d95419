//! Reads NOAA's texts over HTTP or from a folder: politely, bounded in time and size, and never guessing.

use crate::{
    body::consume,
    ghcn::{self, ByStation, Inventory, InventoryList, Station, StationList},
    http::{Answer, Http, chain},
    left_out::LeftOut,
    lines::{Lines, Parsed, Text},
    source::{Place, Source},
    station_year::StationYear,
    unavailable::{Patience, Spelling, Unavailable},
};
use futures::StreamExt;
use governor::DefaultDirectRateLimiter;
use jiff::Timestamp;
use reqwest::StatusCode;
use runtime::host;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    num::NonZeroU32,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::io::StreamReader;

/// Tries of one request before the service counts as away.
const TRIES: u32 = 3;
/// Wait before the second try, doubled for each further one; jittered between half and all of it.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// A longer wish to wait is not sat out here: the message goes back to its queue meanwhile.
const SIT_OUT_MAX: Duration = Duration::from_secs(5);
/// No service is believed when it wants to be left alone for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How to behave towards the service.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Requests per second at most.
    pub requests_per_second: NonZeroU32,
    /// The longest silence, while connecting, before or within an answer.
    pub timeout: Duration,
    /// Where the service's operators may complain.
    pub contact: Option<String>,
    /// How long one place of the service may answer with nothing but what waiting does not turn into weather.
    pub unusable_patience: Duration,
}

/// What was read from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The place.
    pub place: Place,
    /// What was read, and what was left out.
    pub parsed: Parsed<T>,
}

/// Years of one station.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StationYears {
    /// `None` for what the source does not have, an empty one where it has the station but nothing of the year.
    pub years: BTreeMap<i16, Option<StationYear>>,
    /// The places that were read, each with what was left out.
    pub texts: Vec<(Place, LeftOut)>,
}

/// Asks one source.
#[derive(Debug)]
pub struct Client {
    source: Source,
    stations: Vec<Place>,
    inventory: Vec<Place>,
    http: Box<dyn Http>,
    limiter: DefaultDirectRateLimiter,
    paused_until: Mutex<Option<Instant>>,
    patience: Patience,
    spelling: Spelling,
    /// The last URL of the source that was answered with 200: requested again when another URL is forbidden.
    witness: Mutex<Option<String>>,
    warned_of_forbidden: AtomicBool,
}

impl Client {
    /// A client of `source`, asked over `http`; `stations` is where the station list is, when it is not where the source
    /// has it.
    pub fn new(source: Source, stations: Option<&Place>, manners: &Manners, http: Box<dyn Http>) -> Self {
        Self {
            stations: source.stations(stations),
            inventory: source.inventory(stations),
            source,
            http,
            limiter: DefaultDirectRateLimiter::direct(governor::Quota::per_second(manners.requests_per_second)),
            paused_until: Mutex::new(None),
            patience: Patience::new(manners.unusable_patience),
            spelling: Spelling::default(),
            witness: Mutex::default(),
            warned_of_forbidden: AtomicBool::new(false),
        }
    }

    /// The source it asks.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Where the station list may be.
    pub fn stations_places(&self) -> &[Place] {
        &self.stations
    }

    /// The station list.
    ///
    /// # Errors
    /// Fails if it cannot be read whole.
    pub async fn stations(&self) -> Result<Found<Vec<Station>>, Unavailable> {
        let places = self.stations.iter().map(Place::to_string).collect::<Vec<_>>().join(" or ");
        // Not the place itself: that it has no list is not one of its failures.
        let key = format!("no station list at {places}");
        let found = match self.first_of(&self.stations, || Lines::new(StationList::default())).await {
            Ok(found) => found,
            Err(failure) => {
                // The list is still missing if the service fails in a way that waiting cannot repair either.
                if !matches!(failure, Unavailable::Unusable { .. }) && !failure.is_lasting() {
                    self.patience.note(&key, false, Instant::now());
                }
                return Err(failure);
            }
        };
        let Some(found) = found else {
            let missing = Unavailable::NoStations { places: places.clone() + &other_compression(&self.stations) };
            if self.stations.iter().all(|place| matches!(place, Place::File(_))) {
                return Err(Unavailable::Unusable { why: missing.to_string() });
            }
            self.patience.note(&key, true, Instant::now());
            return Err(self.patience.judge(&key, missing, Instant::now()));
        };
        self.patience.note(&key, false, Instant::now());
        Ok(found)
    }

    /// The inventory, where there is one.
    ///
    /// # Errors
    /// Fails if it is there but cannot be read whole.
    pub async fn inventory(&self) -> Result<Option<Found<Inventory>>, Unavailable> {
        self.first_of(&self.inventory, || Lines::new(InventoryList::default())).await
    }

    /// These years of a station.
    ///
    /// # Errors
    /// Fails if any of them cannot be read whole; those read before are lost.
    pub async fn station_years(&self, station: &str, years: &BTreeSet<i16>) -> Result<StationYears, Unavailable> {
        let mut all = StationYears::default();
        if let Some(places) = self.source.by_station(station) {
            let rows = || Lines::new(ByStation::new(station, years.iter().copied()));
            let mut found = self.station_file(places, rows).await?;
            let of_year = |year| found.as_mut().map(|found| found.parsed.value.remove(&year).unwrap_or_default());
            all.years = years.iter().copied().zip(years.iter().copied().map(of_year)).collect();
            all.texts.extend(found.map(|found| (found.place, found.parsed.left_out)));
            return Ok(all);
        }
        for &year in years {
            let Some(place) = self.source.by_year(station, year) else { continue };
            let answer = self.read(&place, || ghcn::AccessAnswer::new(station, year)).await;
            let parsed = answer.map_err(|failure| self.judge(&place, failure))?;
            let (days, left_out) = parsed.map(|parsed| (parsed.value, parsed.left_out)).unzip();
            all.years.insert(year, days);
            all.texts.extend(left_out.map(|left_out| (place, left_out)));
        }
        Ok(all)
    }

    /// Reads the first file of a station that exists, by its names in order.
    async fn station_file<T: Text>(
        &self,
        places: [Place; 2],
        text: impl Fn() -> T,
    ) -> Result<Option<Found<T::Output>>, Unavailable> {
        let gzipped = places[1].clone();
        let places = if self.source.is_folder() { places.into() } else { self.spelling.places(places) };
        let found = self.first_of(&places, text).await?;
        self.spelling.note(found.as_ref().map(|found| found.place == gzipped));
        Ok(found)
    }

    /// Whether the service still answers 200 for another file: then 403 means that a file is missing. Asked each time,
    /// so that an address that becomes barred is never taken for a source without files.
    async fn forbids_what_is_missing(&self) -> bool {
        let witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(url) = witness else { return false };
        if self.check_pause().is_err() {
            return false;
        }
        self.limiter.until_ready().await;
        self.http.get(&url).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    }

    /// Reads the first place that exists. A forbidden place counts as missing if the service answers for other files.
    async fn first_of<T: Text>(
        &self,
        places: &[Place],
        text: impl Fn() -> T,
    ) -> Result<Option<Found<T::Output>>, Unavailable> {
        let mut forbidden = None;
        for place in places {
            match self.read(place, &text).await {
                Ok(Some(parsed)) => return Ok(Some(Found { place: place.clone(), parsed })),
                Ok(None) => {}
                Err(failure) if failure.is_forbidden() => forbidden = forbidden.or(Some((place, failure))),
                Err(failure) => return Err(self.judge(place, failure)),
            }
        }
        let Some((place, failure)) = forbidden else { return Ok(None) };
        if !self.forbids_what_is_missing().await {
            return Err(self.judge(place, failure));
        }
        if !self.warned_of_forbidden.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %place,
                "the weather service answers 403 for this file and 200 for others: such files count as missing (a bucket \
                 that may not be listed answers so)"
            );
        }
        Ok(None)
    }

    /// The failure to report of a place, after [`Self::read`]: permanent once the place has failed for too long in a way that
    /// waiting cannot repair.
    fn judge(&self, place: &Place, failure: Unavailable) -> Unavailable {
        self.patience.judge(&place.to_string(), failure, Instant::now())
    }

    /// Whether waiting cannot repair a failure of a place. Access to a station file may be refused for a while, to a source
    /// that had answered before.
    fn is_lasting(&self, place: &Place, failure: &Unavailable) -> bool {
        let is_list = || self.stations.contains(place) || self.inventory.contains(place);
        let never_answered = || self.witness.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        failure.is_lasting() || (failure.is_forbidden() && (is_list() || never_answered()))
    }

    /// Reads a place; `None` when it is not there.
    async fn read<T: Text>(
        &self,
        place: &Place,
        text: impl Fn() -> T,
    ) -> Result<Option<Parsed<T::Output>>, Unavailable> {
        let url = match place {
            Place::File(path) => {
                let read = match open(path).await {
                    Ok(file) => consume(place, file, text()).await.map(Some),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        let why = format!("{place}: {error}. Let this user read the file, then replay the dead letter");
                        return Err(Unavailable::Unusable { why: format!("{why} or run again") });
                    }
                    Err(error) => Err(Unavailable::Broken { place: place.to_string(), why: chain(&error) }),
                };
                return read.map_err(Unavailable::of_a_file);
            }
            Place::Url(url) => url,
        };
        let mut tried = 1;
        loop {
            self.check_pause()?;
            self.limiter.until_ready().await;
            let answer = self.request(place, url, text()).await;
            let is_lasting = answer.as_ref().is_err_and(|failure| self.is_lasting(place, failure));
            self.patience.note(url, is_lasting, Instant::now());
            let failure = match answer {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            let wish = failure.retry_after().unwrap_or_default();
            if wish > SIT_OUT_MAX {
                self.pause(wish);
                return Err(failure);
            }
            if tried == TRIES || !failure.may_pass_soon() {
                return Err(failure);
            }
            tracing::warn!(%place, tried, why = %failure, "the weather service failed; trying again");
            let backoff = RETRY_BASE * 2u32.saturating_pow(tried - 1);
            tokio::time::sleep(wish.max(backoff.mul_f64(host::random_range(0.5..1.0)))).await;
            tried += 1;
        }
    }

    async fn request<T: Text>(
        &self,
        place: &Place,
        url: &str,
        text: T,
    ) -> Result<Option<Parsed<T::Output>>, Unavailable> {
        let broken = |why| Unavailable::Broken { place: place.to_string(), why };
        let Answer { status, retry_after: wish, mut body } = self.http.get(url).await.map_err(broken)?;
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        if status.is_redirection() {
            let reason = body.next().await.and_then(Result::err);
            let why = reason.map_or_else(|| "the redirect is not followed".to_owned(), |reason| reason.to_string());
            return Err(Unavailable::Redirected { place: place.to_string(), status, why });
        }
        if status != StatusCode::OK {
            let retry_after = wish.and_then(|value| retry_after(&value, host::now()));
            return Err(Unavailable::Status { place: place.to_string(), status, retry_after });
        }
        if self.source.holds(place) {
            *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.to_owned());
        }
        let body = StreamReader::new(body);
        consume(place, body, text).await.map(Some)
    }

    fn check_pause(&self) -> Result<(), Unavailable> {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err(Unavailable::Paused { retry_after: left }),
            _ => Ok(()),
        }
    }

    fn pause(&self, wish: Duration) {
        let until = Instant::now() + wish.min(RETRY_AFTER_MAX);
        let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }
}

/// Opens a file. A directory, a pipe or a device is refused: reading it fails, or does not end.
async fn open(path: &Path) -> io::Result<tokio::fs::File> {
    let kind = tokio::fs::metadata(path).await?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory, not a file"));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is a pipe or a device, not a file"));
    }
    tokio::fs::File::open(path).await
}

/// Names the first of these files that is there in a compression that is not read, and what to do; empty where there is none.
pub(crate) fn other_compression(places: &[Place]) -> String {
    let plain = places.iter().find_map(|place| match place {
        Place::File(path) if path.extension().is_none_or(|extension| extension != "gz") => Some(path),
        _ => None,
    });
    let Some(plain) = plain else { return String::new() };
    let others =
        ["zst", "bz2", "xz", "zip", "7z", "lz4", "br", "Z"].map(|suffix| format!("{}.{suffix}", plain.display()));
    match others.iter().find(|other| Path::new(other).is_file()) {
        Some(other) => format!(" ({other} is there, which is not read: decompress it, or compress it with gzip)"),
        None => String::new(),
    }
}

/// Reads a `Retry-After` (RFC 9110 §10.2.3): seconds, or an HTTP date.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wish = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wish.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_its_forms() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        for (value, wish) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("99999999999", Some(24 * 60 * 60)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now), wish.map(Duration::from_secs), "{value}");
        }
    }
}
