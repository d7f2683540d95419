//! Station-years from memory, else from the object store, else from the source; concurrent requests for a station share one
//! fetch.
//!
//! Depends on [`formats`](crate::formats), [`stations`](crate::stations), [`sources`](crate::sources) and the object store.

mod memory;
mod warnings;

use self::{memory::Memory, warnings::Warnings};
use crate::{
    formats::{ghcn::FIRST_YEAR, left_out::LeftOut, station_year::StationYear},
    sources::{client::Client, location::Location, unavailable::Unavailable},
    stations::{
        nearest::{StationIndex, StationYearKey},
        years::YearIndexes,
    },
};
use common::outcome::Failure;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp, civil};
use parking_lot::Mutex;
use records::{
    layout,
    store::{self, Store},
};
use runtime::{host, metrics::metrics};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::time::Instant;

/// Maximum memory for station-years: about 28,000 of them.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum number of concurrent fetches for one message.
const FETCHES_MAX: usize = 8;
/// Reason code of a dead letter whose weather cannot be used and that waiting does not repair.
pub const WEATHER_UNUSABLE: &str = "weather_unusable";
/// Time to live in memory of what can still change: a year that is not settled, or the answers of a source that has had no
/// file of any station.
const UNSETTLED_FOR: SignedDuration = SignedDuration::from_hours(6);
/// Maximum difference between the clocks of two machines: weather fetched that shortly after a refresh was requested may have
/// been fetched before.
const CLOCK_SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);

/// A fetch in progress (single flight): concurrent requests for the same station wait for it and share its failure.
type Flight = Arc<tokio::sync::Mutex<Option<(Instant, Failure)>>>;

type StationYears = Vec<(StationYearKey, Arc<StationYear>)>;

/// The cache, with the client that fills it.
#[derive(Debug)]
pub struct WeatherCache {
    client: Client,
    store: Store,
    settled_days: u16,
    memory: Mutex<Memory>,
    years: Mutex<YearIndexes>,
    flights: Mutex<HashMap<u32, Flight>>,
    /// Whether the source has had a file of any station. Before that, "not found" may mean a wrong address.
    answered: AtomicBool,
    /// Stations whose file was requested and does not exist.
    without_file: Mutex<HashSet<u32>>,
    warnings: Warnings,
}

/// Whether the observations of a year can still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum YearStatus {
    /// Before the first year of GHCN-Daily: there is no observation, and none is requested.
    BeforeRecords,
    /// There is no observation yet, and none is requested.
    Future,
    /// Observations may still change.
    Unsettled,
    /// Observations no longer change.
    Settled,
}

fn year_status(year: i16, now: Timestamp, settled_days: u16) -> YearStatus {
    let this_year = now.to_zoned(jiff::tz::TimeZone::UTC).year();
    if year < FIRST_YEAR {
        return YearStatus::BeforeRecords;
    }
    if year > this_year {
        return YearStatus::Future;
    }
    let over = civil::date(year.saturating_add(1).min(9999), 1, 1).to_zoned(jiff::tz::TimeZone::UTC);
    let settling = SignedDuration::from_hours(24 * i64::from(settled_days));
    match over.map(|over| over.timestamp().saturating_add(settling)) {
        Ok(Ok(settled)) if settled <= now => YearStatus::Settled,
        _ => YearStatus::Unsettled,
    }
}

/// Maps a failure: an unreachable weather service is an outage, weather that waiting cannot repair a permanent failure.
pub fn failure(unavailable: &Unavailable) -> Failure {
    match unavailable {
        Unavailable::Unusable { why } => Failure::permanent(WEATHER_UNUSABLE, why),
        _ => Failure::Outage {
            dependency: "weather service",
            why: unavailable.to_string(),
            retry_after: unavailable.retry_after(),
        },
    }
}

impl WeatherCache {
    /// Starts with an empty memory. A year counts as settled `settled_days` after its end.
    pub fn new(client: Client, store: Store, settled_days: u16) -> Self {
        Self {
            client,
            warnings: Warnings::new(Arc::clone(&store)),
            store,
            settled_days,
            memory: Mutex::new(Memory::new(MEMORY_BYTES_MAX)),
            years: Mutex::default(),
            flights: Mutex::default(),
            answered: AtomicBool::new(false),
            without_file: Mutex::default(),
        }
    }

    /// Returns whether the file of a station was requested and does not exist.
    pub fn has_no_file(&self, station: u32) -> bool {
        self.without_file.lock().contains(&station)
    }

    /// Returns the warnings about the files of the source.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// Returns the client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns a station-year from memory, unless it may lack what was published before `since`.
    pub fn cached(&self, key: StationYearKey, since: Option<Timestamp>) -> Option<Arc<StationYear>> {
        self.memory.lock().get(key, host::now(), since)
    }

