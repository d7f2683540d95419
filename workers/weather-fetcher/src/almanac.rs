//! The weather of any place and date, from the station list, the cache and the source.

use crate::{
    cache::{WeatherCache, failure},
    dates::utc_date,
    formats::{lines::Parsed, station_year::StationYear},
    join::{Join, Reach},
    sources::location::{Location, other_compression},
    stations::nearest::StationIndex,
};
use common::{
    message::WeatherPlace,
    outcome::Failure,
    ride::{Weather, WeatherMissing},
};
use compact_str::CompactString;
use jiff::Timestamp;
use runtime::host;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::OnceCell, time::Instant};

/// Maximum time to read the weather of one message. It is below the 20 minutes of the runtime and the 30 of RabbitMQ's
/// `consumer_timeout`, which count slowness as a failed attempt.
pub(crate) const READ_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Minimum number of places of one year in a message for which an index of that year is built.
const YEAR_INDEX_PLACES_MIN: usize = 32;

/// Names of the station list and of the inventory in warnings, in place of a station id.
pub(crate) const STATION_LIST: &str = "ghcnd-stations";
pub(crate) const INVENTORY: &str = "ghcnd-inventory";

/// No station within reach of a place has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoFile {
    /// Id of the nearest station.
    pub station: String,
    /// First path or URL that was tried for its file.
    pub file: String,
    /// The explanation, with what to do.
    pub why: String,
}

/// Answers with the weather of places. The workers of a process share one.
#[derive(Debug)]
pub struct Almanac {
    weather: WeatherCache,
    stations: OnceCell<Arc<StationIndex>>,
    max_station_km: f64,
}

impl Almanac {
    /// Reads nothing yet; the first request reads the station list.
    pub fn new(weather: WeatherCache, max_station_km: f64) -> Self {
        Self { weather, stations: OnceCell::new(), max_station_km }
    }

    /// Maximum distance of a station from a place, kilometres.
    pub fn max_station_km(&self) -> f64 {
        self.max_station_km
    }

    /// Returns the weather of each place, in order, from memory alone; `None` if anything has to be read first.
    pub fn cached_weather(&self, places: &[WeatherPlace]) -> Option<Vec<Weather>> {
        let reach = self.reach(self.stations.get()?, places);
        let mut join = Join::new(&reach, places, utc_date(host::now()));
        join.advance(|key| self.weather.cached(key, None)).is_empty().then(|| join.finish())
    }

    /// Reads the weather of each place, in order; from the source if what is cached may lack what was published before `since`.
    ///
    /// # Errors
    /// Fails with an outage if the weather service or the object store cannot be reached, and permanently if the weather
    /// cannot be used. Station-years read before the failure stay cached.
    pub async fn weather(&self, places: &[WeatherPlace], since: Option<Timestamp>) -> Result<Vec<Weather>, Failure> {
        let stations = self.stations().await?;
        // The indexes of years leave out stations whose weather may have been corrected since.
        let reach = match since {
            None => self.reach(stations, places),
            Some(_) => self.reach(stations, &[]),
        };
        let mut join = Join::new(&reach, places, utc_date(host::now()));
        let mut fetched = HashMap::new();
        loop {
            let needed = join.advance(|key| fetched.get(&key).cloned().or_else(|| self.weather.cached(key, since)));
            if needed.is_empty() {
                let weather = join.finish();
                self.warn_of_missing_files(places, &weather).await;
                return Ok(weather);
            }
            fetched = self.weather.fetch(stations, needed, since).await?;
        }
    }

    /// Reads these years of the stations around a place, nearest first, until `judge` accepts one of the first `stations_max`.
    /// Returns the id of that station and its distance in kilometres.
    ///
    /// # Errors
    /// As [`Self::weather`].
    pub async fn nearest_by<T>(
        &self,
        place: &WeatherPlace,
        years: &BTreeSet<i16>,
        stations_max: usize,
        judge: impl Fn(&BTreeMap<i16, Arc<StationYear>>) -> Option<T>,
    ) -> Result<Option<(CompactString, f64, T)>, Failure> {
        let all = self.stations().await?;
        let mut nearby = all.near(place.latitude, place.longitude, self.max_station_km);
        let mut tried = 0;
        while let Some(near) = nearby.next(all) {
            let needed: BTreeSet<i16> = years.iter().copied().filter(|&year| all.covers(near.station, year)).collect();
            if needed.is_empty() {
                continue;
            }
            if tried == stations_max {
                break;
            }
            tried += 1;
            let (mut known, mut missing) = (BTreeMap::new(), BTreeSet::new());
            for year in needed {
                match self.weather.cached((near.station, year), None) {
                    Some(station_year) => drop(known.insert(year, station_year)),
                    None => drop(missing.insert(year)),
                }
            }
            if !missing.is_empty() {
                let fetched = self.weather.fetch(all, BTreeMap::from([(near.station, missing)]), None).await?;
                known.extend(fetched.into_iter().map(|((_, year), station_year)| (year, station_year)));
            }
            if let Some(judged) = judge(&known) {
                return Ok(Some((all.id(near.station), near.km, judged)));
            }
        }
        Ok(None)
    }

