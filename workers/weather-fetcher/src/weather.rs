//! The weather of station-years: from memory, else from the object store, else from the source; each asked for once.

use crate::{
    cache::{Memory, Years},
    client::Client,
    ghcn::FIRST_YEAR,
    join::StationYearKey,
    left_out::LeftOut,
    nearest::StationIndex,
    source::Place,
    station_year::StationYear,
    unavailable::Unavailable,
    warnings::Warnings,
};
use common::outcome::Failure;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp, civil};
use records::{
    layout,
    store::{self, Store},
};
use runtime::host;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::time::Instant;

/// Memory for station-years: about 28,000 of them.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Stations asked for at a time, for one message.
const AT_A_TIME: usize = 8;
/// Reason of a dead letter whose weather cannot be used, however long one waits.
pub const WEATHER_UNUSABLE: &str = "weather_unusable";
/// How long one believes what can still change: a year that is not settled, or a source that had nothing of any station.
const UNSETTLED_FOR: SignedDuration = SignedDuration::from_hours(6);

/// One request in the making; those who want the same wait for it and share its failure.
type Flight = Arc<tokio::sync::Mutex<Option<(Instant, Failure)>>>;

/// Everything that is known, and the means to know more.
#[derive(Debug)]
pub struct WeatherCache {
    client: Client,
    store: Store,
    settled_days: u16,
    memory: Mutex<Memory>,
    years: Mutex<Years>,
    flights: Mutex<HashMap<u32, Flight>>,
    /// Whether the source had something of some station: before that, "not found" may mean a wrong address.
    answered: AtomicBool,
    /// Stations whose file the source was asked for and did not have.
    without_file: Mutex<HashSet<u32>>,
    warnings: Warnings,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the source's word about a year holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// There can be no observation, ever: not asked for.
    Impossible,
    /// There can be no observation so far: not asked for.
    NotYet,
    /// It may still change.
    Unsettled,
    /// It will not change any more.
    Settled,
}

fn standing(year: i16, now: Timestamp, settled_days: u16) -> Standing {
    let this_year = now.to_zoned(jiff::tz::TimeZone::UTC).year();
    if year < FIRST_YEAR {
        return Standing::Impossible;
    }
    if year > this_year {
        return Standing::NotYet;
    }
    let over = civil::date(year.saturating_add(1).min(9999), 1, 1).to_zoned(jiff::tz::TimeZone::UTC);
    let settling = SignedDuration::from_hours(24 * i64::from(settled_days));
    match over.map(|over| over.timestamp().saturating_add(settling)) {
        Ok(Ok(settled)) if settled <= now => Standing::Settled,
        _ => Standing::Unsettled,
    }
}

