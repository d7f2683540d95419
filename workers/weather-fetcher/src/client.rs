//! Reads NOAA's texts over HTTP or from a folder: politely, bounded in time and size, and never guessing.

use crate::{
    ghcn::{self, ByStation, Inventory, InventoryList, Station, StationList},
    http::{Answer, Http, chain},
    lines::{Lines, Malformed, Text},
    source::{Place, Source},
    station_year::StationYear,
};
use async_compression::tokio::bufread::GzipDecoder;
use common::runtime::host;
use governor::DefaultDirectRateLimiter;
use jiff::Timestamp;
use reqwest::StatusCode;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    time::Instant,
};
use tokio_util::io::StreamReader;

/// Tries of one request before the service counts as away.
const TRIES: u32 = 3;
/// Wait before the second try, doubled for each further one; jittered between half and all of it.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// A longer wish to wait is not sat out here: the message goes back to its queue meanwhile.
const SIT_OUT_MAX: Duration = Duration::from_secs(5);
/// No service is believed when it wants to be left alone for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const READ_BYTES: usize = 64 * 1024;

/// Why weather cannot be had right now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No connection, no answer in time, or an answer that broke off.
    #[error("{place}: {why}")]
    Broken {
        /// What was asked for.
        place: String,
        /// In words.
        why: String,
    },
    /// An answer other than the text or "not found".
    #[error("{place} answered {status}{}", hint(*.status))]
    Status {
        /// What was asked for.
        place: String,
        /// HTTP status.
        status: StatusCode,
        /// The service wants to be left alone for this long.
        retry_after: Option<Duration>,
    },
    /// The service asked for a pause a while ago, which is not over.
    #[error("the service asked not to be asked again for {} more seconds", .retry_after.as_secs())]
    Paused {
        /// What is left of it.
        retry_after: Duration,
    },
    /// An answer that is not what it should be.
    #[error("{place} is not what it should be: {malformed}")]
    Babble {
        /// What was asked for.
        place: String,
        /// Where and why.
        malformed: Malformed,
    },
    /// A text without end.
    #[error("{place}: more than {bytes_max} bytes")]
    TooLarge {
        /// What was asked for.
        place: String,
        /// Taken at most, as it comes and decompressed.
        bytes_max: u64,
    },
    /// The list that everything starts with is not there.
    #[error("no station list at {places}: set weather.stations to the path or URL of NOAA's ghcnd-stations.txt")]
    NoStations {
        /// Where it was looked for.
        places: String,
    },
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ": access is refused; check weather.source, or whether this address is barred from the service"
        }
        status if status.is_redirection() => {
            ": a redirect to another host or port, or away from https, is not followed; check weather.source"
        }
        _ => "",
    }
}

impl Unavailable {
    /// How long the service wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Paused { retry_after } => Some(*retry_after),
            Self::Broken { .. } | Self::Babble { .. } | Self::TooLarge { .. } | Self::NoStations { .. } => None,
        }
    }

    fn may_pass_soon(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Babble { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Paused { .. } | Self::TooLarge { .. } | Self::NoStations { .. } => false,
        }
    }
}

