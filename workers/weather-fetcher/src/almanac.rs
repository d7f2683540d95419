//! The weather of any place and day: the station list, what is known of the stations, and the means to know more.

use crate::{
    client::other_compression,
    join::{Join, Reach},
    lines::Parsed,
    nearest::StationIndex,
    source::Place,
    weather::{WeatherCache, failure},
};
use common::{
    message::WeatherPlace,
    outcome::Failure,
    ride::{Weather, WeatherMissing},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::{sync::OnceCell, time::Instant};

/// Places of one year in a chunk from which on an index of that year is worth its making.
const YEAR_INDEX_PLACES_MIN: usize = 32;

/// Stands for the station list and the inventory where warnings name a station.
pub(crate) const STATION_LIST: &str = "ghcnd-stations";
pub(crate) const INVENTORY: &str = "ghcnd-inventory";

/// Reports that no station within reach of a place has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoFile {
    /// The nearest of the stations.
    pub station: String,
    /// Where its file was looked for first.
    pub file: String,
    /// All of it in words.
    pub why: String,
}

/// Shared by the workers of a process.
#[derive(Debug)]
pub struct Almanac {
    weather: WeatherCache,
    stations: OnceCell<Arc<StationIndex>>,
    max_station_km: f64,
}

impl Almanac {
    /// Knows nothing yet, not even the stations.
    pub fn new(weather: WeatherCache, max_station_km: f64) -> Self {
        Self { weather, stations: OnceCell::new(), max_station_km }
    }

    /// Farther stations are not asked, kilometres.
    pub fn max_station_km(&self) -> f64 {
        self.max_station_km
    }

    /// The weather of each place, in their order, from memory alone; `None` when something would have to be read.
    pub fn known(&self, places: &[WeatherPlace]) -> Option<Vec<Weather>> {
        let reach = self.reach(self.stations.get()?, places);
        let mut join = Join::new(&reach, places);
        join.advance(|key| self.weather.known(key)).is_empty().then(|| join.finish())
    }

    /// The weather of each place, in their order.
    ///
    /// # Errors
    /// Fails with an outage if the weather service or the object store is away, and permanently if the weather cannot be
    /// used. What was read before stays known.
    pub async fn weather(&self, places: &[WeatherPlace]) -> Result<Vec<Weather>, Failure> {
        let stations = self.stations().await?;
        let reach = self.reach(stations, places);
        let mut join = Join::new(&reach, places);
        let mut fetched = HashMap::new();
        loop {
            let needed = join.advance(|key| fetched.get(&key).cloned().or_else(|| self.weather.known(key)));
            if needed.is_empty() {
                let weather = join.finish();
                self.warn_of_missing_files(places, &weather).await;
                return Ok(weather);
            }
            fetched = self.weather.fetch(stations, needed).await?;
        }
    }

    /// Whether a place has no observation because the source has no file of any station within reach; `None` where a station
    /// has one, or was not asked for.
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
        let file = self.weather.client().source().file_of(&station, year)?.to_string();
        let (km, latitude, longitude) = (self.max_station_km, place.latitude, place.longitude);
        let why = match file.ends_with(".csv") {
            true => format!("{file} (and {file}.gz)"),
            false => file.clone(),
        };
        let other = self.weather.client().source().by_station(&station);
        let other = other.map(|places| other_compression(&places)).unwrap_or_default();
        let why = format!(
            "none of the {count} station{} within {km} km of {latitude}, {longitude} has a file; looked first for {why}{other}. \
             Add the station files to weather.source, or raise weather.max_station_km",
            if count == 1 { "" } else { "s" }
        );
        Some(NoFile { station, file, why })
    }

    /// Warns once for each nearest station.
    async fn warn_of_missing_files(&self, places: &[WeatherPlace], weather: &[Weather]) {
        let mut warned = HashSet::new();
        for (place, weather) in places.iter().zip(weather) {
            if !matches!(weather, Weather::Missing(WeatherMissing::NoObservationOnDate)) {
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
            let found = client.stations().await.map_err(|unavailable| failure(&unavailable))?;
            let inventory = client.inventory().await.map_err(|unavailable| failure(&unavailable))?;
            let list = self.warn(STATION_LIST, &found.place, found.parsed).await;
            let inventory = match inventory {
                Some(found) => Some(self.warn(INVENTORY, &found.place, found.parsed).await),
                None => None,
            };
            let listed = list.len();
            let index = StationIndex::new(list, inventory.as_ref());
            if listed > 0 && index.is_empty() {
                tracing::warn!(listed, "the inventory has no listed station with all elements: no ride gets weather");
            }
            tracing::info!(
                listed,
                of_use = index.len(),
                inventory = inventory.is_some(),
                took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "station list loaded"
            );
            Ok(Arc::new(index))
        };
        self.stations.get_or_try_init(load).await
    }

    async fn warn<T>(&self, name: &str, place: &Place, parsed: Parsed<T>) -> T {
        self.weather.warnings().report(name, &place.to_string(), &parsed.left_out, true).await;
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