    /// Returns an index of the stations that may have observations in a year.
    pub fn index(&self, year: i16, all: &StationIndex) -> Arc<StationIndex> {
        self.years.lock().index(year, all)
    }

    /// Fetches these years of these stations, from the source if they may lack what was published before `since`.
    ///
    /// # Errors
    /// Fails with an outage if the weather service or the object store cannot be reached, and permanently if the weather
    /// cannot be used. Station-years fetched before the failure stay cached.
    pub async fn fetch(
        &self,
        all: &StationIndex,
        needed: BTreeMap<u32, BTreeSet<i16>>,
        since: Option<Timestamp>,
    ) -> Result<HashMap<StationYearKey, Arc<StationYear>>, Failure> {
        let failed = &AtomicBool::new(false);
        let mut answers = futures::stream::iter(needed)
            .map(|(station, years)| async move {
                // After a failure, fetches in progress are completed, so that none is repeated, and no new one is started.
                if failed.load(Ordering::Relaxed) {
                    return Ok(Vec::new());
                }
                let answer = self.station(station, all.id(station).as_str(), years, since).await;
                failed.fetch_or(answer.is_err(), Ordering::Relaxed);
                answer
            })
            .buffer_unordered(FETCHES_MAX);
        let mut station_years = HashMap::new();
        let mut failure = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(fetched) => station_years.extend(fetched),
                Err(first) => {
                    failure.get_or_insert(first);
                }
            }
        }
        failure.map_or(Ok(station_years), Err)
    }

    async fn station(
        &self,
        station: u32,
        id: &str,
        years: BTreeSet<i16>,
        since: Option<Timestamp>,
    ) -> Result<StationYears, Failure> {
        let asked_at = Instant::now();
        let flight = Arc::clone(self.flights.lock().entry(station).or_default());
        let answer = async {
            let mut last_failure = flight.lock().await;
            if let Some((at, failure)) = last_failure.as_ref()
                && *at >= asked_at
            {
                return Err(failure.clone());
            }
            let answer = self.station_alone(station, id, years, since).await;
            *last_failure = answer.as_ref().err().map(|failure| (Instant::now(), failure.clone()));
            answer
        }
        .await;
        let mut flights = self.flights.lock();
        drop(flight);
        if flights.get(&station).is_some_and(|flight| Arc::strong_count(flight) == 1) {
            flights.remove(&station);
        }
        answer
    }

    async fn station_alone(
        &self,
        station: u32,
        id: &str,
        years: BTreeSet<i16>,
        since: Option<Timestamp>,
    ) -> Result<StationYears, Failure> {
        let now = host::now();
        let mut station_years = Vec::with_capacity(years.len());
        let mut missing = BTreeSet::new();
        for year in years {
            let key = (station, year);
            let mut origin = "memory";
            let weather = match year_status(year, now, self.settled_days) {
                YearStatus::BeforeRecords | YearStatus::Future => Some(Arc::default()),
                _ if let Some(weather) = self.cached(key, since) => {
                    metrics().station_years(origin, 1);
                    station_years.push((key, weather));
                    continue;
                }
                // An object does not say when its weather was fetched: a delayed write may have been the last one.
                YearStatus::Settled if since.is_none() && !self.client.source().is_folder() => {
                    origin = "store";
                    self.read_stored(id, year).await?.map(Arc::new)
                }
                YearStatus::Settled | YearStatus::Unsettled => None,
            };
            match weather {
                Some(weather) => {
                    metrics().station_years(origin, 1);
                    station_years.push((key, self.remember(key, weather, None, now, true)));
                }
                None => {
                    missing.insert(year);
                }
            }
        }
        for years in self.client.source().years_by_request(missing) {
            station_years.extend(self.request(station, id, &years, since, now).await?);
        }
        Ok(station_years)
    }

    /// Fetches years of a station from the source in one request, and caches them.
    async fn request(
        &self,
        station: u32,
        id: &str,
        years: &BTreeSet<i16>,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<StationYears, Failure> {
        let fetched = self.client.station_years(id, years).await.map_err(|unavailable| failure(&unavailable))?;
        tracing::debug!(station = id, ?years, "weather fetched");
        metrics().station_years("source", years.len() as u64);
        if fetched.years.values().any(Option::is_some) {
            self.answered.store(true, Ordering::Relaxed);
            self.without_file.lock().remove(&station);
        } else {
            self.without_file.lock().insert(station);
        }
        // The clock of whoever requested the refresh may differ from that of this process.
        let as_of = since.max(now.saturating_sub(CLOCK_SKEW_MAX).ok());
        let (mut station_years, mut settled) = (Vec::with_capacity(years.len()), Vec::new());
        for (year, weather) in fetched.years {
            let is_reliable = weather.is_some() || self.answered.load(Ordering::Relaxed);
            let weather = weather.unwrap_or_default();
            let is_settled = year_status(year, now, self.settled_days) == YearStatus::Settled;
            if is_reliable && is_settled && !self.client.source().is_folder() {
                settled.push((layout::weather(id, year), weather.to_csv(year)));
            }
            let key = (station, year);
            station_years.push((key, self.remember(key, Arc::new(weather), as_of, now, is_reliable)));
        }
        // The memory is filled first, so that an outage of the store does not cause another request to the source.
        self.warn(id, fetched.texts).await;
        for (path, text) in settled {
            store::write(&self.store, &path, text).await?;
        }
        Ok(station_years)
    }

    async fn warn(&self, id: &str, texts: Vec<(Location, LeftOut)>) {
        let whole = self.client.source().by_station(id).is_some();
        for (location, left_out) in texts {
            self.warnings.report(id, &location.to_string(), &left_out, whole).await;
        }
    }

    /// Keeps a station-year in memory: without expiry if it is reliable and can no longer change.
    fn remember(
        &self,
        key: StationYearKey,
        weather: Arc<StationYear>,
        as_of: Option<Timestamp>,
        now: Timestamp,
        is_reliable: bool,
    ) -> Arc<StationYear> {
        let is_final = match year_status(key.1, now, self.settled_days) {
            YearStatus::Settled | YearStatus::BeforeRecords => is_reliable,
            YearStatus::Unsettled | YearStatus::Future => false,
        };
        if !weather.is_empty() {
            self.years.lock().include(key);
        } else if is_final {
            self.years.lock().exclude(key);
        }
        let stale_at = if is_final { None } else { now.saturating_add(UNSETTLED_FOR).ok() };
        self.memory.lock().put(key, Arc::clone(&weather), as_of, stale_at);
        weather
    }

    /// Reads a station-year from the object store. A damaged object counts as absent: it is fetched and written again.
    async fn read_stored(&self, id: &str, year: i16) -> Result<Option<StationYear>, Failure> {
        let path = layout::weather(id, year);
        let Some(bytes) = store::read(&self.store, &path).await? else { return Ok(None) };
        match StationYear::from_csv(year, &bytes) {
            Ok(read) => {
                self.warnings.report(id, &path, &read.left_out, false).await;
                Ok(Some(read.value))
            }
            Err(malformed) => {
                tracing::warn!(path, %malformed, "a cached station-year cannot be read and is fetched again");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_settles_some_days_after_its_end() {
        let at = |text: &str| text.parse().unwrap();
        for (year, now, expected) in [
            (2018, "2019-06-29T23:59:59Z", YearStatus::Unsettled),
            (2018, "2019-06-30T00:00:00Z", YearStatus::Settled),
            (2018, "2018-01-01T00:00:00Z", YearStatus::Unsettled),
            (2018, "2017-12-31T23:59:59Z", YearStatus::Future),
            (1749, "2019-01-01T00:00:00Z", YearStatus::BeforeRecords),
            (1750, "2019-01-01T00:00:00Z", YearStatus::Settled),
            (9999, "2019-01-01T00:00:00Z", YearStatus::Future),
        ] {
            assert_eq!(year_status(year, at(now), 180), expected, "{year} at {now}");
        }
    }

    #[test]
    fn only_final_station_years_are_kept_without_expiry_and_excluded() {
        let client = || {
            let source = crate::sources::source::Source::parse("https://localhost:1").unwrap();
            let request_policy = crate::sources::request_policy::RequestPolicy {
                requests_per_second: std::num::NonZeroU32::MIN,
                timeout: std::time::Duration::from_secs(1),
                contact: None,
                unusable_patience: std::time::Duration::ZERO,
            };
            let http = crate::sources::http::Reqwest::new(&request_policy).unwrap();
            Client::new(source, None, &request_policy, Arc::new(http))
        };
        let station = crate::formats::ghcn::Station { id: "USW00094728".into(), latitude: 40.0, longitude: -74.0 };
        let all = StationIndex::new(vec![station], None);
        let now: Timestamp = "2019-06-01T00:00:00Z".parse().unwrap();
        let later = now.saturating_add(UNSETTLED_FOR).unwrap();
        for (year, is_reliable, is_final) in
            [(1700, true, true), (2017, true, true), (2017, false, false), (2018, true, false), (2020, true, false)]
        {
            let store: Store = Arc::new(object_store::memory::InMemory::new());
            let cache = WeatherCache::new(client(), store, 180);
            cache.index(year, &all);
            cache.remember((0, year), Arc::default(), None, now, is_reliable);
            assert!(cache.memory.lock().get((0, year), now, None).is_some());
            assert_eq!(cache.memory.lock().get((0, year), later, None).is_some(), is_final, "{year}");
            // Exclude enough others that the index is built again.
            (1..64).for_each(|other| cache.years.lock().exclude((other, year)));
            assert_eq!(cache.index(year, &all).len(), usize::from(!is_final), "{year}");
        }
    }
}