/// How to behave towards the service.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Requests per second at most.
    pub requests_per_second: NonZeroU32,
    /// The longest silence, while connecting, before or within an answer.
    pub timeout: Duration,
    /// Where the service's operators may complain.
    pub contact: Option<String>,
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
    /// When it cannot be had whole.
    pub async fn stations(&self) -> Result<Vec<Station>, Unavailable> {
        let found = self.first_of(&self.stations, || Lines::new(StationList::default())).await?;
        found.ok_or_else(|| Unavailable::NoStations {
            places: self.stations.iter().map(Place::to_string).collect::<Vec<_>>().join(" or "),
        })
    }

    /// The inventory, where there is one.
    ///
    /// # Errors
    /// When it is there but cannot be had whole.
    pub async fn inventory(&self) -> Result<Option<Inventory>, Unavailable> {
        self.first_of(&self.inventory, || Lines::new(InventoryList::default())).await
    }

    /// These years of a station; `None` for what the source does not have, an empty one where it has the station but
    /// nothing of the year.
    ///
    /// # Errors
    /// When any of them cannot be had whole; those had before are lost.
    pub async fn station_years(
        &self,
        station: &str,
        years: &BTreeSet<i16>,
    ) -> Result<BTreeMap<i16, Option<StationYear>>, Unavailable> {
        if let Some(place) = self.source.by_station(station) {
            let rows = || Lines::new(ByStation::new(station, years.iter().copied()));
            let mut found = self.read(&place, rows).await?;
            let of_year = |year| found.as_mut().map(|found| found.remove(&year).unwrap_or_default());
            return Ok(years.iter().copied().zip(years.iter().copied().map(of_year)).collect());
        }
        let mut found = BTreeMap::new();
        for &year in years {
            if let Some(place) = self.source.by_year(station, year) {
                found.insert(year, self.read(&place, || ghcn::AccessAnswer::new(station, year)).await?);
            }
        }
        Ok(found)
    }

    async fn first_of<T: Text>(
        &self,
        places: &[Place],
        text: impl Fn() -> T,
    ) -> Result<Option<T::Output>, Unavailable> {
        for place in places {
            if let Some(found) = self.read(place, &text).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Reads a place; `None` when it is not there.
    async fn read<T: Text>(&self, place: &Place, text: impl Fn() -> T) -> Result<Option<T::Output>, Unavailable> {
        let url = match place {
            Place::File(path) => {
                return match tokio::fs::File::open(path).await {
                    Ok(file) => consume(place, file, text()).await.map(Some),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Unavailable::Broken { place: place.to_string(), why: error.to_string() }),
                };
            }
            Place::Url(url) => url,
        };
        let mut tried = 1;
        loop {
            self.check_pause()?;
            self.limiter.until_ready().await;
            let failure = match self.request(place, url, text()).await {
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

    async fn request<T: Text>(&self, place: &Place, url: &str, text: T) -> Result<Option<T::Output>, Unavailable> {
        let broken = |why| Unavailable::Broken { place: place.to_string(), why };
        let Answer { status, retry_after: wish, body } = self.http.get(url).await.map_err(broken)?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if status != StatusCode::OK {
            let retry_after = wish.and_then(|value| retry_after(&value, host::now()));
            return Err(Unavailable::Status { place: place.to_string(), status, retry_after });
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

/// Hands a text on piece by piece, decompressed when it is gzip, whatever its name.
async fn consume<T: Text>(
    place: &Place,
    body: impl AsyncRead + Send + Unpin,
    text: T,
) -> Result<T::Output, Unavailable> {
    let broken = |error: io::Error| Unavailable::Broken { place: place.to_string(), why: chain(&error) };
    // Bounded before it is decompressed as well: compressed nothing need not have an end either.
    let mut came = body.take(T::BYTES_MAX + 1);
    let mut body = BufReader::with_capacity(READ_BYTES, &mut came);
    let poured = if body.fill_buf().await.map_err(broken)?.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = GzipDecoder::new(body);
        unpacked.multiple_members(true);
        pour(place, unpacked, text).await
    } else {
        pour(place, body, text).await
    };
    match came.limit() {
        0 => Err(Unavailable::TooLarge { place: place.to_string(), bytes_max: T::BYTES_MAX }),
        _ => poured,
    }
}

async fn pour<T: Text>(place: &Place, mut body: impl AsyncRead + Unpin, mut text: T) -> Result<T::Output, Unavailable> {
    let babble = |malformed| Unavailable::Babble { place: place.to_string(), malformed };
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0u64;
    loop {
        let read = body.read(&mut buffer).await;
        let count = read.map_err(|error| Unavailable::Broken { place: place.to_string(), why: chain(&error) })?;
        let piece = buffer.get(..count).unwrap_or_default();
        if piece.is_empty() {
            return text.finish().map_err(babble);
        }
        total += count as u64;
        if total > T::BYTES_MAX {
            return Err(Unavailable::TooLarge { place: place.to_string(), bytes_max: T::BYTES_MAX });
        }
        text.feed(piece).map_err(babble)?;
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
    use crate::lines::Rows;

    async fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        async_compression::tokio::bufread::GzipEncoder::new(plain).read_to_end(&mut packed).await.unwrap();
        packed
    }

    #[tokio::test]
    async fn a_text_without_end_is_given_up_compressed_or_not() {
        let place = Place::Url("https://noaa.test/x".to_owned());
        let year = || ghcn::AccessAnswer::new("USW00094728", 2018);
        let beyond = usize::try_from(ghcn::AccessAnswer::BYTES_MAX).unwrap() + 1;
        let blanks = vec![b' '; beyond];
        let nothing = gzip(b"").await.repeat(beyond / 20 + 1);
        let zeros = gzip(&vec![0; 64 * 1024]).await.repeat(beyond / (64 * 1024) + 1);
        for body in [&blanks, &gzip(&blanks).await, &zeros, &nothing] {
            let told = consume(&place, body.as_slice(), year()).await.unwrap_err();
            let bytes_max = ghcn::AccessAnswer::BYTES_MAX;
            assert_eq!(told, Unavailable::TooLarge { place: place.to_string(), bytes_max }, "{} bytes", body.len());
        }
        let list = gzip(&vec![b'\n'; usize::try_from(StationList::BYTES_MAX).unwrap() + 1]).await;
        let told = consume(&place, list.as_slice(), Lines::new(StationList::default())).await.unwrap_err();
        assert_eq!(told.to_string(), "https://noaa.test/x: more than 67108864 bytes");
        let whole = consume(&place, gzip(b"[]").await.as_slice(), year()).await;
        assert!(whole.is_ok(), "{whole:?}");
    }

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