/// A weather service that is away is an outage; weather that waiting cannot repair is a permanent failure.
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
    /// Nothing known yet. A year counts as settled `settled_days` after its end.
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

    /// Whether the source was asked for the file of a station and did not have it.
    pub fn has_no_file(&self, station: u32) -> bool {
        lock(&self.without_file).contains(&station)
    }

    /// The warnings about the source's files.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// The client it asks with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What is in memory.
    pub fn known(&self, key: StationYearKey) -> Option<Arc<StationYear>> {
        lock(&self.memory).get(key, host::now())
    }

    /// An index of the stations that may be of use in a year.
    pub fn index(&self, year: i16, all: &StationIndex) -> Arc<StationIndex> {
        lock(&self.years).index(year, all)
    }

    /// Gets these years of these stations.
    ///
    /// # Errors
    /// An outage of the weather service or of the object store. What was had before it stays known.
    pub async fn fetch(
        &self,
        all: &StationIndex,
        needed: BTreeMap<u32, BTreeSet<i16>>,
    ) -> Result<HashMap<StationYearKey, Arc<StationYear>>, Failure> {
        let failed = &AtomicBool::new(false);
        let mut answers = futures::stream::iter(needed)
            .map(|(station, years)| async move {
                // Requests under way are seen to their end, so that none has to be made twice; no new ones are begun.
                if failed.load(Ordering::Relaxed) {
                    return Ok(Vec::new());
                }
                let answer = self.station(station, all.id(station).as_str(), years).await;
                failed.fetch_or(answer.is_err(), Ordering::Relaxed);
                answer
            })
            .buffer_unordered(AT_A_TIME);
        let mut found = HashMap::new();
        let mut failure = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(known) => found.extend(known),
                Err(first) => {
                    failure.get_or_insert(first);
                }
            }
        }
        failure.map_or(Ok(found), Err)
    }

    async fn station(
        &self,
        station: u32,
        id: &str,
        years: BTreeSet<i16>,
    ) -> Result<Vec<(StationYearKey, Arc<StationYear>)>, Failure> {
        let joined = Instant::now();
        let flight = Arc::clone(lock(&self.flights).entry(station).or_default());
        let answer = async {
            let mut landed = flight.lock().await;
            if let Some((at, failure)) = landed.as_ref()
                && *at >= joined
            {
                return Err(failure.clone());
            }
            let answer = self.station_alone(station, id, years).await;
            *landed = answer.as_ref().err().map(|failure| (Instant::now(), failure.clone()));
            answer
        }
        .await;
        let mut flights = lock(&self.flights);
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
    ) -> Result<Vec<(StationYearKey, Arc<StationYear>)>, Failure> {
        let now = host::now();
        let mut known = Vec::with_capacity(years.len());
        let mut unknown = BTreeSet::new();
        for year in years {
            let key = (station, year);
            let found = match standing(year, now, self.settled_days) {
                Standing::Impossible | Standing::NotYet => Some(Arc::default()),
                _ if let Some(found) = self.known(key) => Some(found),
                Standing::Settled if !self.client.source().is_folder() => {
                    self.read_stored(id, year).await?.map(Arc::new)
                }
                Standing::Settled | Standing::Unsettled => None,
            };
            match found {
                Some(weather) => known.push((key, self.remember(key, weather, now, true))),
                None => {
                    unknown.insert(year);
                }
            }
        }
        for years in self.client.source().at_once(unknown) {
            known.extend(self.ask(station, id, &years, now).await?);
        }
        Ok(known)
    }

    /// Requests years of a station from the source, all at once, and keeps the answer.
    async fn ask(
        &self,
        station: u32,
        id: &str,
        years: &BTreeSet<i16>,
        now: Timestamp,
    ) -> Result<Vec<(StationYearKey, Arc<StationYear>)>, Failure> {
        let fetched = self.client.station_years(id, years).await.map_err(|unavailable| failure(&unavailable))?;
        tracing::debug!(station = id, ?years, "weather fetched");
        if fetched.years.values().any(Option::is_some) {
            self.answered.store(true, Ordering::Relaxed);
            lock(&self.without_file).remove(&station);
        } else {
            lock(&self.without_file).insert(station);
        }
        let (mut known, mut settled) = (Vec::with_capacity(years.len()), Vec::new());
        for (year, weather) in fetched.years {
            let believed = weather.is_some() || self.answered.load(Ordering::Relaxed);
            let weather = weather.unwrap_or_default();
            let is_settled = standing(year, now, self.settled_days) == Standing::Settled;
            if believed && is_settled && !self.client.source().is_folder() {
                settled.push((layout::weather(id, year), weather.to_csv(year)));
            }
            let key = (station, year);
            known.push((key, self.remember(key, Arc::new(weather), now, believed)));
        }
        // In memory first: if the store is away, the source is not asked a second time.
        self.warn(id, fetched.texts).await;
        for (path, text) in settled {
            store::write(&self.store, &path, text).await?;
        }
        Ok(known)
    }

    async fn warn(&self, id: &str, texts: Vec<(Place, LeftOut)>) {
        let whole = self.client.source().by_station(id).is_some();
        for (place, left_out) in texts {
            self.warnings.report(id, &place.to_string(), &left_out, whole).await;
        }
    }

    /// Keeps it in memory: for good when it is `believed` and cannot change any more.
    fn remember(
        &self,
        key: StationYearKey,
        weather: Arc<StationYear>,
        now: Timestamp,
        believed: bool,
    ) -> Arc<StationYear> {
        let is_final = match standing(key.1, now, self.settled_days) {
            Standing::Settled | Standing::Impossible => believed,
            Standing::Unsettled | Standing::NotYet => false,
        };
        if is_final && weather.is_empty() {
            lock(&self.years).note_useless(key);
        }
        let stale_at = if is_final { None } else { now.saturating_add(UNSETTLED_FOR).ok() };
        lock(&self.memory).put(key, Arc::clone(&weather), stale_at);
        weather
    }

    /// A cached object that cannot be read is as good as none: it is fetched and written again.
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
            (2018, "2019-06-29T23:59:59Z", Standing::Unsettled),
            (2018, "2019-06-30T00:00:00Z", Standing::Settled),
            (2018, "2018-01-01T00:00:00Z", Standing::Unsettled),
            (2018, "2017-12-31T23:59:59Z", Standing::NotYet),
            (1749, "2019-01-01T00:00:00Z", Standing::Impossible),
            (1750, "2019-01-01T00:00:00Z", Standing::Settled),
            (9999, "2019-01-01T00:00:00Z", Standing::NotYet),
        ] {
            assert_eq!(standing(year, at(now), 180), expected, "{year} at {now}");
        }
    }

    #[test]
    fn only_what_is_final_is_kept_for_good_and_found_useless() {
        let client = || {
            let source = crate::source::Source::parse("https://localhost:1").unwrap();
            let manners = crate::client::Manners {
                requests_per_second: std::num::NonZeroU32::MIN,
                timeout: std::time::Duration::from_secs(1),
                contact: None,
                unusable_patience: std::time::Duration::ZERO,
            };
            let http = crate::http::Reqwest::new(&manners).unwrap();
            Client::new(source, None, &manners, Box::new(http))
        };
        let station = crate::ghcn::Station { id: "USW00094728".into(), latitude: 40.0, longitude: -74.0 };
        let all = StationIndex::new(vec![station], None);
        let now: Timestamp = "2019-06-01T00:00:00Z".parse().unwrap();
        let later = now.saturating_add(UNSETTLED_FOR).unwrap();
        for (year, believed, expected) in
            [(1700, true, true), (2017, true, true), (2017, false, false), (2018, true, false), (2020, true, false)]
        {
            let store: Store = Arc::new(object_store::memory::InMemory::new());
            let cache = WeatherCache::new(client(), store, 180);
            cache.index(year, &all);
            cache.remember((0, year), Arc::default(), now, believed);
            assert!(lock(&cache.memory).get((0, year), now).is_some());
            assert_eq!(lock(&cache.memory).get((0, year), later).is_some(), expected, "{year}");
            // Enough of others that the index is made again without the useless.
            (1..64).for_each(|other| lock(&cache.years).note_useless((other, year)));
            assert_eq!(cache.index(year, &all).len(), usize::from(!expected), "{year}");
        }
    }
}