    /// Returns whether the source is a folder, whose weather is there at once.
    pub fn reads_folder(&self) -> bool {
        self.weather.client().source().is_folder()
    }

    /// Returns why a place has no observation if the reason is that no station within reach has a file; `None` if a
    /// station has one or has not been requested.
    pub fn no_file(&self, place: &WeatherPlace) -> Option<NoFile> {
        let all = self.stations.get()?;
        let (year, ..) = place.statustime.date();
        let mut nearby = all.near(place.latitude, place.longitude, self.max_station_km);
        let (mut nearest, mut count) = (None, 0u32);
        while let Some(near) = nearby.next(all) {
            if !all.covers(near.station, year) {
                continue;
            }
            if !self.weather.has_no_file(near.station) {
                return None;
            }
            nearest.get_or_insert(near.station);
            count += 1;
        }
        let station = all.id(nearest?).to_string();
        let file = self.weather.client().source().first_location(&station, year)?.to_string();
        let (km, latitude, longitude) = (self.max_station_km, place.latitude, place.longitude);
        let why = match file.ends_with(".csv") {
            true => format!("{file} (and {file}.gz)"),
            false => file.clone(),
        };
        let other = self.weather.client().source().by_station(&station);
        let other = other.map(|locations| other_compression(&locations)).unwrap_or_default();
        let why = format!(
            "none of the {count} station{} within {km} km of {latitude}, {longitude} has a file; first tried {why}{other}. \
             Add the station files to weather.source, or raise weather.max_station_km",
            if count == 1 { "" } else { "s" }
        );
        Some(NoFile { station, file, why })
    }

    /// Issues one warning per nearest station.
    async fn warn_of_missing_files(&self, places: &[WeatherPlace], weather: &[Weather]) {
        let mut warned = HashSet::new();
        for (place, weather) in places.iter().zip(weather) {
            use WeatherMissing::{NoObservationOnDate, NotYetPublished};
            if !matches!(weather, Weather::Missing(NoObservationOnDate | NotYetPublished)) {
                continue;
            }
            if let Some(NoFile { station, file, why }) = self.no_file(place)
                && warned.insert(station.clone())
            {
                self.weather.warnings().no_file(&station, &file, &why).await;
            }
        }
    }

    async fn stations(&self) -> Result<&Arc<StationIndex>, Failure> {
        let load = || async {
            let started = Instant::now();
            let client = self.weather.client();
            let stations = client.stations().await.map_err(|unavailable| failure(&unavailable))?;
            let inventory = client.inventory().await.map_err(|unavailable| failure(&unavailable))?;
            let list = self.warn(STATION_LIST, &stations.location, stations.parsed).await;
            let inventory = match inventory {
                Some(file) => Some(self.warn(INVENTORY, &file.location, file.parsed).await),
                None => None,
            };
            let listed = list.len();
            let index = StationIndex::new(list, inventory.as_ref());
            if listed > 0 && index.is_empty() {
                tracing::warn!(listed, "no listed station has all elements in the inventory: no ride gets weather");
            }
            tracing::info!(
                listed,
                usable = index.len(),
                inventory = inventory.is_some(),
                took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "station list loaded"
            );
            Ok(Arc::new(index))
        };
        self.stations.get_or_try_init(load).await
    }

    async fn warn<T>(&self, name: &str, location: &Location, parsed: Parsed<T>) -> T {
        self.weather.warnings().report(name, &location.to_string(), &parsed.left_out, true).await;
        parsed.value
    }

    fn reach(&self, all: &Arc<StationIndex>, places: &[WeatherPlace]) -> Reach {
        let mut by_year: HashMap<i16, usize> = HashMap::new();
        for place in places {
            *by_year.entry(place.statustime.date().0).or_default() += 1;
        }
        let many = by_year.into_iter().filter(|(_, places)| *places >= YEAR_INDEX_PLACES_MIN);
        let by_year = many.map(|(year, _)| (year, self.weather.index(year, all))).collect();
        Reach { all: Arc::clone(all), by_year, max_km: self.max_station_km }
    }
}
